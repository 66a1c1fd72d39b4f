// The curve of an ablation: how far the answer is from the intact one as more and more goes.

import { attribute, h, say, svg } from "./dom.js";
import { DRAWS } from "./session.js";
import { units } from "./state.js";
import { KINDS, count, nats } from "./words.js";

const [WIDTH, HEIGHT] = [360, 220];
const EDGE = { left: 40, right: 16, top: 14, bottom: 36 };
const NAMES = { top: "strongest first", random: "random", bottom: "weakest first" };

export class Curve {
  constructor(session) {
    this.start = h(
      "button",
      { type: "button", on: { click: () => session.drawCurve() } },
      "Draw the curve",
    );
    this.stop = h("button", { type: "button", on: { click: () => session.endCurve() } }, "Stop");
    this.progress = h("progress", { max: 1, "aria-label": "How much of the curve is drawn" });
    this.chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "" });
    this.legend = h(
      "p",
      { class: "lab-row lab-note", "aria-hidden": "true" },
      ...Object.entries(NAMES).map(key),
    );
    this.table = h("tbody", {});
    const heads = ["taken", ...Object.values(NAMES)].map((name) => h("th", { scope: "col" }, name));
    this.numbers = h(
      "details",
      {},
      h("summary", {}, "The numbers"),
      h(
        "table",
        { class: "lab-points" },
        h("caption", { class: "lab-hidden" }, "KL in nats, by the number of units taken"),
        h("thead", {}, h("tr", {}, ...heads)),
        this.table,
      ),
    );
    this.text = h("p", { class: "lab-note" });
    this.element = h(
      "div",
      { class: "lab-curve" },
      h("p", { class: "lab-row" }, this.start, this.stop, this.progress),
      this.text,
      this.legend,
      this.chart,
      this.numbers,
    );
  }

  update({ curve, state, about }) {
    const running = Boolean(curve?.running);
    const { noun, n } = units(state, about);
    attribute(this.start, "hidden", running);
    attribute(this.stop, "hidden", !running);
    attribute(this.progress, "hidden", !running);
    attribute(this.chart, "hidden", !curve);
    attribute(this.legend, "hidden", !curve);
    attribute(this.numbers, "hidden", !curve || running);
    this.progress.value = curve ? curve.done / curve.total : 0;
    say(
      this.text,
      `From 0 to all ${count(n)} ${noun} of the ${KINDS[state.net]} in the layers chosen above: how ` +
        `far its answer moves from the intact one; in random order, the mean of ${DRAWS} draws.`,
    );
    if (!curve || curve.drawn === curve.points.length) return;
    curve.drawn = curve.points.length;
    this.draw(curve, state.net, noun);
  }

  draw({ points, n }, role, noun) {
    const lines = Object.keys(NAMES).map((order) => [order, means(points, order)]);
    const most = Math.max(0.1, ...points.map(({ kl }) => kl)) * 1.05;
    const x = (k) => EDGE.left + (k / n) * (WIDTH - EDGE.left - EDGE.right);
    const y = (kl) => HEIGHT - EDGE.bottom - (kl / most) * (HEIGHT - EDGE.top - EDGE.bottom);
    const text = (at, words, more = {}) => svg("text", { ...at, ...more }, words);
    const middle = { "text-anchor": "middle" };
    const end = { "text-anchor": "end" };
    const marks = [
      svg("path", { class: "lab-axes", d: `M${EDGE.left} ${EDGE.top}V${y(0)}H${x(n)}` }),
      ...[0, n / 2, n].map((k) => text({ x: x(k), y: y(0) + 16 }, count(k), middle)),
      ...[0, most / 1.05].map((kl) => text({ x: EDGE.left - 5, y: y(kl) + 4 }, kl.toFixed(1), end)),
      text({ x: x(n / 2), y: HEIGHT - 4 }, `${noun} taken`, middle),
      text({ x: 4, y: EDGE.top - 3 }, "KL, nats"),
    ];
    const drawn = lines.filter(([, line]) => line.length);
    const paths = drawn.map(([order, line]) => {
      const d = line.map(([k, kl], i) => `${i ? "L" : "M"}${x(k).toFixed(1)} ${y(kl).toFixed(1)}`);
      return svg("path", {
        class: "lab-line",
        "data-order": order,
        d: d.join(""),
      });
    });
    this.chart.replaceChildren(...marks, ...paths);
    this.element.dataset.role = role;
    const worst = drawn.map(
      ([order, line]) => `${NAMES[order]} ${nats(Math.max(...line.map(([, kl]) => kl)))}`,
    );
    attribute(this.chart, "aria-label", `KL against ${noun} taken; at most ${worst.join(", ")}`);
    this.table.replaceChildren(...rows(lines));
  }
}

/** What a line stands for. */
function key([order, name]) {
  const line = svg("path", { class: "lab-line", "data-order": order, d: "M2 8H34" });
  return h("span", { class: "lab-key" }, svg("svg", { viewBox: "0 0 36 16" }, line), name);
}

/** [k, mean KL over draws] of an order. */
function means(points, order) {
  const byK = new Map();
  for (const { order: own, k, kl } of points)
    if (own === order) byK.set(k, [...(byK.get(k) ?? []), kl]);
  return [...byK].map(([k, list]) => [k, list.reduce((sum, kl) => sum + kl, 0) / list.length]);
}

function rows(lines) {
  const ranks = lines[0][1].map(([k]) => k);
  const value = (line, k) => line.find(([own]) => own === k)?.[1];
  return ranks.map((k) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, count(k)),
      ...lines.map(([, line]) => h("td", {}, value(line, k)?.toFixed(3) ?? "–")),
    ),
  );
}
