// WordPress with its database behind an edge, and a walk through it (walk.mjs). Runs in namespaces of its own, so that the ports
// are free, nothing leaves the machine and nothing outlives it: PHP's workers do not end with the process that started them.
// The settings are the JSON of the environment variable WORDPRESS (see wordpress.rs).
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { userInfo } from "node:os";

import { walk } from "./walk.mjs";

const settings = JSON.parse(process.env.WORDPRESS);
const { debian, state, origin_port, edge_port } = settings;
// Requests that PHP answers at once: a page may ask its own site for something.
const WORKERS = 6;
const edge = `http://127.0.0.1:${edge_port}`;
const owner = { name: "harbourmaster", password: "seven bells at noon 77", email: "keeper@shore.example" };

setTimeout(() => end(["the walk did not end in time"]), settings.limit_ms).unref();
// The first process of a namespace gets no signal that it does not ask for; but its input ends with whoever started it.
process.stdin.on("end", () => process.exit(1)).resume();

// Whatever has been found out is written down, also when something fails.
const result = { steps: [], readers: [], wrong: [] };
function end(wrong) {
  result.wrong.push(...wrong);
  writeFileSync(settings.result, JSON.stringify(result));
  process.exit(result.wrong.length > 0 ? 1 : 0);
}

const one = (folder, fits) => `${folder}/${readdirSync(folder).find(fits)}`;
const libraries = one(`${debian}/usr/lib`, (name) => name.endsWith("-linux-gnu"));
const env = { ...process.env, LD_LIBRARY_PATH: libraries };
const logs = [];

function start(name, command, more = {}) {
  const log = `${state}/${name}.log`;
  logs.push(log);
  const output = openSync(log, "w");
  const child = spawn(command[0], command.slice(1), { cwd: state, env, stdio: ["ignore", output, output], ...more });
  child.on("error", (error) => end([`cannot run ${command[0]}: ${error.message}`]));
  child.on("exit", (code) => end([`${name} ended with ${code}: ${readFileSync(log, "utf8").slice(-2_000)}`]));
}

function run(command, input) {
  const done = spawnSync(command[0], command.slice(1), { cwd: state, env, input, encoding: "utf8" });
  if (done.status !== 0) end([`${command.join(" ")}: ${done.error ?? done.stderr}`]);
}

// `where`: a port, or the path of a socket.
async function accepting(where) {
  const attempt = () => new Promise((resolve) => {
    const socket = typeof where === "number" ? connect(where, "127.0.0.1") : connect(where);
    socket.on("connect", () => { socket.destroy(); resolve(true); });
    socket.on("error", () => resolve(false));
  });
  for (let tries = 0; tries < 400; tries++) {
    if (await attempt()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  end([`nobody accepts connections at ${where}`]);
}

async function database() {
  const [data, socket, usr] = [`${state}/data`, `${state}/db.sock`, `${debian}/usr`];
  const user = `--user=${userInfo().username}`;
  mkdirSync(data);
  run([`${usr}/bin/mariadb-install-db`, "--no-defaults", `--basedir=${usr}`, `--datadir=${data}`, user, "--skip-test-db",
    "--auth-root-authentication-method=normal"]);
  start("mariadbd", [`${usr}/sbin/mariadbd`, "--no-defaults", `--basedir=${usr}`, `--datadir=${data}`, user,
    `--socket=${socket}`, "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]);
  await accepting(socket);
  run([`${usr}/bin/mariadb`, "--no-defaults", `--socket=${socket}`, "--user=root"], "CREATE DATABASE wordpress");
  return socket;
}

async function wordpress(socket) {
  const site = `${state}/site`;
  const from = `${debian}/usr/share/wordpress`;
  rmSync(`${from}/.htaccess`, { force: true }); // leads to a file of Debian's that is not there
  cpSync(from, site, { recursive: true, dereference: true });
  const keys = ["AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE"].flatMap((name) => [`${name}_KEY`, `${name}_SALT`]);
  const names = {
    DB_NAME: "wordpress", DB_USER: "root", DB_PASSWORD: "", DB_HOST: `localhost:${socket}`, DB_CHARSET: "utf8mb4", DB_COLLATE: "",
    ...Object.fromEntries(keys.map((name) => [name, `${name} of a site that lives for a minute`])),
  };
  const lines = Object.entries(names).map(([name, value]) => `define('${name}', '${value}');`);
  writeFileSync(`${site}/wp-config.php`, ["<?php", ...lines,
    "define('WP_HTTP_BLOCK_EXTERNAL', true);", "$table_prefix = 'wp_';",
    "if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');", "require_once ABSPATH . 'wp-settings.php';", ""].join("\n"));
  const modules = one(`${debian}/usr/lib/php`, (name) => /^\d+$/.test(name));
  const wanted = ["mysqlnd", "mysqli", "ctype", "tokenizer", "iconv", "fileinfo"];
  const php = one(`${debian}/usr/bin`, (name) => /^php\d/.test(name));
  start("php", [php, "-n", "-d", `extension_dir=${modules}`, ...wanted.flatMap((name) => ["-d", `extension=${name}`]),
    "-d", "zend_extension=opcache", "-d", "opcache.enable_cli=1", "-d", "upload_max_filesize=16M", "-d", "post_max_size=16M",
    "-S", `127.0.0.1:${origin_port}`], { cwd: site, env: { ...env, PHP_CLI_SERVER_WORKERS: String(WORKERS) } });
  await accepting(origin_port);
}

// As its own installer does it, through the edge: from the host that it is asked for, WordPress learns its own address.
async function install() {
  const fields = {
    weblog_title: "The Shore", user_name: owner.name, admin_password: owner.password, admin_password2: owner.password,
    pw_weak: "1", admin_email: owner.email, blog_public: "1", language: "", Submit: "Install WordPress",
  };
  const answer = await fetch(`${edge}/wp-admin/install.php?step=2`, { method: "POST", body: new URLSearchParams(fields) });
  const text = await answer.text();
  if (!text.includes("WordPress has been installed")) end([`the installer: ${answer.status} ${text.slice(0, 2_000)}`]);
}

try {
  await wordpress(await database());
  start("edge", [settings.binary, "edge", "--upstream", `http://127.0.0.1:${origin_port}`, "--listen", `127.0.0.1:${edge_port}`,
    ...settings.policy]);
  await accepting(edge_port);
  await install();
  await walk({ ...settings, edge, owner, result });
  end([]);
} catch (error) {
  end([String(error.stack ?? error)]);
}
