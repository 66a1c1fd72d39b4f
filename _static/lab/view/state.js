// What the reader has chosen, and its form as an address. Counting begins with 1, as in the book.

import { count } from "./words.js";

export const ORDERS = {
  vit: ["top", "random", "bottom", "centre", "matched", "permuted", "chosen"],
  cnn: ["top", "random", "bottom", "centre", "matched", "chosen"],
};
export const VALUES = { vit: ["zero", "renormalise", "uniform"], cnn: ["zero"] };
export const SCOPES = ["head", "block", "all"];
const CODE = /^[0-7][0-3]([0-9a-v]{2})+(\.[0-7][0-3]([0-9a-v]{2})+)*$/; // of strokes, see brush.js

/** The state that the page opens with. */
export function opening({ first, networks }) {
  return {
    source: { kind: "picture", number: first.picture },
    strokes: "",
    layer: first.layer,
    head: first.head,
    patch: 0, // of the row that is shown; 0 is the class token
    evidence: null, // the class that it is for; null is the answer
    net: "vit", // from which units are taken
    scope: "all",
    at: networks.cnn.layers.at(-1),
    order: "top",
    value: "zero",
    k: 0,
    patches: [], // that the reader took away
  };
}

/** What units an ablation of this state takes: of which network, how many, in which layers. */
export function units(state, { networks }) {
  const { net: role } = state;
  const { layers, sides, side } = networks[role];
  if (role === "vit") {
    const all = Array.from({ length: layers }, (_, i) => i);
    return {
      role,
      side,
      n: side ** 2,
      noun: "patches",
      step: 1,
      layers: state.scope === "all" ? all : [state.layer - 1],
      heads: state.scope === "head" ? [state.head - 1] : null,
    };
  }
  const chosen = state.at === "all" ? layers.map((_, i) => i) : [layers.indexOf(state.at)];
  const n = sides[chosen[0]] ** 2;
  const step = Math.max(1, n / 64);
  return { role, side: sides[chosen[0]], n, noun: "places", step, layers: chosen, heads: null };
}

/** Whether a state takes or moves anything. */
export const isAblation = ({ order, k, patches }) =>
  order === "permuted" || (order === "chosen" ? patches.length > 0 : k > 0);

// As an address.

/** "picture=17&layer=5…": what differs from the opening, and always the picture and the head. */
export function format(state, about) {
  const { shapes, textures, networks } = about;
  const { source } = state;
  const parts = [];
  if (source.kind === "mix")
    parts.push(["mix", `${shapes[source.shape]}.${textures[source.texture]}`]);
  else parts.push(["picture", source.number ?? source.kind]);
  if (state.strokes) parts.push(["strokes", state.strokes]);
  parts.push(["layer", state.layer], ["head", state.head]);
  if (state.patch) parts.push(["patch", state.patch]);
  if (state.evidence !== null) parts.push(["evidence", shapes[state.evidence]]);
  if (isAblation(state) || state.net !== "vit") {
    parts.push(["net", networks[state.net].name]);
    parts.push(["scope", state.net === "vit" ? state.scope : state.at], ["order", state.order]);
    if (state.value !== "zero") parts.push(["value", state.value]);
    if (state.order === "chosen") parts.push(["patches", state.patches.join(".")]);
    else if (state.order !== "permuted") parts.push(["k", state.k]);
  }
  return parts.map((part) => part.join("=")).join("&");
}

/** The state of an address, without "#"; an Error with a sentence if there is none. */
export function parse(text, about) {
  const asked = new Map([...new URLSearchParams(text)]);
  const state = opening(about);
  for (const [key, value] of asked) {
    if (!Object.hasOwn(READ, key))
      throw new Error(`This link asks for “${key}”, which the Lab does not know`);
    READ[key](state, value, about, asked);
  }
  const { n, noun } = units(state, about);
  if (!ORDERS[state.net].includes(state.order)) throw wrong("order", state.order);
  if (!VALUES[state.net].includes(state.value)) throw wrong("value", state.value);
  if (state.k > n)
    throw new Error(`This link takes ${count(state.k)} ${noun} away, of ${count(n)}`);
  return state;
}

const wrong = (key, value) => new Error(`This link asks for ${key} “${value}”, which is not there`);

function whole(key, value, most, least = 1) {
  const number = /^\d{1,6}$/.test(value) ? Number(value) : NaN;
  if (!(number >= least && number <= most)) throw wrong(key, value);
  return number;
}

function among(key, value, list) {
  if (!list.includes(value)) throw wrong(key, value);
  return value;
}

const READ = {
  picture(state, value, { pictures }) {
    if (value === "own" || value === "blank") return (state.source = { kind: value });
    const number = whole("picture", value, 1e6, 0);
    if (!pictures.some(([known]) => known === number)) throw wrong("picture", value);
    state.source = { kind: "picture", number };
  },
  mix(state, value, { shapes, textures }) {
    const [shape, texture] = value.split(".");
    const found = [shapes.indexOf(shape), textures.indexOf(texture)];
    if (found.includes(-1)) throw wrong("mix", value);
    state.source = { kind: "mix", shape: found[0], texture: found[1] };
  },
  strokes(state, value) {
    if (!CODE.test(value)) throw wrong("strokes", value);
    state.strokes = value;
  },
  layer(state, value, { networks }) {
    state.layer = whole("layer", value, networks.vit.layers);
  },
  head(state, value, { networks }) {
    state.head = whole("head", value, networks.vit.heads);
  },
  patch(state, value, { networks }) {
    state.patch = whole("patch", value, networks.vit.side ** 2);
  },
  evidence(state, value, { shapes }) {
    state.evidence = shapes.indexOf(among("evidence", value, shapes));
  },
  net(state, value, { networks }) {
    const role = Object.keys(networks).find((known) => networks[known].name === value);
    if (!role) throw wrong("net", value);
    state.net = role;
  },
  scope(state, value, { networks }, asked) {
    if (asked.get("net") === networks.cnn.name)
      state.at = among("scope", value, [...networks.cnn.layers, "all"]);
    else state.scope = among("scope", value, SCOPES);
  },
  order(state, value) {
    state.order = value;
  },
  value(state, value) {
    state.value = value;
  },
  k(state, value) {
    state.k = whole("k", value, 1e6, 0);
  },
  patches(state, value, { networks }) {
    const most = networks.vit.side ** 2;
    const list = value ? value.split(".").map((patch) => whole("patch", patch, most)) : [];
    state.patches = [...new Set(list)].sort((a, b) => a - b);
  },
};
