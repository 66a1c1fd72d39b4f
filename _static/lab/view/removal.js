// Taking attention or places away, and what becomes of the answer.

import { Answers } from "./answers.js";
import { attribute, h, newId, radios, say, select } from "./dom.js";
import { Grid } from "./grid.js";
import { COLOURS, largeSheet, paint, paintGone, paintMap } from "./paint.js";
import { another } from "./picture.js";
import { ORDERS, VALUES, isAblation, units } from "./state.js";
import { KINDS, count, layerName, minus, nats, percent, placeName } from "./words.js";

const ORDER = {
  top: "the strongest first",
  random: "in random order",
  bottom: "the weakest first",
  centre: "from the centre",
  permuted: "all, to other places",
  chosen: "those that I click",
};
const MATCHED = { vit: "random, of equal attention", cnn: "random, of equal response" };
const VALUE = {
  zero: "nothing",
  renormalise: "nothing, rest scaled up",
  uniform: "their sum, evenly",
};

export class Removal {
  constructor(session) {
    this.session = session;
    this.controls(session);
    this.picture(session);
    const sides = [
      { name: "intact", role: "vit" },
      { name: "after", role: "vit" },
    ];
    this.answers = new Answers(session.about, "Probabilities before and after the ablation", sides);
    this.numbers = h("p", { class: "lab-numbers" });
    const result = h("div", {}, this.numbers, this.answers.element);
    const left = h("div", {}, this.stage, this.caption);
    this.element = h("div", { class: "lab-removal" }, this.form, left, result);
  }

  controls(session) {
    const set = (key) => (value) => session.set({ [key]: value });
    const kinds = Object.entries(KINDS);
    this.net = radios("In the", kinds, (net) =>
      session.set({ net, order: "top", value: "zero", k: 0 }),
    );
    this.scope = select("take from", [], (scope) =>
      session.set(session.state.net === "vit" ? { scope } : { at: scope }),
    );
    this.order = select("these", [], set("order"));
    this.value = select("and put in", [], set("value"));
    const id = newId();
    const input = { input: () => session.set({ k: Number(this.slider.value) }) };
    this.slider = h("input", { type: "range", id, min: 0, on: input });
    this.k = h("output", { for: id });
    this.howMany = h(
      "div",
      { class: "lab-field lab-slider" },
      h("label", { for: id }, "How many"),
      this.slider,
      this.k,
    );
    const putBack = () => {
      const { order } = session.state;
      // Nothing but another order puts back what has been moved.
      session.set({ k: 0, patches: [], order: order === "permuted" ? "top" : order });
    };
    this.form = h(
      "div",
      { class: "lab-controls" },
      this.net.element,
      this.scope.element,
      this.order.element,
      this.howMany,
      this.value.element,
      h(
        "p",
        { class: "lab-row" },
        h("button", { type: "button", on: { click: putBack } }, "Put all back"),
        another(session),
      ),
    );
  }

  picture(session) {
    const { side } = session.about.networks.vit;
    this.canvas = largeSheet();
    this.grid = new Grid({
      label: "Patches to take away",
      rows: side,
      columns: side,
      pick: (index) => session.set({ patches: toggled(session.state.patches, index + 1) }),
    });
    this.stage = h("div", { class: "lab-picture" }, this.canvas, this.grid.element);
    this.caption = h("p", { class: "lab-note" });
  }

  update(session) {
    const { state, about, ablated } = session;
    const { net: role } = state;
    const { n, noun, step } = units(state, about);
    this.net.choose(role);
    this.form.dataset.role = role;
    this.scope.offer(role === "vit" ? scopes(state) : places(about));
    this.scope.control.value = role === "vit" ? state.scope : state.at;
    this.order.offer(ORDERS[role].map((order) => [order, ORDER[order] ?? MATCHED[role]]));
    this.order.control.value = state.order;
    this.value.offer(VALUES[role].map((value) => [value, VALUE[value]]));
    this.value.control.value = state.value;
    this.value.element.hidden = VALUES[role].length < 2 || state.order === "permuted";
    this.howMany.hidden = state.order === "permuted" || state.order === "chosen";
    Object.assign(this.slider, { max: n, step });
    this.slider.value = state.k;
    const some = `${count(state.k)} of ${count(n)} ${noun}`;
    const many = state.order === "matched" ? `as much as the strongest ${some}` : some;
    attribute(this.slider, "aria-valuetext", many);
    say(this.k, many);
    this.paint(session);
    this.answers.name([
      { name: "intact", role },
      { name: "after", role },
    ]);
    const intact = session.probabilities(role);
    this.answers.fill(intact, ablated?.probabilities ?? (isAblation(state) ? null : intact));
    this.report(session, intact);
  }

  paint(session) {
    const { state, about, bytes, ablated } = session;
    const clicking = state.order === "chosen";
    this.grid.element.hidden = !clicking;
    const { side } = about.networks.vit;
    if (clicking)
      this.grid.cells.forEach((cell, i) => {
        const gone = state.patches.includes(i + 1);
        this.grid.name(i, `patch in ${placeName(i + 1, side)}${gone ? ", taken away" : ""}`);
        attribute(cell, "aria-selected", gone ? "true" : "false");
      });
    if (!bytes) return;
    const found = changeOf(session);
    if (!found) paint(this.canvas, bytes);
    else if (state.order === "permuted") {
      const own = session.attention(0)[state.layer - 1][state.head - 1];
      const moved = Float32Array.from(found.places, (place) => own[place]);
      paintMap(this.canvas, bytes, moved, Math.max(...own), COLOURS.vit);
    } else paintGone(this.canvas, bytes, found.shares, COLOURS[state.net]);
    say(this.caption, caption(session, Boolean(found && ablated)));
  }

  report({ about, ablated, state }, intact) {
    if (!ablated || !intact) {
      const { noun } = units(state, about);
      say(this.numbers, isAblation(state) ? "" : `Nothing has been taken. Take some ${noun} away.`);
      return;
    }
    const before = intact.indexOf(Math.max(...intact));
    const named = (label, probabilities) =>
      `${about.shapes[label]} (${percent(probabilities[label])})`;
    const answer =
      ablated.answer === before
        ? `still says ${named(before, ablated.probabilities)}`
        : `says ${named(ablated.answer, ablated.probabilities)} where it said ${named(before, intact)}`;
    const margin = `${minus(ablated.before.toFixed(1))} → ${minus(ablated.margin.toFixed(1))}`;
    this.numbers.replaceChildren(
      h("span", {}, `The ${KINDS[state.net]} ${answer}.`),
      h(
        "span",
        {},
        h("b", {}, "KL "),
        h("data", { value: ablated.kl.toFixed(6) }, nats(ablated.kl)),
      ),
      h("span", {}, h("b", {}, "margin "), `${margin} nats`),
    );
  }
}

/** What has changed in the layer and head that is shown: { shares, places } of its units. */
function changeOf({ state, about, ablated }) {
  if (ablated?.role !== state.net || ablated.order !== state.order) return null; // not yet
  const { layers, n } = units(state, about);
  const number = state.net === "vit" ? layers.indexOf(state.layer - 1) : layers.length - 1;
  const change = ablated.changes[number];
  if (state.net === "cnn" || !change) return change ?? null;
  const { prefix } = about.networks.vit;
  const from = (state.head - 1) * (prefix + n) + prefix;
  const own = (list) => list && list.slice(from, from + n);
  const places = own(change.places)?.map((place) => place - prefix) ?? null;
  return { shares: own(change.shares), places };
}

function caption({ state, about }, changed) {
  if (state.order === "chosen" && !state.patches.length) return "Click the patches that are to go.";
  if (!changed) return "";
  if (state.net === "cnn") {
    const { layers } = units(state, about);
    return layers.length > 1
      ? "Places that have gone from the last layer."
      : "Places that have gone.";
  }
  const head = `layer ${state.layer}, head ${state.head}`;
  if (state.order === "permuted") return `The weights of ${head}, at the places they now have.`;
  if (state.order === "chosen") return "Patches that have gone.";
  const others = state.scope === "head" ? "" : "; every head loses its own";
  return `Patches that have gone from ${head}${others}.`;
}

const scopes = ({ layer, head }) => [
  ["head", `layer ${layer}, head ${head} alone`],
  ["block", `layer ${layer}, all heads`],
  ["all", "all heads of all layers"],
];

const places = ({ networks }) => [
  ...networks.cnn.layers.map((name, i) => {
    const side = networks.cnn.sides[i];
    return [name, `${layerName(name)} (${side} × ${side})`];
  }),
  ["all", "all of them together"],
];

const toggled = (list, patch) =>
  list.includes(patch)
    ? list.filter((one) => one !== patch)
    : [...list, patch].sort((a, b) => a - b);
