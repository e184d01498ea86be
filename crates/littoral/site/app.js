// Asks this site's own edge for each part of the page and shows the headers of the answers as they came.
"use strict";

const FILES = ["index.html", "style.css", "app.js", "coast.svg", "mark.svg", "about/index.html"];
const SHOWN = ["X-Cache", "Age", "Cache-Status", "Via"];

async function ask(file) {
  const begun = performance.now();
  try {
    const response = await fetch(file, {
      // Past the browser's own cache. "no-store" alone would make the browser send "no-cache", which asks a cache not
      // to answer by itself; these two say that any age will do, so that the edge answers as it would to anybody.
      cache: "no-store",
      headers: { "Cache-Control": "max-age=31536000", Pragma: "none" },
    });
    await response.arrayBuffer();
    const ms = performance.now() - begun;
    const headers = Object.fromEntries(SHOWN.map((name) => [name, response.headers.get(name) ?? "–"]));
    return { file, ms, headers, failure: response.ok ? null : `${response.status} ${response.statusText}` };
  } catch (error) {
    return { file, ms: performance.now() - begun, headers: {}, failure: String(error) };
  }
}

function row({ file, ms, headers, failure }) {
  const line = document.createElement("tr");
  const cell = (text, kind) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (kind) td.className = kind;
    line.append(td);
  };
  cell(file);
  if (failure) {
    cell(failure, "other");
    line.lastChild.colSpan = 5;
    return line;
  }
  cell(headers["X-Cache"], headers["X-Cache"] === "HIT" ? "HIT" : "other");
  cell(headers.Age === "–" ? "–" : `${headers.Age} s`);
  cell(`${ms.toFixed(1)} ms`);
  cell(headers["Cache-Status"]);
  cell(headers.Via);
  return line;
}

const button = document.getElementById("again");

async function show() {
  button.disabled = true;
  const answers = [];
  for (const file of FILES) answers.push(await ask(file));
  document.getElementById("answers").replaceChildren(...answers.map(row));
  button.disabled = false;
}

document.getElementById("host").textContent = location.host;
button.addEventListener("click", show);
show();
