// The live view: asks the server every second, and only while somebody looks.

import {get} from "./api.js";
import {Chart, short} from "./chart.js";
import {make} from "./text.js";
import {Tree} from "./tree.js";

const EVERY_MS = 1000, MOST_NODES = 120;
const el = id => document.getElementById(id);

let chart, tree, timer = 0, isShown = false, hasOps = false;

function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

function gauge(name, share, text) {
  el(name).firstChild.style.width = `${100 * share}%`;
  el(name).setAttribute("aria-valuenow", Math.round(100 * share));
  el(`${name}-value`).textContent = text;
}

function show(now) {
  const trouble = !now.alive ? "The engine does not answer." : now.engine.paused ? "The engine is paused." : "";
  el("trouble").hidden = !trouble;
  el("trouble").textContent = trouble;
  chart.add({at: performance.now() / 1000, written: now.generated_per_s, read: now.prompt_per_s});
  el("speed").textContent = short(now.generated_per_s);
  el("reading").textContent = short(now.prompt_per_s);
  showRequests(now.requests);
  showErrors(now.errors);
  gauge("hit", now.cache_hit_rate, percent(now.cache_hit_rate));
  const engine = now.engine;
  if (!engine) return;
  el("running").textContent = short(engine.running);
  el("queued").textContent = short(engine.waiting);
  const total = Math.max(engine.kv_pages_total, 1);
  gauge("kv", engine.kv_pages_used / total, percent(engine.kv_pages_used / total));
  gauge("cached", engine.kv_pages_cached / total, percent(engine.kv_pages_cached / total));
  const tokens = engine.kv_pages_total * engine.page_tokens;
  const hits = engine.prompt_tokens ? percent(engine.cached_tokens / engine.prompt_tokens) : "none";
  el("memory-note").textContent = `Room for ${tokens.toLocaleString("en")} tokens in pages of ${engine.page_tokens}. `
    + `Since the start ${short(engine.prompt_tokens)} tokens read, ${hits} of them from the cache; `
    + `${short(engine.generated_tokens)} written.`
    + (engine.state_slots_total ? ` Recurrent states: ${engine.state_slots_used} of ${engine.state_slots_total} slots in use, `
      + `${engine.state_checkpoints} kept for prompts that begin alike.` : "");
}

function table(head, rows, none) {
  if (!rows.length) return make("p", "note", none);
  const scroll = make("div", "scroll"), whole = make("table"), body = make("tbody"), top = make("tr");
  scroll.tabIndex = 0;
  for (const title of head) {
    const cell = make("th", typeof rows[0][head.indexOf(title)] === "number" ? "number" : "", title);
    cell.scope = "col";
    top.append(cell);
  }
  for (const row of rows) {
    const line = make("tr");
    for (const value of row) {
      if (typeof value === "number") line.append(make("td", "number", value.toLocaleString("en")));
      else line.append(make("td", value?.className ?? "", value?.text ?? value));
    }
    body.append(line);
  }
  const heading = make("thead");
  heading.append(top);
  whole.append(heading, body);
  scroll.append(whole);
  return scroll;
}

function showRequests(requests) {
  const rows = requests.map(request => [
    {text: request.id, className: "code"}, {text: request.route, className: "code"},
    request.waiting ? "waits" : "writes", request.prompt_tokens, request.completion_tokens,
    {text: `${request.seconds.toFixed(1)} s`, className: "number"},
  ]);
  update("requests", table(["Id", "Route", "State", "Prompt", "Written", "Since"], rows, "None at the moment."));
}

function showErrors(errors) {
  const rows = errors.map(error => [
    new Date(error.time * 1000).toLocaleTimeString(), {text: error.route, className: "code"},
    error.status === 200 ? "broke off" : String(error.status),
    error.message + (error.times > 1 ? ` (${error.times} times)` : ""),
  ]);
  update("errors", table(["Time", "Route", "Status", "What happened"], rows, "None."));
}

// Replace only what has changed: a selection or a scroll position in a table stays.
function update(id, node) {
  const place = el(id);
  if (place.firstChild?.isEqualNode(node)) return;
  const left = place.firstChild?.scrollLeft ?? 0;
  place.replaceChildren(node);
  node.scrollLeft = left;
}

async function showOps() {
  const found = await get("/kernels");
  const rows = found.ops.map(row => [
    {text: row.op, className: "code"}, {text: row.kernel, className: "code"}, row.bindings, row.why,
  ]);
  el("ops-note").textContent = `${found.backend} on ${found.device}, ${found.dtype}, KV in ${found.kv_dtype}.`;
  update("ops", table(["Op", "Kernel", "Places", "Why"], rows, "The engine did not say."));
  hasOps = true;
}

async function look() {
  clearTimeout(timer);
  if (!isShown || document.hidden) return;
  try {
    if (!hasOps) await showOps();
    const now = await get("/live");
    show(now);
    if (now.alive) tree.show(await get(`/cache_tree?nodes=${MOST_NODES}`));
  } catch (error) {
    el("trouble").hidden = false;
    el("trouble").textContent = `The server does not answer: ${error.message}`;
    if (error.status === 401) return; // until somebody comes back with a key
  }
  timer = setTimeout(look, EVERY_MS);
}

export function startLive() {
  chart = new Chart(el("chart"));
  tree = new Tree(el("tree"), el("tree-note"), el("tree-text"));
  document.addEventListener("visibilitychange", look);
}

export function watch(shown) {
  isShown = shown;
  look();
}
