// The prefix tree as it grows: the root at the left, a branch for every run of tokens.

import {make} from "./text.js";
import {short, svg} from "./chart.js";

const ROW = 26, COLUMN = 236, LEFT = 30, TOP = 16, LETTERS = 22;

// Where each node goes: a row for every leaf, parents in the middle of their children.
export function layout(nodes) {
  const children = new Map([[0, []]]);
  for (const node of nodes) children.set(node.id, []);
  for (const node of nodes) (children.get(node.parent) ?? children.get(0)).push(node);
  const placed = [];
  let row = 0, deepest = 0;
  const place = (node, depth) => {
    deepest = Math.max(deepest, depth);
    const below = children.get(node.id).toSorted((a, b) => a.id - b.id).map(child => place(child, depth + 1));
    const spot = {node, depth, below, row: below.length ? (below[0].row + below.at(-1).row) / 2 : row++};
    placed.push(spot);
    return spot;
  };
  const root = place({id: 0}, 0);
  return {root, placed, rows: Math.max(row, 1), deepest};
}

const x = spot => LEFT + spot.depth * COLUMN;
const y = spot => TOP + (spot.row + 0.5) * ROW;

function label(node) {
  if (node.text === null) return "private";
  const text = node.text.replace(/<\|[^|>]*\|>/g, "·").replace(/\s+/g, " ").trim();
  return text.length > LETTERS ? `${text.slice(0, LETTERS - 1)}…` : text; // special tokens are dots
}

function describe(node) {
  const state = node.running ? `used by ${node.running} running` : "kept";
  const more = node.hidden ? `, ${node.hidden} more below` : "";
  const text = node.text === null ? "not shown" : `“${node.text}${node.tokens > 32 ? "…" : ""}”`;
  return `${node.tokens.toLocaleString("en")} tokens, ${state}${more}: ${text}`;
}

export class Tree {
  constructor(parent, note, text) {
    this.parent = parent;
    this.note = note;
    this.text = text;
    this.known = null; // ids of the last drawing, to let what is new grow
    this.chosen = null;
    parent.onpointerover = event => this.choose(event.target.closest("[data-id]")?.dataset.id);
    parent.onclick = parent.onpointerover;
    parent.onkeydown = event => this.step(event);
  }

  show({nodes, tokens}) {
    this.nodes = nodes;
    if (!nodes.length) {
      this.parent.replaceChildren(make("p", "note", "Nothing is kept yet. Ask something, and watch it grow."));
      this.note.textContent = "Prompts that begin alike share their beginning.";
      this.known = new Set();
      return;
    }
    const hidden = nodes.reduce((sum, node) => sum + node.hidden, 0);
    this.note.textContent = `${tokens.toLocaleString("en")} tokens in the tree. ${nodes.length} runs shown`
      + (hidden ? `, ${hidden} or more left out.` : ".");
    const {root, placed, rows, deepest} = layout(nodes);
    const width = LEFT + deepest * COLUMN + 48, height = TOP * 2 + rows * ROW;
    const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `${nodes.length} runs of tokens in ${rows} branches; use the arrow keys to read them`});
    for (const spot of placed) for (const child of spot.below) picture.append(this.branch(spot, child));
    picture.append(svg("circle", {class: "root", cx: x(root), cy: y(root), r: 6}));
    const {scrollLeft, scrollTop} = this.parent;
    this.parent.replaceChildren(picture);
    this.parent.scrollTo(scrollLeft, scrollTop);
    this.known = new Set(nodes.map(node => node.id));
    this.choose(this.chosen);
  }

  branch(from, to) {
    const {node} = to, middle = (x(from) + 56);
    const isNew = this.known && !this.known.has(node.id);
    const group = svg("g", {class: `branch${node.running ? " busy" : ""}${isNew ? " new" : ""}`, "data-id": node.id});
    const thick = 1 + Math.min(Math.log2(1 + node.tokens / 16), 6);
    const start = from.node.id ? x(from) : x(from) + 4;
    group.append(
      svg("path", {d: `M${start} ${y(from)}C${middle} ${y(from)} ${middle - 24} ${y(to)} ${middle + 16} ${y(to)}H${x(to)}`,
        "stroke-width": thick.toFixed(1), pathLength: 1}),
      svg("circle", {cx: x(to), cy: y(to), r: node.running ? 4.5 : 3.5}),
      svg("text", {x: middle + 14, y: y(to) - 6}, label(node)),
      svg("rect", {x: middle - 20, y: y(to) - ROW / 2 - 4, width: COLUMN - 30, height: ROW, class: "reach"}),
    );
    if (node.hidden) group.append(svg("text", {class: "more", x: x(to) + 8, y: y(to) + 4}, `+${short(node.hidden)}`));
    return group;
  }

  choose(id) {
    if (id === undefined || id === null) return;
    const node = this.nodes.find(each => String(each.id) === String(id));
    if (!node) return;
    this.chosen = node.id;
    for (const each of this.parent.querySelectorAll(".branch")) each.classList.toggle("chosen", each.dataset.id === String(id));
    const text = describe(node);
    if (this.text.textContent !== text) this.text.textContent = text;
  }

  // Arrow keys walk the tree: left to the parent, right to a child, up and down among siblings.
  step(event) {
    const {key} = event;
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(key) || !this.nodes?.length) return;
    event.preventDefault();
    const order = (a, b) => a.id - b.id;
    const now = this.nodes.find(node => node.id === this.chosen);
    const siblings = this.nodes.filter(node => node.parent === (now?.parent ?? 0)).sort(order);
    const at = siblings.indexOf(now), last = siblings.length - 1;
    const next = {
      ArrowLeft: () => this.nodes.find(node => node.id === now?.parent),
      ArrowRight: () => now ? this.nodes.filter(node => node.parent === now.id).sort(order)[0] : siblings[0],
      ArrowUp: () => siblings[Math.max(at - 1, 0)],
      ArrowDown: () => siblings[Math.min(at + 1, last)],
    }[key]();
    if (!next) return;
    this.choose(next.id);
    this.parent.querySelector(".chosen")?.scrollIntoView({block: "nearest", inline: "nearest"});
  }
}
