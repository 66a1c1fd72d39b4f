// Drawing on the picture, with a pointer or the keyboard.

import { SIDE } from "../pictures.js";
import { INKS, SIZES, begin, extend, undo } from "./brush.js";
import { attribute, h, newId, radios } from "./dom.js";

export const HELP = newId(); // of what says how to draw

export class Easel {
  constructor(session, picture) {
    Object.assign(this, { session, picture, ink: 0, size: 1, x: SIDE / 2, y: SIDE / 2 });
    this.cursor = h("span", { class: "lab-cursor", hidden: true });
    this.board = picture.stage;
    this.board.append(this.cursor);
    const listen = (name, listener) =>
      this.board.addEventListener(name, (event) => this.isOpen && listener(event));
    listen("pointerdown", (event) => this.down(event));
    listen("pointermove", (event) => this.drawing && this.extend(event));
    listen("pointerup", () => (this.drawing = false));
    listen("pointercancel", () => (this.drawing = false));
    listen("keydown", (event) => this.key(event));
    const inks = INKS.map(([name, rgb], i) => [String(i), name, swatch(rgb)]);
    const sizes = SIZES.map((size, i) => [String(i), `${size} px`]);
    this.inks = radios("Colour", inks, (ink) => this.choose({ ink: Number(ink) }));
    this.inks.element.classList.add("lab-inks");
    this.sizes = radios("Size", sizes, (size) => this.choose({ size: Number(size) }));
    const button = (text, click) => h("button", { type: "button", on: { click } }, text);
    const change = (strokes) => session.set({ strokes });
    this.element = h(
      "div",
      {},
      h(
        "p",
        { class: "lab-note", id: HELP },
        "Draw on the picture above. With the keyboard: the arrow keys move the brush, the space bar " +
          "sets it down, Backspace takes back.",
      ),
      this.inks.element,
      this.sizes.element,
      h(
        "p",
        { class: "lab-row" },
        button("Take back", () => change(undo(session.state.strokes))),
        button("Clear", () => change("")),
        button("Empty sheet", () => session.set({ source: { kind: "blank" }, strokes: "" })),
      ),
    );
    this.choose({});
  }

  open(on) {
    this.isOpen = on;
    this.cursor.hidden = !on;
    attribute(this.board, "data-drawing", on);
    this.picture.draw(on);
  }

  choose(change) {
    Object.assign(this, change);
    this.inks.choose(String(this.ink));
    this.sizes.choose(String(this.size));
    this.place();
  }

  place() {
    const { style } = this.cursor;
    style.setProperty("--x", this.x);
    style.setProperty("--y", this.y);
    style.setProperty("--size", SIZES[this.size]);
  }

  at(event) {
    const box = this.board.getBoundingClientRect();
    const place = (offset, length) =>
      Math.min(Math.max(Math.floor((offset / length) * SIDE), 0), SIDE - 1);
    return [place(event.clientX - box.left, box.width), place(event.clientY - box.top, box.height)];
  }

  down(event) {
    this.drawing = true;
    this.board.setPointerCapture(event.pointerId);
    [this.x, this.y] = this.at(event);
    this.dab();
  }

  dab() {
    const { ink, size, x, y, session } = this;
    this.put(begin(session.state.strokes, ink, size, x, y));
  }

  put(strokes) {
    const { session } = this;
    if (strokes === session.state.strokes) session.say(FULL);
    else session.set({ strokes });
    this.place();
  }

  extend(event) {
    const [x, y] = this.at(event);
    if (x === this.x && y === this.y) return;
    Object.assign(this, { x, y });
    this.put(extend(this.session.state.strokes, x, y));
  }

  key(event) {
    const [dx, dy] = MOVES[event.key] ?? [0, 0];
    if (dx || dy) {
      const inside = (place) => Math.min(Math.max(place, 0), SIDE - 1);
      this.x = inside(this.x + dx);
      this.y = inside(this.y + dy);
      this.place();
    } else if (event.key === " ") this.dab();
    else if (event.key === "Backspace")
      this.session.set({ strokes: undo(this.session.state.strokes) });
    else return;
    event.preventDefault();
  }

  update() {}
}

const FULL = "A link can hold no more of a drawing: take something back to go on.";
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const swatch = (rgb) => h("i", { class: "lab-swatch", style: { "--ink": `rgb(${rgb})` } });
