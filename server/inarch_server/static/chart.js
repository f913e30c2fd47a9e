// Two lines over the last minutes, as SVG: tokens written and read per second.

import {make} from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const SPAN_S = 180, LEFT = 44, BOTTOM = 20, TOP = 8;

export function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

// A round number at or above `value`, so that the scale does not twitch with every point.
export function ceiling(value) {
  if (value <= 10) return 10;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map(step => step * power).find(step => step >= value);
}

export function short(value) {
  if (value >= 1e6) return `${+(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${+(value / 1e3).toFixed(value >= 1e5 ? 0 : 1)}k`;
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

export class Chart {
  constructor(parent) {
    this.parent = parent;
    this.points = []; // {at, written, read}, at in seconds
    this.empty = make("p", "note", "Numbers appear as time goes by.");
    parent.append(this.empty);
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  add(point) {
    this.points.push(point);
    while (this.points.length && this.points[0].at < point.at - SPAN_S) this.points.shift();
    this.draw();
  }

  draw() {
    const width = this.parent.clientWidth, height = this.parent.clientHeight;
    if (this.points.length < 2 || width < 80) return;
    const now = this.points.at(-1).at;
    const most = ceiling(Math.max(...this.points.flatMap(point => [point.written, point.read])));
    const x = at => LEFT + (width - LEFT - 1) * (1 - (now - at) / SPAN_S);
    const y = value => TOP + (height - TOP - BOTTOM) * (1 - value / most);
    const last = this.points.at(-1);
    const picture = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `Tokens per second over three minutes; now ${short(last.written)} written, ${short(last.read)} read`,
    });
    for (const share of [0, 0.5, 1]) {
      const at = y(most * share);
      picture.append(svg("line", {class: "grid", x1: LEFT, x2: width, y1: at, y2: at}),
        svg("text", {class: "tick", x: LEFT - 8, y: at + 4, "text-anchor": "end"}, short(most * share)));
    }
    for (const [ago, text] of [[180, "3 min ago"], [120, "2"], [60, "1"], [0, "now"]]) {
      const anchor = ago === 0 ? "end" : ago === 180 ? "start" : "middle";
      picture.append(svg("text", {class: "tick", x: x(now - ago), y: height - 4, "text-anchor": anchor}, text));
    }
    picture.append(this.line("read", x, y), this.area(x, y), this.line("written", x, y));
    this.parent.replaceChildren(picture);
  }

  path(name, x, y) {
    return this.points.map((point, i) => `${i ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point[name]).toFixed(1)}`).join("");
  }

  line(name, x, y) {
    return svg("path", {class: `line ${name}`, d: this.path(name, x, y)});
  }

  area(x, y) {
    const first = x(this.points[0].at).toFixed(1), last = x(this.points.at(-1).at).toFixed(1);
    return svg("path", {class: "area", d: `${this.path("written", x, y)}L${last} ${y(0)}L${first} ${y(0)}Z`});
  }
}
