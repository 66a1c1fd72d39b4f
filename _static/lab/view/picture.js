// The picture that the networks get, and the ways to it: choose, mix, draw, or bring one's own.

import { attribute, h, newId, say, select } from "./dom.js";
import { Easel, HELP } from "./easel.js";
import { openPicture } from "./file.js";
import { Grid } from "./grid.js";
import { largeSheet, paint, sheet } from "./paint.js";
import { spriteOf } from "./sprites.js";
import { KINDS, article, says, title } from "./words.js";

/** The picture, large, with its name and, on a phone, the answers; the easel draws on it. */
export class Picture {
  constructor() {
    this.canvas = largeSheet();
    this.stage = h("div", { class: "lab-picture" }, this.canvas);
    this.title = h("p", { class: "lab-title" });
    this.brief = Object.keys(KINDS).map((role) => h("p", { class: "lab-brief", "data-role": role }));
    this.element = h("div", { class: "lab-large" }, this.stage, this.title, ...this.brief);
    this.draw(false);
  }

  /** Whether the picture can be drawn upon. */
  draw(on) {
    attribute(this.stage, "role", on ? "application" : "img");
    attribute(this.stage, "tabindex", on ? 0 : null);
    attribute(this.stage, "aria-describedby", on ? HELP : null);
  }

  update(session) {
    if (session.bytes) paint(this.canvas, session.bytes);
    attribute(this.stage, "aria-label", title(session));
    say(this.title, title(session));
    for (const line of this.brief) {
      const { role } = line.dataset;
      const found = session.probabilities(role);
      say(line, `${KINDS[role]}: ${found ? says(found, session.about) : "–"}`);
    }
  }
}

/** A grid of small pictures, ten a row, painted when they are first seen. */
class Gallery {
  constructor(label, file, names, pick) {
    this.file = file;
    this.sheets = names.map(() => sheet());
    const rows = names.length / 10;
    const cell = (index) => [this.sheets[index]];
    this.grid = new Grid({ label, rows, columns: 10, cell, pick });
    names.forEach((name, index) => this.grid.name(index, name));
    this.element = this.grid.element;
    this.element.classList.add("lab-gallery");
  }

  async paint(session) {
    if (this.painted) return;
    this.painted = true;
    try {
      const sprite = await spriteOf(new URL(this.file, session.base));
      this.sheets.forEach((canvas, index) => paint(canvas, sprite(index)));
    } catch (error) {
      this.painted = false;
      session.say(error.message);
    }
  }
}

/** Where the picture is among the test pictures; −1 if it is none of them. */
const placeOf = ({ state, about }) =>
  about.pictures.findIndex(([number]) => number === state.source.number);

const choose = (session, place) =>
  session.set({
    source: { kind: "picture", number: session.about.pictures[place][0] },
    strokes: "",
  });

/** A button that leads to one test picture after the other, for where the others are far away. */
export function another(session) {
  const click = () => choose(session, (placeOf(session) + 1) % session.about.pictures.length);
  return h("button", { type: "button", on: { click } }, "Another picture");
}

/** The book's test pictures: a column a class. */
export class Choice {
  constructor(session) {
    const { pictures, shapes, textures } = session.about;
    const names = pictures.map(
      ([number, , shape, texture]) =>
        `Picture ${number}, ${article(shapes[shape])} of ${textures[texture]}`,
    );
    const go = (index) => choose(session, index);
    this.gallery = new Gallery(
      "Test pictures, a column for each class",
      "pictures.webp",
      names,
      go,
    );
    const step = (by) => () => go((placeOf(session) + by + pictures.length) % pictures.length);
    this.element = h(
      "div",
      {},
      this.gallery.element,
      h(
        "p",
        { class: "lab-row" },
        h("button", { type: "button", on: { click: step(-1) } }, "← Previous"),
        h("button", { type: "button", on: { click: step(1) } }, "Next →"),
      ),
    );
  }

  update(session) {
    this.gallery.paint(session);
    const place = placeOf(session);
    this.gallery.grid.select(...(place < 0 ? [] : [place]));
  }
}

/** Which shape and texture the picture has, by number; nothing of a reader's own. */
function cuesOf(session) {
  const { source } = session.state;
  if (source.kind === "mix") return source;
  const [, , shape, texture] = session.about.pictures[placeOf(session)] ?? [];
  return { shape, texture };
}

/** Shape of one class, texture of another. */
class Mixer {
  constructor(session) {
    const { shapes, textures } = session.about;
    const names = shapes.flatMap((shape) =>
      textures.map((texture) => `${article(shape)} of ${texture}`),
    );
    const go = (shape, texture) =>
      session.set({ source: { kind: "mix", shape, texture }, strokes: "" });
    const pick = (index) => go(Math.floor(index / 10), index % 10);
    this.gallery = new Gallery("Shapes in rows, textures in columns", "mixed.webp", names, pick);
    const options = (list) => list.map((name, i) => [i, name]);
    const chosen = () => [Number(this.shape.control.value), Number(this.texture.control.value)];
    this.shape = select("Shape of", options(shapes), () => go(...chosen()));
    this.texture = select("texture of", options(textures), () => go(...chosen()));
    const fields = h("div", { class: "lab-row" }, this.shape.element, this.texture.element);
    const note = "Both at once: a picture below, shapes in rows, textures in columns.";
    this.element = h("div", {}, fields, h("p", { class: "lab-note" }, note), this.gallery.element);
  }

  update(session) {
    if (!this.element.closest("[hidden]")) this.gallery.paint(session);
    const { shape, texture } = cuesOf(session);
    const isMix = session.state.source.kind === "mix";
    this.gallery.grid.select(...(isMix ? [10 * shape + texture] : []));
    if (shape === undefined) return;
    this.shape.control.value = shape;
    this.texture.control.value = texture;
  }
}

/** A picture of the reader's. */
class Own {
  constructor(session) {
    const id = newId();
    const take = async ([file]) => {
      if (!file) return;
      session.wake();
      try {
        session.own = await openPicture(file, session.engine);
        session.say("");
        session.set({ source: { kind: "own" }, strokes: "" });
      } catch (error) {
        session.say(error.message);
      }
    };
    const input = h("input", { type: "file", id, accept: "image/*" });
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = ""; // so that the same file can be chosen again
    });
    // Anywhere: a browser leaves the page for a picture that is dropped next to the place for it.
    for (const name of ["dragover", "dragleave", "drop"])
      document.addEventListener(name, (event) => {
        if (!event.dataTransfer.types.includes("Files")) return;
        event.preventDefault();
        attribute(this.target, "data-over", name === "dragover");
        if (name === "drop") take([...event.dataTransfer.files]);
      });
    this.target = h(
      "div",
      { class: "lab-drop" },
      h("label", { for: id }, "Drop a picture here, or choose one:"),
      input,
    );
    this.element = h(
      "div",
      {},
      this.target,
      h(
        "p",
        { class: "lab-note" },
        "It never leaves this page. Its middle is cut out and shrunk to 32 × 32 pixels. The networks " +
          "know ten classes, and give one of these names to whatever they see. The page says if simple " +
          "statistics of a picture are unusual; where it does not, that is no promise.",
      ),
    );
  }

  update() {}
}

/** All four, one at a time. */
export class Sources {
  constructor(session, picture) {
    this.session = session;
    const parts = { choose: Choice, mix: Mixer, draw: Easel, own: Own };
    const names = { choose: "Choose", mix: "Mix", draw: "Draw", own: "Your own" };
    this.tabs = Object.keys(parts).map((key) =>
      this.tab(key, names[key], new parts[key](session, picture)),
    );
    const list = h("div", { role: "tablist", "aria-label": "Where the picture comes from" });
    list.append(...this.tabs.map(({ tab }) => tab));
    list.addEventListener("keydown", (event) => this.key(event));
    this.element = h("div", { class: "lab-sources" }, list, ...this.tabs.map(({ panel }) => panel));
    this.open("choose");
  }

  tab(key, name, part) {
    const [id, controls] = [newId(), newId()];
    const on = { click: () => this.open(key) };
    const tab = h(
      "button",
      { type: "button", role: "tab", id, "aria-controls": controls, on },
      name,
    );
    const panel = h("div", { role: "tabpanel", id: controls, "aria-labelledby": id }, part.element);
    return { key, tab, panel, part };
  }

  open(key) {
    for (const { key: own, tab, panel, part } of this.tabs) {
      tab.setAttribute("aria-selected", own === key);
      tab.tabIndex = own === key ? 0 : -1;
      panel.hidden = own !== key;
      part.open?.(own === key);
      if (own === key) part.update(this.session);
    }
    this.opened = key;
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const at = this.tabs.findIndex(({ key }) => key === this.opened) + step;
    const { key, tab } = this.tabs.at(at % this.tabs.length);
    this.open(key);
    tab.focus();
  }

  update(session) {
    const { source, strokes } = session.state;
    const kind = strokes || source.kind === "blank" ? "draw" : OPENS[source.kind];
    if (kind !== this.kind && (this.kind || kind !== "choose")) {
      if (!(kind === "choose" && this.opened === "draw")) this.open(kind);
    }
    this.kind = kind;
    for (const { part } of this.tabs) part.update(session);
  }
}

const OPENS = { picture: "choose", mix: "mix", own: "own" };
