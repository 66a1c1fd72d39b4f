// One Lab on a page: what the reader has chosen, what the networks make of it, and who shows it.

import { outcome } from "../ablation.js";
import { connect } from "../client.js";
import { unlike } from "../unusual.js";
import { strokesOn } from "./brush.js";
import { bytesOf, numbersOf } from "./paint.js";
import { spriteOf } from "./sprites.js";
import { isAblation, opening, parse, units } from "./state.js";
import { sentence } from "./words.js";

const ROLES = ["vit", "cnn"];
const UNUSUAL = 0.99; // of the usual pictures are nearer to what is usual
const BLANK = 128; // grey level of an empty sheet

let engine = null; // of all Labs of a page
const loading = new Map(); // role → promise

export class Session {
  /** `about` is lab.json, `base` the address of its folder; `views` have an `update(session)`. */
  constructor(about, base) {
    Object.assign(this, { about, base, views: [], own: null, awake: false, curve: null });
    this.state = opening(about);
    this.message = this.spoken = "";
    this.forget();
  }

  forget() {
    const ablated = this.awake ? null : (this.about.first.ablated ?? null);
    Object.assign(this, { seen: { vit: null, cnn: null }, ablated, unusual: false });
  }

  show(...views) {
    this.views.push(...views);
    for (const view of views) view.update(this);
  }

  update() {
    for (const view of this.views) view.update(this);
  }

  /** The reader did something: from now on there are networks. */
  wake() {
    if (this.awake) return;
    this.awake = true;
    this.forget();
    engine ??= connect();
    this.engine = engine;
    engine.hasWorker.then((has) => has || this.say(NO_WORKER));
    if (ROLES.some((role) => !loading.get(role)?.done)) {
      const bytes = ROLES.reduce((sum, role) => sum + this.about.networks[role].bytes, 0);
      this.say(`Fetching the two networks, ${(bytes / 1e6).toFixed(1)} MB.`);
    }
  }

  /** Change what is chosen; of another picture, the evidence is first for the answer. */
  set(change) {
    if (!this.message.startsWith("Fetching")) this.message = "";
    this.wake();
    const evidence = change.source ? null : this.state.evidence;
    this.become({ ...this.state, evidence, ...change });
  }

  become(state) {
    if (state.net === "cnn" && state.order === "chosen" && state.at === "all")
      state = { ...state, at: this.about.networks.cnn.layers.at(-1) };
    const { n } = units(state, this.about);
    state = { ...state, k: Math.min(state.k, n) };
    if (curveOf(state, this.about) !== curveOf(this.state, this.about)) this.endCurve(true);
    this.state = state;
    this.changed?.();
    return this.settle();
  }

  /** Go where an address leads; what is wrong with it is said. */
  follow(address) {
    const opened = opening(this.about);
    try {
      const state = parse(address, this.about);
      if (state.source.kind === "own" && !this.own)
        throw new Error("This link is of a reader’s own picture, which never left their page");
      this.say("");
      this.wake();
      return this.become(state);
    } catch (error) {
      this.say(`${error.message}: here is the Lab as it opens.`);
      return this.become(opened);
    }
  }

  /** The patch whose attention is shown, pointed at or chosen, from 1 on; 0 is the class token. */
  get asked() {
    return this.pointed || this.state.patch;
  }

  /** The attention of a patch, [layers][heads] of numbers a patch; null where it is not known yet. */
  attention(patch) {
    const { about, awake, picture } = this;
    const { layers, heads, prefix, side } = about.networks.vit;
    const n = side ** 2;
    const each = (of) =>
      Array.from({ length: layers }, (_, layer) =>
        Array.from({ length: heads }, (_, head) => of(layer * heads + head)),
      );
    if (this.seen.vit) {
      const tokens = n + prefix;
      const row = patch ? prefix + patch - 1 : 0;
      return each((map) => {
        const from = (map * tokens + row) * tokens + prefix;
        return this.seen.vit.attention.subarray(from, from + n);
      });
    }
    if (awake || patch || !picture) return null;
    return each((map) => about.first.attention.slice(map * n, (map + 1) * n));
  }

  /** What a network says of the picture that is shown; null where that is not known yet. */
  probabilities(role) {
    return this.seen[role]?.probabilities ?? (this.awake ? null : this.about.first[role]);
  }

  say(message) {
    this.message = message;
    this.update();
  }

  /** Bring what is shown up to what is chosen; a later call ends an earlier one. */
  async settle() {
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    try {
      const picture = await this.pictureOf(this.state, signal);
      signal.throwIfAborted();
      const before = this.picture;
      const next = { picture, bytes: bytesOf(picture), index: indexOf(this.state.source) };
      const isNew = !before || before.some((number, i) => number !== picture[i]);
      const ready = this.awake && ROLES.every((role) => loading.get(role)?.done);
      if (isNew && !ready) this.forget();
      if (!ready) Object.assign(this, next);
      if (!this.awake) return this.update();
      this.update();
      const found = await Promise.all(ROLES.map((role) => this.see(role, picture, signal)));
      const ablated = await this.ablate(picture, next.index, found, signal);
      signal.throwIfAborted();
      const { share } = unlike(picture, this.about.usual);
      const seen = Object.fromEntries(ROLES.map((role, i) => [role, found[i]]));
      Object.assign(this, next, { seen, ablated, unusual: share >= UNUSUAL });
      this.spoken = sentence(this);
      this.update();
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message);
    }
  }

  async pictureOf({ source, strokes }, signal) {
    let bytes;
    if (source.kind === "own") bytes = bytesOf(this.own);
    else if (source.kind === "blank") bytes = bytesOf(new Float32Array(3072).fill(BLANK / 255));
    else bytes = await this.drawn(source);
    signal.throwIfAborted();
    return numbersOf(strokesOn(bytes, strokes));
  }

  async drawn(source) {
    if (source.kind === "mix") {
      const sprite = await spriteOf(new URL("mixed.webp", this.base));
      return sprite(10 * source.shape + source.texture);
    }
    const sprite = await spriteOf(new URL("pictures.webp", this.base));
    return sprite(this.about.pictures.findIndex(([number]) => number === source.number));
  }

  /** A network, which is fetched once for all Labs of the page. */
  load(role) {
    const { name, sha256 } = this.about.networks[role];
    if (!loading.has(role)) {
      const url = new URL(`${name}.safetensors`, this.base);
      const promise = this.engine.load({ network: name, url, sha256 });
      loading.set(role, promise);
      const settled = (done) => () => {
        if (done) promise.done = true;
        else loading.delete(role);
        if (ROLES.every((one) => loading.get(one)?.done) && this.message.startsWith("Fetching"))
          this.say("");
      };
      promise.then(settled(true), settled(false));
    }
    return loading.get(role);
  }

  /** What a network makes of a picture; null, and a message, if it is not to be had. */
  async see(role, picture, signal) {
    try {
      await this.load(role);
    } catch (error) {
      this.say(error.message);
      return null;
    }
    const network = this.about.networks[role].name;
    const run = await this.engine.run({ network, picture }, { signal });
    return { ...run, probabilities: softmax(run.logits), answer: largest(run.logits) };
  }

  /** What to ask the engine for an ablation of the state. */
  request(picture, index) {
    const { state, about } = this;
    const { role, side, layers, heads } = units(state, about);
    const unit = role === "vit" ? "patch" : "position";
    const scope = { layers, unit, heads, value: state.value, seed: 0, index };
    const order = state.order === "chosen" ? chosenUnits(state.patches, about, side) : state.order;
    const k = Array.isArray(order) ? order.length : state.k;
    return { network: about.networks[role].name, picture, scope, order, k, draw: 0 };
  }

  async ablate(picture, index, found, signal) {
    const intact = found[ROLES.indexOf(this.state.net)];
    if (!intact || !isAblation(this.state)) return null;
    const result = await this.engine.ablate(this.request(picture, index), { signal });
    const before = outcome(intact.logits, intact.logits, intact.answer).margin;
    const { net: role, order } = this.state;
    const probabilities = softmax(result.logits);
    return { ...result, role, order, before, probabilities, answer: largest(result.logits) };
  }

  /** The curve of the state, step by step. */
  async drawCurve() {
    this.wake();
    await this.settle();
    if (!this.seen[this.state.net]) return;
    const { n, step } = units(this.state, this.about);
    const ranks = RANKS.map((share) => Math.round((share * n) / 64 / step) * step);
    const asked = { ...this.request(this.picture, this.index), ranks: [...new Set(ranks)] };
    const stop = new AbortController();
    const curve = { points: [], n, stop, running: true, done: 0, total: 1 };
    this.curve = curve;
    this.update();
    const progress = (point) => {
      Object.assign(curve, { done: point.done, total: point.total });
      curve.points.push(point);
      this.update();
    };
    try {
      const orders = ["top", "random", "bottom"];
      await this.engine.curve(
        { ...asked, orders, draws: DRAWS },
        { signal: stop.signal, progress },
      );
      this.spoken = "The curve is drawn.";
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message);
      else this.spoken = "The curve was stopped.";
    }
    curve.running = false;
    this.update();
  }

  endCurve(forget = false) {
    this.curve?.stop.abort();
    if (forget) this.curve = null;
  }
}

const NO_WORKER =
  "This browser gives the Lab no thread of its own: the page may halt while the networks compute.";

const RANKS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 60, 64]; // of 64
export const DRAWS = 4; // of random orders

const largest = (numbers) => numbers.indexOf(Math.max(...numbers));

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** By what random orders are keyed. */
const indexOf = (source) =>
  source.kind === "mix" ? 10 * source.shape + source.texture : (source.number ?? 0);

/** What a curve depends on. */
function curveOf(state, about) {
  const { role, layers, heads } = units(state, about);
  return JSON.stringify([state.source, state.strokes, state.value, role, layers, heads]);
}

/** Patches, counted from 1, as units of a map of `side` places. */
function chosenUnits(patches, { networks }, side) {
  const coarse = networks.vit.side;
  const times = side / coarse;
  return patches.flatMap((patch) => {
    const [row, column] = [Math.floor((patch - 1) / coarse), (patch - 1) % coarse];
    return Array.from({ length: times ** 2 }, (_, i) => {
      const y = row * times + Math.floor(i / times);
      return y * side + column * times + (i % times);
    });
  });
}
