// WordPress without the edge, to compare with; and PURGE, which only the edge understands.
import { request } from "node:http";

const STATIC = /\.(css|js|png|jpg|svg|woff2?|ico)(\?|$)/;

// One request; `port` is where it goes, whatever host it names. Answers {status, headers, body}.
export function ask({ port, path, host, method = "GET", headers = {} }) {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, method, headers: { Host: host, ...headers } }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(pieces) }));
    });
    asked.on("error", reject);
    asked.end();
  });
}

export class Origin {
  #files = new Map();

  constructor(edge, port) {
    this.host = new URL(edge).host;
    this.edge_port = Number(new URL(edge).port);
    this.port = port;
  }

  // What an anonymous reader gets without an edge. Files do not change in the lifetime of the site.
  async get(path) {
    const known = this.#files.get(path);
    if (known) return known;
    const answer = await ask({ port: this.port, path, host: this.host });
    if (STATIC.test(path)) this.#files.set(path, answer);
    return answer;
  }

  // `what`: url or host, as in Littoral-Purge.
  async purge(what, path = "/") {
    const headers = { "Littoral-Purge": what };
    const answer = await ask({ port: this.edge_port, path, host: this.host, method: "PURGE", headers });
    if (answer.status !== 200) throw new Error(`PURGE ${path}: ${answer.status} ${answer.body}`);
  }
}
