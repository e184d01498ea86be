// Opens pages through edges in headless Chromium and judges every answer. Settings come as JSON in BROWSE:
// {chromium, playwright, edges: [{url, https_url}], pages: [path], shot: {url, file} | null}; the result goes to standard output as
// JSON. Plain HTTP has to be HTTP/1.1, and TLS (whose authority only this machine knows) HTTP/2, as the DevTools protocol
// tells it.
import { createRequire } from "node:module";

const { chromium, playwright, edges, pages, shot } = JSON.parse(process.env.BROWSE);
const require = createRequire(playwright);
const browser = await require("playwright-core").chromium.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

// How long the requests that a page's scripts make may take after its load event, in milliseconds.
const QUIET_MS = 10_000;

const result = { pages: 0, answers: 0, hits: 0, protocols: {}, wrong: [] };

async function round(edge, allHits, protocol) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  await devtools.send("Network.enable");
  // The browser's own cache would answer in the edge's place, with the headers of the first answer.
  await devtools.send("Network.setCacheDisabled", { cacheDisabled: true });
  devtools.on("Network.responseReceived", ({ response }) => {
    if (!response.url.startsWith("http")) return;
    result.protocols[response.protocol] = (result.protocols[response.protocol] ?? 0) + 1;
    const cache = Object.entries(response.headers).find(([name]) => name.toLowerCase() === "x-cache")?.[1];
    const good = response.protocol === protocol && [200, 304].includes(response.status) && cache !== undefined;
    if (!good) result.wrong.push(`${response.url}: ${response.protocol} ${response.status} ${cache}`);
  });
  const open = new Set();
  const ofNetwork = (url) => url.startsWith("http");
  // The browser fetches a page's icon for itself ("other"), and often drops that without a word.
  const ofPage = (request) => ofNetwork(request.url()) && request.resourceType() !== "other";
  page.on("request", (request) => {
    if (ofPage(request)) open.add(request);
  });
  page.on("requestfinished", (request) => open.delete(request));
  page.on("requestfailed", (request) => {
    open.delete(request);
    if (ofPage(request)) result.wrong.push(`${request.url()}: ${request.failure()?.errorText}`);
  });
  page.on("response", (answer) => {
    const url = answer.url();
    if (!ofNetwork(url)) return;
    const cache = answer.headers()["x-cache"] ?? "none";
    result.answers += 1;
    if (cache === "HIT") result.hits += 1;
    const good = [200, 304].includes(answer.status()) && (cache === "HIT" || (!allHits && cache !== "none"));
    if (!good || !url.startsWith(`${edge}/`)) result.wrong.push(`${url}: ${answer.status()} ${cache}`);
  });
  for (const path of pages) {
    await page.goto(`${edge}/${path}`, { waitUntil: "load" });
    result.pages += 1;
    // The next page would abort what is still under way.
    const until = Date.now() + QUIET_MS;
    while (open.size > 0 && Date.now() < until) await new Promise((done) => setTimeout(done, 5));
    for (const request of open) result.wrong.push(`${request.url()}: not finished after ${QUIET_MS} ms`);
    open.clear();
  }
  await context.close();
}

for (const edge of edges) {
  await round(edge.url, false, "http/1.1");
  await round(edge.url, true, "http/1.1");
  await round(edge.https_url, true, "h2");
}
if (shot) {
  const page = await browser.newPage({ viewport: { width: 1100, height: 1000 } });
  await page.goto(shot.url, { waitUntil: "networkidle" });
  await page.reload({ waitUntil: "networkidle" });
  await page.screenshot({ path: shot.file });
}
await browser.close();
console.log(JSON.stringify(result));
