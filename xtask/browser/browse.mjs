// Opens pages through edges in headless Chromium and judges every answer. Settings come as JSON in BROWSE:
// {chromium, playwright, edges: [url], pages: [path], shot: {url, file} | null}; the result goes to standard output as JSON.
import { createRequire } from "node:module";

const { chromium, playwright, edges, pages, shot } = JSON.parse(process.env.BROWSE);
const require = createRequire(playwright);
const browser = await require("playwright-core").chromium.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

const result = { pages: 0, answers: 0, hits: 0, wrong: [] };

async function round(edge, allHits) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.on("response", (answer) => {
    const url = answer.url();
    if (!url.startsWith(edge) || url.endsWith("/favicon.ico")) return;
    const cache = answer.headers()["x-cache"] ?? "none";
    result.answers += 1;
    if (cache === "HIT") result.hits += 1;
    const good = [200, 304].includes(answer.status()) && (cache === "HIT" || (!allHits && cache !== "none"));
    if (!good) result.wrong.push(`${url}: ${answer.status()} ${cache}`);
  });
  page.on("requestfailed", (request) => {
    // A page that is left while an image is still on its way cancels it: no answer of ours was wrong.
    if (request.failure()?.errorText === "net::ERR_ABORTED") return;
    if (request.url().startsWith(edge)) result.wrong.push(`${request.url()}: ${request.failure()?.errorText}`);
  });
  for (const path of pages) {
    await page.goto(`${edge}/${path}`, { waitUntil: "load" });
    result.pages += 1;
  }
  await context.close();
}

for (const edge of edges) {
  await round(edge, false);
  await round(edge, true);
}
if (shot) {
  const page = await browser.newPage({ viewport: { width: 1100, height: 1000 } });
  await page.goto(shot.url, { waitUntil: "networkidle" });
  await page.reload({ waitUntil: "networkidle" });
  await page.screenshot({ path: shot.file });
}
await browser.close();
console.log(JSON.stringify(result));
