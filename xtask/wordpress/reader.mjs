// Somebody who reads a site through an edge in a browser of their own; every answer is judged.
import { ask } from "./origin.mjs";

// How long the requests that a page's scripts make may take after its load event, in milliseconds.
const QUIET_MS = 20_000;
// What only a page for somebody who is logged in has.
const INSIDE = ['id="wpadminbar"', "Howdy, ", "wp-login.php?action=logout", "/wp-admin/post.php?post="];
const NONCE = /nonce[^\n]{1,24}?\b([0-9a-f]{10})\b/gi;
// What is the same for everybody: files, and the scripts and styles of wp-admin that the origin marks as public.
const FOR_EVERYBODY = /\.(css|js|png|jpg|gif|svg|woff2?|ico)(\?|$)|^\/wp-admin\/load-(scripts|styles)\.php\?/;

export class Reader {
  #open = new Set();
  #judging = new Set();
  #want = {};
  #document = null;
  #leaving = false;

  // `kind`: anonymous; known (has cookies, but is not logged in); keeper (is logged in).
  static async open(shared, name, kind) {
    const reader = new Reader();
    Object.assign(reader, shared, { name, kind });
    reader.counts(name);
    reader.context = await shared.browser.newContext({ viewport: { width: 1100, height: 1000 } });
    reader.page = await reader.context.newPage();
    reader.chromium = await reader.context.newCDPSession(reader.page);
    await reader.chromium.send("Network.setCacheDisabled", { cacheDisabled: true });
    reader.#listen();
    return reader;
  }

  #listen() {
    const { page } = this;
    // Pictures of people come from elsewhere; the browser fetches a page's icon for itself, and nobody hears of the answer to
    // what a page sends when it is left.
    const ours = (request) => request.url().startsWith(`${this.edge}/`) && !["other", "ping"].includes(request.resourceType());
    page.on("request", (request) => { if (ours(request)) this.#open.add(request); });
    page.on("requestfinished", (request) => this.#open.delete(request));
    page.on("requestfailed", (request) => {
      const known = this.#open.delete(request);
      if (known && !this.#leaving) this.wrong(`${this.name}: ${request.url()}: ${request.failure()?.errorText}`);
    });
    page.on("pageerror", (error) => this.wrong(`${this.name}: a script of ${page.url()}: ${error.message}`));
    page.on("dialog", (dialog) => dialog.accept());
    page.on("response", (answer) => {
      if (!ours(answer.request())) return;
      const judged = this.#judge(answer).catch((error) => this.wrong(`${this.name}: ${answer.url()}: ${error.message}`));
      this.#judging.add(judged);
      judged.then(() => this.#judging.delete(judged));
    });
  }

  // Opens a page and waits until all that belongs to it is there. Answers what is known of its document: {url, cache, text}.
  // `hits`: everything comes out of the cache; `outdated`: the origin has something newer by now.
  async open(path, want = {}) {
    this.#want = want;
    this.#document = null;
    // The browser's own cache would answer in the edge's place; a disabled one still remembers what has moved for ever.
    await this.chromium.send("Network.clearBrowserCache");
    // What the last page asks for regularly may be under way again, and ends here.
    this.#open.clear();
    await this.page.goto(this.edge + path, { waitUntil: "load" });
    await this.settled();
    this.count.pages += 1;
    if (want.shot) await this.page.screenshot({ path: want.shot });
    return { url: this.page.url(), ...this.#document };
  }

  // The same for a page that something on this one leads to.
  async leave(act) {
    this.#want = {};
    this.#leaving = true;
    await Promise.all([this.page.waitForNavigation({ waitUntil: "load" }), act()]);
    this.#leaving = false;
    await this.settled();
    this.count.pages += 1;
  }

  async text(path) {
    return (await this.open(path)).text;
  }

  // Waits until every request of the page has been answered and judged. The next page would abort them.
  async settled() {
    const until = Date.now() + QUIET_MS;
    while (this.#open.size > 0 && Date.now() < until) await new Promise((done) => setTimeout(done, 5));
    for (const request of this.#open) this.wrong(`${this.name}: ${request.url()}: not finished after ${QUIET_MS} ms`);
    this.#open.clear();
    while (this.#judging.size > 0) await Promise.all(this.#judging);
  }

  becomes(kind) {
    this.kind = kind;
  }

  // From here on, answers are counted by themselves.
  counts(name) {
    this.name = name;
    this.count = { name, pages: 0, answers: 0, hits: 0, compared: 0 };
  }

  async cookies() {
    const cookies = await this.context.cookies(`${this.edge}/`);
    return cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
  }

  // One request without the browser.
  async raw(path, headers = {}, want = {}) {
    const { port, host } = new URL(this.edge);
    const answer = await ask({ port, path, host, headers });
    const type = answer.headers["content-type"] ?? "";
    const set = answer.headers["set-cookie"] !== undefined;
    const judged = { path, method: "GET", status: answer.status, cache: answer.headers["x-cache"], why: answer.headers["cache-status"], set, type, document: true };
    await this.#verdict(judged, answer.status < 300 ? answer.body : null, want);
    return answer;
  }

  async #judge(answer) {
    const want = this.#want;
    const request = answer.request();
    const { pathname, search } = new URL(answer.url());
    const fields = await answer.headersArray();
    const field = (name) => fields.find((one) => one.name.toLowerCase() === name)?.value;
    const document = request.isNavigationRequest() && request.frame() === this.page.mainFrame();
    const judged = {
      path: pathname + search, method: request.method(), status: answer.status(), cache: field("x-cache"), why: field("cache-status"),
      set: field("set-cookie") !== undefined, type: field("content-type") ?? "", document,
    };
    const redirect = judged.status >= 300 && judged.status < 400;
    // What a script has asked for is gone with its page.
    const body = redirect ? null : await answer.body().catch((error) => (document || this.kind === "anonymous" ? Promise.reject(error) : null));
    if (document && !redirect) this.#document = { cache: judged.cache, text: body.toString("utf8") };
    await this.#verdict(judged, body, want);
  }

  // What must hold of every answer.
  async #verdict({ path, method, status, cache, why: status_field, set, type, document }, body, want) {
    const wrong = (why) => this.wrong(`${this.name}: ${method} ${path}: ${status} ${status_field}: ${why}`);
    const hit = cache === "HIT";
    this.count.answers += 1;
    if (hit) this.count.hits += 1;
    if (!["HIT", "MISS", "BYPASS", "EXPIRED", "REVALIDATED"].includes(cache)) wrong("neither a hit nor a miss");
    if (hit && set) wrong("a hit sets a cookie");
    if (status >= 400 && !(document && status === want.status)) wrong("an error");
    if (want.hits && method === "GET" && !hit) wrong("no hit");
    if (this.kind !== "anonymous" && hit && !FOR_EVERYBODY.test(path)) wrong("a hit for somebody who has cookies");
    if (body === null) return;
    const text = /html|json|xml|javascript/.test(type) ? body.toString("utf8") : "";
    if (this.kind === "keeper") {
      if (FOR_EVERYBODY.test(path) || path.startsWith("/wp-login.php")) return;
      for (const [, nonce] of text.matchAll(NONCE)) this.secrets.add(nonce);
      if (document && /html/.test(type) && !text.includes(INSIDE[0])) wrong("no admin bar");
      return;
    }
    for (const mark of INSIDE) if (text.includes(mark)) wrong(`has ${mark}`);
    for (const secret of this.secrets) if (text.includes(secret)) wrong(`has ${secret}, which only the administrator knows`);
    if (this.kind !== "anonymous" || method !== "GET" || want.outdated) return;
    const straight = await this.origin.get(path);
    this.count.compared += 1;
    if (status !== straight.status) wrong(`the origin says ${straight.status}`);
    else if (!body.equals(straight.body)) wrong(`differs from the origin's: ${difference(body, straight.body)}`);
  }
}

// Where two bodies part.
function difference(one, other) {
  let at = 0;
  while (at < one.length && one[at] === other[at]) at += 1;
  const around = (body) => JSON.stringify(body.subarray(Math.max(0, at - 40), at + 60).toString("utf8"));
  return `at byte ${at}: ${around(one)}, not ${around(other)}`;
}
