// Two sets of probabilities, class by class, as bars to the left and to the right of the names.

import { attribute, h, say } from "./dom.js";
import { percent } from "./words.js";

export class Answers {
  /** `sides` are two { name, role }; `role` gives the colour. */
  constructor(about, caption, sides) {
    this.count = about.shapes.length;
    this.heads = sides.map(({ name }) => h("th", { scope: "col" }, name));
    this.bars = sides.map(() => Array.from({ length: this.count }, () => h("td", {})));
    const names = about.shapes.map((shape, i) =>
      h("th", { scope: "row" }, shape, h("small", {}, about.textures[i])),
    );
    const rows = names.map((name, i) => h("tr", {}, this.bars[0][i], name, this.bars[1][i]));
    const middle = h("th", { scope: "col" }, "class");
    this.caption = h("caption", { class: "lab-hidden" }, caption);
    this.element = h(
      "table",
      { class: "lab-answers" },
      this.caption,
      h("thead", {}, h("tr", {}, this.heads[0], middle, this.heads[1])),
      h("tbody", {}, ...rows),
    );
    this.name(sides);
  }

  name(sides) {
    sides.forEach(({ name, role }, side) => {
      say(this.heads[side], name);
      this.heads[side].dataset.role = role;
      for (const bar of this.bars[side]) bar.dataset.role = role;
    });
  }

  /** Probabilities of both sides, null where there are none. */
  fill(left, right) {
    [left, right].forEach((probabilities, side) => {
      const most = probabilities && Math.max(...probabilities);
      this.bars[side].forEach((bar, i) => {
        const share = probabilities?.[i] ?? null;
        attribute(bar, "data-best", share !== null && share === most);
        bar.style.setProperty("--share", share ?? 0);
        const text = share === null ? "–" : percent(share);
        const value = share === null ? "" : share.toFixed(6);
        if (bar.firstChild?.value === value && bar.textContent === text) return;
        bar.replaceChildren(h("data", { value }, text));
      });
    });
  }
}
