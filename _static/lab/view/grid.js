// A grid of buttons that is one stop for the Tab key; the arrow keys move inside it.

import { attribute, h } from "./dom.js";

const STEPS = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  Home: [0, -Infinity],
  End: [0, Infinity],
  PageUp: [-Infinity, 0],
  PageDown: [Infinity, 0],
};

/**
 * `cell(index)` gives what a button holds; `pick(index)` is called when one is clicked, `enter`
 * when one is pointed at or has the focus, `leave` when none is any more.
 */
export class Grid {
  constructor({ label, rows, columns, cell = () => [], pick, enter = null, leave = null }) {
    Object.assign(this, { rows, columns, pick, enter });
    this.cells = Array.from({ length: rows * columns }, (_, index) => this.button(index, cell));
    const lines = Array.from({ length: rows }, (_, row) =>
      h("div", { role: "row" }, ...this.cells.slice(row * columns, (row + 1) * columns)),
    );
    this.element = h(
      "div",
      { role: "grid", class: "lab-grid", "aria-label": label, style: { "--columns": columns } },
      ...lines,
    );
    this.element.addEventListener("keydown", (event) => this.key(event));
    if (leave) {
      this.element.addEventListener("pointerleave", leave);
      this.element.addEventListener("focusout", leave);
    }
    this.stop(0);
  }

  button(index, cell) {
    const on = { click: () => this.pick(index), focus: () => this.stop(index) };
    if (this.enter) {
      on.pointerenter = (event) => event.pointerType === "mouse" && this.enter(index);
      on.focus = (event) => {
        this.stop(index);
        if (event.target.matches(":focus-visible")) this.enter(index);
      };
    }
    return h("button", { type: "button", role: "gridcell", tabindex: -1, on }, ...cell(index));
  }

  /** The Tab key stops here. */
  stop(index) {
    if (this.at !== undefined) this.cells[this.at].tabIndex = -1;
    this.at = index;
    this.cells[index].tabIndex = 0;
  }

  key(event) {
    const step = STEPS[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const clamp = (place, count) => Math.min(Math.max(place, 0), count - 1);
    const row = clamp(Math.floor(this.at / this.columns) + step[0], this.rows);
    const column = clamp((this.at % this.columns) + step[1], this.columns);
    this.cells[row * this.columns + column].focus();
  }

  /** Mark cells as selected; the first of them is where the Tab key stops. */
  select(...indices) {
    this.cells.forEach((cell, index) => {
      attribute(cell, "aria-selected", indices.includes(index) ? "true" : "false");
    });
    const inside = this.element.contains(document.activeElement);
    if (indices.length && !inside) this.stop(indices[0]);
  }

  name(index, text) {
    const cell = this.cells[index];
    if (cell.ariaLabel !== text) cell.ariaLabel = cell.title = text;
  }
}
