// Where the networks look: the ViT's attention, head by head, and the ResNet's evidence.

import { attribute, h, say, select } from "./dom.js";
import { Grid } from "./grid.js";
import { COLOURS, largeSheet, paint, paintMap, sheet } from "./paint.js";
import { another } from "./picture.js";
import { attends, minus, placeName } from "./words.js";

/** A colour bar on a square-root scale. */
class Bar {
  constructor(role) {
    this.most = h("output", {});
    this.element = h(
      "div",
      { class: "lab-bar", "data-role": role },
      h("span", {}, "0"),
      h("i", { "aria-hidden": "true" }),
      this.most,
    );
  }

  show(full, digits) {
    say(this.most, full > 0 ? minus(full.toFixed(digits)) : "–");
  }
}

const mostOf = (maps) => Math.max(...maps.flat().map((map) => Math.max(...map)));

/** The plain picture, whose patches can be pointed at to see what they attend to. */
export class Asking {
  /** `below` is what leads to other pictures. */
  constructor(session, below = h("p", { class: "lab-row" }, another(session))) {
    const { side } = session.about.networks.vit;
    this.canvas = largeSheet();
    const enter = (index) => this.point(session, index + 1);
    const pick = (index) => {
      const patch = session.state.patch === index + 1 ? 0 : index + 1;
      session.set({ patch });
    };
    const leave = () => this.point(session, 0);
    const label = "Patches of the picture: choose one to see what it attends to";
    this.grid = new Grid({ label, rows: side, columns: side, pick, enter, leave });
    this.grid.cells.forEach((_, i) => this.grid.name(i, `patch in ${placeName(i + 1, side)}`));
    this.stage = h("div", { class: "lab-picture" }, this.canvas, this.grid.element);
    const whole = {
      class: "lab-plain",
      type: "button",
      on: { click: () => session.set({ patch: 0 }) },
    };
    this.whole = h("button", whole, "Back to the class token");
    this.text = h("span", {});
    this.element = h(
      "figure",
      {},
      this.stage,
      h("figcaption", {}, this.text, " ", this.whole),
      below,
    );
  }

  point(session, patch) {
    if (patch) session.wake();
    if (patch && !session.seen.vit) session.settle();
    session.pointed = patch;
    if (patch) session.spoken = attends(session);
    session.update();
  }

  update(session) {
    if (session.bytes) paint(this.canvas, session.bytes);
    const { state, asked } = session;
    const { side } = session.about.networks.vit;
    this.grid.select(...(state.patch ? [state.patch - 1] : []));
    say(
      this.text,
      asked
        ? `You ask the patch in ${placeName(asked, side)}.`
        : "You ask the class token, which gathers the answer. Point at a patch to ask it.",
    );
    this.whole.hidden = !state.patch;
  }
}

/** One head's attention, large, and all heads of all layers, small, on one scale. */
export class Attention {
  constructor(session) {
    const { layers, heads } = session.about.networks.vit;
    this.canvas = largeSheet();
    this.stage = h("div", { class: "lab-picture", role: "img" }, this.canvas);
    this.bar = new Bar("vit");
    this.text = h("span", {});
    this.sheets = Array.from({ length: layers * heads }, () => sheet());
    this.grid = new Grid({
      label: "Heads in rows, layers in columns: choose one to see it large",
      rows: heads,
      columns: layers,
      cell: (index) => [this.sheets[index]],
      pick: (index) =>
        session.set({ layer: (index % layers) + 1, head: Math.floor(index / layers) + 1 }),
    });
    this.grid.cells.forEach((_, i) =>
      this.grid.name(i, `layer ${(i % layers) + 1}, head ${Math.floor(i / layers) + 1}`),
    );
    this.grid.element.classList.add("lab-heads");
    this.element = h(
      "figure",
      {},
      this.stage,
      this.bar.element,
      h("figcaption", {}, this.text),
      h(
        "p",
        { class: "lab-axis", "aria-hidden": "true" },
        `Choose a head: layers 1 to ${layers} →, heads 1 to ${heads} ↓`,
      ),
      this.grid.element,
    );
  }

  update(session) {
    const { bytes, state, about } = session;
    const { layers } = about.networks.vit;
    const maps = session.attention(session.asked);
    say(this.text, attends(session));
    attribute(this.stage, "aria-label", attends(session));
    this.grid.select((state.head - 1) * layers + state.layer - 1);
    attribute(this.element, "data-waiting", !maps);
    if (!maps || !bytes) return;
    const full = mostOf(maps);
    this.bar.show(full, 3);
    const own = maps[state.layer - 1][state.head - 1];
    paintMap(this.canvas, bytes, own, full, COLOURS.vit);
    this.sheets.forEach((canvas, i) =>
      paintMap(canvas, bytes, maps[i % layers][Math.floor(i / layers)], full, COLOURS.vit),
    );
  }
}

/** What each place of the ResNet's last map adds to a class. */
export class Evidence {
  constructor(session) {
    this.canvas = largeSheet();
    this.stage = h("div", { class: "lab-picture", role: "img" }, this.canvas);
    this.bar = new Bar("cnn");
    this.text = h("span", {});
    const classes = session.about.shapes.map((name, i) => [i, name]);
    this.choice = select("Evidence for", [["", "its answer"], ...classes], (value) =>
      session.set({ evidence: value === "" ? null : Number(value) }),
    );
    const caption = h("figcaption", {}, this.text);
    this.element = h("figure", {}, this.stage, this.bar.element, caption, this.choice.element);
  }

  update(session) {
    const { bytes, state, about } = session;
    this.choice.control.value = state.evidence ?? "";
    const found = this.of(session);
    const name = found && about.shapes[found.label];
    const alt = found && `Evidence of the ResNet for ${name}, place by place`;
    attribute(this.element, "data-waiting", !found);
    attribute(this.stage, "aria-label", alt);
    if (!found || !bytes) return say(this.text, "");
    const { shares } = found;
    const full = Math.max(...shares);
    const sum = shares.reduce((total, share) => total + share, 0);
    say(
      this.text,
      `What places of its last map add to the ResNet’s logit for ${name}: ` +
        `${minus(sum.toFixed(1))} in all. What lowers it has no colour.`,
    );
    this.bar.show(full, 2);
    paintMap(this.canvas, bytes, shares, full, COLOURS.cnn);
  }

  of({ seen, state, about, awake }) {
    if (seen.cnn) {
      const label = state.evidence ?? seen.cnn.answer;
      const { shares, side } = seen.cnn.evidence;
      return { label, shares: shares.subarray(label * side ** 2, (label + 1) * side ** 2) };
    }
    const { cnn, evidence } = about.first;
    const label = cnn.indexOf(Math.max(...cnn));
    return awake ? null : { label, shares: evidence };
  }
}
