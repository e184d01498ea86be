// The walk through WordPress behind an edge: who reads what, and what must hold of every answer.
import { createRequire } from "node:module";

import { Origin } from "./origin.mjs";
import { Reader } from "./reader.mjs";

const COMMENTER = { author: "Ines of the Quay", email: "ines@quay.example" };
const PASSWORD = "low tide";
const SECRET = "The chest lies below the third lamp.";
const PRIVATE = "Nobody knows of the leak in the old pier.";
// Requests at once to a page that has just been purged, of each kind of reader.
const AT_ONCE = 4;
// WordPress refuses a comment that comes sooner after the last one of the same address.
const FLOOD_MS = 15_500;
const ADMIN_PAGES = ["index.php", "edit.php", "edit.php?post_type=page", "upload.php", "edit-comments.php", "themes.php",
  "plugins.php", "users.php", "profile.php", "tools.php", "options-general.php", "options-reading.php", "options-permalink.php"];

export async function walk({ chromium, playwright, edge, origin_port, owner, shots, result }) {
  const require = createRequire(playwright);
  const browser = await require("playwright-core").chromium.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  const begun = Date.now();
  const step = (text) => result.steps.push(`${((Date.now() - begun) / 1_000).toFixed(1).padStart(6)} s  ${text}`);
  const wrong = (text) => result.wrong.push(text);
  const expect = (holds, text) => { if (!holds) wrong(text); };
  const origin = new Origin(edge, origin_port);
  const shared = { browser, edge, origin, wrong, secrets: new Set([owner.email, PRIVATE]) };
  const reader = async (name, kind) => {
    const made = await Reader.open(shared, name, kind);
    result.readers.push(made.count);
    return made;
  };
  const keeper = await reader("administrator", "keeper");
  const anonymous = await reader("anonymous", "anonymous");

  // Logged in, and something to read.
  const log_in = async () => {
    await keeper.open("/wp-login.php");
    await keeper.page.fill("#user_login", owner.name);
    await keeper.page.fill("#user_pass", owner.password);
    await keeper.leave(() => keeper.page.click("#wp-submit"));
    expect(keeper.page.url() === `${edge}/wp-admin/`, `after the login: ${keeper.page.url()}`);
  };
  await log_in();
  // The installer leaves the addresses of categories and tags out; this page makes up for it.
  await keeper.open("/wp-admin/options-permalink.php");
  const made = await write(keeper);
  const pages = ["/", "/page/2/", made.picture, "/sample-page/", "/category/uncategorized/", "/tag/lighthouse/",
    `/author/${owner.name}/`, "/?s=harbour", ...made.posts, ...made.pages, made.hidden, "/feed/", "/comments/feed/",
    "/wp-json/wp/v2/posts", `/?p=${made.id}`];
  step(`logged in; wrote ${made.posts.length} posts, ${made.pages.length} pages, uploaded a picture; ${pages.length} URLs to read`);

  // What nobody is logged in for: each page twice, and the second time everything comes out of the cache.
  await origin.purge("host");
  for (const path of pages) {
    await anonymous.open(path);
    await anonymous.open(path, { hits: true });
  }
  expect(!(await anonymous.text(made.hidden)).includes(SECRET), "a post with a password shows itself to everybody");
  const missing = await anonymous.open("/no-such-page/", { status: 404 });
  expect(missing.cache === "MISS", `a page that is not there: ${missing.cache}`);
  step("anonymous: every page twice");

  // A comment waits for approval: only who wrote it sees it.
  const commenter = await reader("commenter", "anonymous");
  const [commented] = made.posts;
  const commented_at = Date.now();
  await anonymous.open(commented);
  await comment(commenter, commented, "A first word from the quay.");
  expect((await commenter.text(commented)).includes("A first word"), "who wrote a comment does not see it waiting");
  const unseen = await anonymous.open(commented);
  expect(!unseen.text.includes("A first word"), "a comment that waits for approval is shown to everybody");
  await keeper.open("/wp-admin/edit-comments.php?comment_status=moderated");
  await keeper.page.hover("#the-comment-list tr");
  await Promise.all([
    keeper.page.waitForResponse((answer) => answer.url().endsWith("/admin-ajax.php") && answer.ok()),
    keeper.page.click("#the-comment-list tr .approve a"),
  ]);
  await origin.purge("url", commented);
  const approved = await anonymous.open(commented);
  expect(approved.cache === "MISS" && approved.text.includes("A first word"), "an approved comment is not seen after a PURGE");
  await anonymous.open(commented, { hits: true });
  step("a comment waited for approval unseen by others, was approved, and seen by everybody after a PURGE");

  // The same pages for somebody who is logged in, and what only they may see.
  for (const path of pages) await keeper.open(path);
  expect((await keeper.text("/feed/")).includes(PRIVATE), "the administrator's feed lacks a private post");
  for (const path of ADMIN_PAGES) {
    await keeper.open(`/wp-admin/${path}`);
    expect(await keeper.page.locator("#adminmenu").count() === 1, `/wp-admin/${path} has no menu`);
    const outside = await anonymous.open(`/wp-admin/${path}`);
    expect(outside.url.startsWith(`${edge}/wp-login.php?`), `anonymous at /wp-admin/${path}: ${outside.url}`);
  }
  await keeper.open("/", { shot: `${shots}/logged-in.png` });
  await anonymous.open("/", { hits: true, shot: `${shots}/anonymous.png` });
  step(`administrator: the same pages and ${ADMIN_PAGES.length} below /wp-admin/, which send the anonymous to the login`);

  // Both at the same time, each page cold and then warm.
  for (const path of pages) {
    await origin.purge("url", path);
    await Promise.all([keeper.open(path), anonymous.open(path)]);
    await Promise.all([anonymous.open(path, { hits: true }), keeper.open(path)]);
  }
  const cookies = await keeper.cookies();
  for (const path of pages) {
    await origin.purge("url", path);
    const answers = await Promise.all(Array.from({ length: 2 * AT_ONCE }, (_, number) =>
      number % 2 === 0 ? keeper.raw(path, { cookie: cookies }) : anonymous.raw(path)));
    const alone = answers.filter((answer, number) => number % 2 === 1 && !/; (hit|collapsed)\b/.test(answer.headers["cache-status"]));
    // For a file, whoever is logged in is one of them.
    expect(alone.length <= 1, `${path}: ${alone.length} of ${AT_ONCE} anonymous requests at once went to the origin`);
  }
  step(`both at once, in two browsers and ${2 * AT_ONCE} requests at a time, each page just purged and then not`);

  // A password for one post, by a form that sets a cookie.
  await commenter.open(made.hidden);
  await commenter.page.fill("input[name=post_password]", PASSWORD);
  await commenter.leave(() => commenter.page.click("input[name=Submit]"));
  expect((await commenter.text(made.hidden)).includes(SECRET), "the password does not open its post");
  // The form's POST leads to the post, and so has ended what was stored of it.
  const closed = await anonymous.open(made.hidden);
  await anonymous.open(made.hidden, { hits: true });
  expect(!closed.text.includes(SECRET), "a post that was opened with a password is shown to everybody");
  step("a post with a password was opened by one reader and stayed closed for the others");

  // A new post, in the editor.
  const title = "Fog over the breakwater";
  await anonymous.open("/", { hits: true });
  const fog = await publish(keeper, title);
  const before = await anonymous.open("/", { hits: true, outdated: true });
  expect(!before.text.includes(title), "the front page has changed without a PURGE");
  await origin.purge("host");
  const after = await anonymous.open("/");
  expect(after.cache === "MISS" && after.text.includes(title), "the front page lacks the new post after a PURGE");
  await anonymous.open("/", { hits: true });
  await anonymous.open(fog);
  await anonymous.open(fog, { hits: true });
  await keeper.open(fog);
  step("a post was published in the editor; after a PURGE of the host everybody sees it");

  // A comment of somebody who has one already shows at once: the POST ends what is stored of the page that it leads to.
  await anonymous.open(commented);
  await anonymous.open(commented, { hits: true });
  await new Promise((done) => setTimeout(done, Math.max(0, commented_at + FLOOD_MS - Date.now())));
  await comment(commenter, commented, "A second word, and no waiting.");
  const seen = await anonymous.open(commented);
  expect(seen.cache === "MISS" && seen.text.includes("A second word"), `a comment is not seen at once: ${seen.cache}`);
  await anonymous.open(commented, { hits: true });
  step("a second comment was seen by everybody at once, without a PURGE");

  // Logged out: nobody special any more.
  await keeper.open("/");
  const way_out = await keeper.page.getAttribute("#wp-admin-bar-logout a", "href");
  keeper.becomes("anonymous");
  await keeper.open(way_out.replace(edge, ""));
  expect(keeper.page.url().includes("loggedout=true"), `after the logout: ${keeper.page.url()}`);
  keeper.counts("logged out");
  result.readers.push(keeper.count);
  await origin.purge("host");
  for (const path of pages) {
    await anonymous.open(path);
    await keeper.open(path, { hits: true });
  }
  const outside = await keeper.open("/wp-admin/");
  expect(outside.url.startsWith(`${edge}/wp-login.php?`), `logged out at /wp-admin/: ${outside.url}`);
  step("logged out: every page is the anonymous one, out of the cache");
  await browser.close();
}

// Writes posts, pages and a picture as the editor does: over the site's REST interface.
async function write(keeper) {
  await keeper.open("/wp-admin/post-new.php");
  const picture = Buffer.from(await keeper.page.screenshot()).toString("base64");
  return keeper.page.evaluate(async ({ picture, password, secret, unknown }) => {
    const call = async (path, body, more = {}) => {
      const headers = { "X-WP-Nonce": wpApiSettings.nonce, "Content-Type": "application/json", ...more };
      const answer = await fetch(`/wp-json/wp/v2/${path}`, { method: "POST", headers, body });
      if (answer.status !== 201) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
      return answer.json();
    };
    const add = (kind, fields) => call(kind, JSON.stringify({ status: "publish", ...fields }));
    const path = (made) => new URL(made.link).pathname;
    const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
    const image = await call("media", bytes, { "Content-Type": "image/png", "Content-Disposition": "attachment; filename=desk.png" });
    // Posts of the same second come in any order.
    const date = (number) => new Date(Date.UTC(2026, 0, 1 + number)).toISOString().slice(0, 19);
    const tag = await add("tags", { name: "lighthouse" });
    const posts = [];
    let id;
    for (let number = 1; number <= 12; number++) {
      const figure = number === 12 ? `<!-- wp:image --><figure class="wp-block-image"><img src="${image.source_url}" alt=""/></figure><!-- /wp:image -->` : "";
      const made = await add("posts", {
        title: `Harbour notes ${number}`, tags: [tag.id], date: date(number),
        content: `<!-- wp:paragraph --><p>Ship ${number} came in with the tide.</p><!-- /wp:paragraph -->${figure}`,
      });
      posts.push(path(made));
      id = made.id;
    }
    const about = await add("pages", { title: "Opening hours", content: "<!-- wp:paragraph --><p>From dawn to dusk.</p><!-- /wp:paragraph -->" });
    const below = await add("pages", { title: "In winter", parent: about.id, content: "By daylight." });
    const hidden = await add("posts", { title: "For the crew", password, content: secret, date: date(13) });
    // Whoever is logged in finds it in every list and feed.
    await add("posts", { title: "For nobody", status: "private", content: unknown, date: date(14) });
    return {
      posts: posts.slice(-4), pages: [path(about), path(below)], hidden: path(hidden), id,
      picture: new URL(image.source_url).pathname,
    };
  }, { picture, password: PASSWORD, secret: SECRET, unknown: PRIVATE });
}

// Who has written a comment is known by a cookie.
async function comment(reader, path, text) {
  await reader.open(path);
  await reader.page.fill("#comment", text);
  const name = reader.page.locator("#author");
  if (await name.inputValue() === "") {
    await name.fill(COMMENTER.author);
    await reader.page.fill("#email", COMMENTER.email);
    await reader.page.check("#wp-comment-cookies-consent");
  }
  reader.becomes("known");
  await reader.leave(() => reader.page.click("#submit"));
}

// Writes and publishes a post as a person does. Answers its path.
async function publish(keeper, title) {
  await keeper.open("/wp-admin/post-new.php");
  const { page } = keeper;
  const guide = page.locator(".components-guide button[aria-label='Close dialog']");
  if (await guide.count() > 0) await guide.click();
  await page.click(".editor-post-title__input");
  await page.keyboard.type(title);
  await page.keyboard.press("Enter");
  await page.keyboard.type("Nothing is to be seen of the pier.");
  await page.click(".editor-post-publish-panel__toggle");
  await page.click(".editor-post-publish-button");
  const link = await page.locator(".post-publish-panel__postpublish-header a").getAttribute("href");
  await keeper.settled();
  return new URL(link).pathname;
}
