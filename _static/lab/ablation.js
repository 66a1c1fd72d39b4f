// Which units go, in which order, and what that does: as in utils/measures/ablation.
//
// A scope says whose units: { layers: [numbers], unit: "patch", "head" or, in a CNN, "position",
// heads: [numbers] of those whose patches go (null for all), value: what replaces them, seed,
// index: the picture's number in the test split, by which random orders are keyed }. As many units
// go in every layer and head, each by the order of its own response in the intact pass.

import { roundHalfEven } from "./pictures.js";
import { LabError, wrong } from "./weights.js";

export const ORDERS = ["top", "bottom", "random", "centre", "matched", "permuted"];
const isOrder = (order) => Array.isArray(order) || ORDERS.includes(order);
const VALUES = ["zero", "renormalise", "uniform", "mean"];

// Random orders.

const GOLDEN = 0x9e3779b97f4a7c15n; // splitmix64's increment and multipliers
const u64 = (number) => BigInt.asUintN(64, number);

function mix(x) {
  x = u64((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
  x = u64((x ^ (x >> 27n)) * 0x94d049bb133111ebn);
  return x ^ (x >> 31n);
}

/** Random orders [groups, n] of one picture, the same as utils.probes.keyed_orders gives. */
export function keyedOrders(seed, index, draw, groups, n) {
  let state = mix(u64(BigInt(seed) * GOLDEN + BigInt(draw)));
  state = mix(u64(state + GOLDEN * (BigInt(index) + 1n)));
  const keys = BigInt64Array.from({ length: groups * n }, (_, i) =>
    BigInt.asIntN(64, mix(u64(state + GOLDEN * BigInt(i + 1)))),
  );
  return sorted(keys, groups, n, (a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** The order of each group's n values, ties to the unit that comes first: [groups, n]. */
function sorted(values, groups, n, compare) {
  const orders = new Int32Array(groups * n);
  for (let group = 0; group < groups; group++) {
    const order = Array.from({ length: n }, (_, i) => i);
    order.sort((i, j) => compare(values[group * n + i], values[group * n + j]));
    orders.set(order, group * n);
  }
  return orders;
}

const falling = (values, groups, n) => sorted(values, groups, n, (a, b) => b - a);

// Removing units.

const some = (list, count) =>
  Array.isArray(list) &&
  list.length > 0 &&
  list.every((number) => Number.isInteger(number) && number >= 0 && number < count);

/** The units of a scope in the intact pass of a picture. */
export class Removal {
  constructor(run, scope) {
    const { layers, unit, heads = null, value = "zero", seed = 0, index = 0 } = scope;
    Object.assign(this, { run, network: run.network, layers, unit, heads, value, seed, index });
    this.check();
    this.strengths = layers.map((layer) => this.network.strengths(run, layer, unit));
    this.n = this.strengths[0].n;
    this.orders = new Map(); // as they are asked for
  }

  check() {
    const { layers, heads, unit, value, network } = this;
    const last = network.layers.length - 1;
    if (!some(layers, last + 1))
      throw new LabError(
        `The network ${network.name} has layers 0 to ${last}, not ${layers}: choose others.`,
      );
    if (heads !== null && (unit !== "patch" || !some(heads, network.heads)))
      throw new LabError(`No ${unit} of ${network.name} is in heads ${heads}: choose others.`);
    if (!VALUES.includes(value)) throw wrong("value", value, VALUES);
    const fitting = { patch: ["zero", "renormalise", "uniform"], position: ["zero", "mean"] };
    if (!(fitting[unit] ?? ["zero"]).includes(value))
      throw new LabError(`A ${unit} cannot be replaced by ${value}: choose zero.`);
    if (value === "mean" && !layers.every((layer) => network.means[layer]))
      throw new LabError("The means of these layers have not been measured: measure them first.");
  }

  /**
   * What removes k units of the first layer, and the same share of others.
   *
   * An order is one of ORDERS or a list of units, which is the same in all layers and heads;
   * `draw` is the number of a random one. "matched": random units that hold as much as the top k;
   * "permuted": nothing goes, the weights are put to other places.
   */
  edits(order, k, draw = 0) {
    const name = Array.isArray(order) ? `the list ${order}` : order;
    const most = Array.isArray(order) ? order.length : this.n;
    if (!Number.isInteger(k) || k < 0 || k > most)
      throw new LabError(`Of ${name}, 0 to ${most} units can go, not ${k}: choose as many.`);
    if (order === "permuted") return this.permuted(draw);
    return this.layers.map((layer, i) => {
      const count = roundHalfEven((k * this.strengths[i].n) / this.n);
      const units = this.orderOf(order === "matched" ? "random" : order, draw)[i];
      const shares =
        order === "matched" ? this.matched(i, units, count) : this.first(i, units, count);
      return this.edit(i, shares);
    });
  }

  edit(i, shares, places = null) {
    const { network, layers, unit, heads, value } = this;
    const { n } = this.strengths[i];
    if (heads !== null)
      shares.forEach((_, at) => {
        if (!heads.includes(Math.floor(at / n))) shares[at] = 0;
      });
    return network.edit(layers[i], unit, shares, value, places);
  }

  first(i, units, count) {
    const { groups, n } = this.strengths[i];
    const shares = new Float32Array(groups * n);
    const length = units.length / groups;
    for (let group = 0; group < groups; group++)
      for (let at = 0; at < count; at++) shares[group * n + units[group * length + at]] = 1;
    return shares;
  }

  /** Along a random order until as much is held as by the top units; of the last one a part. */
  matched(i, units, count) {
    const { groups, n, values } = this.strengths[i];
    const top = this.orderOf("top")[i];
    const shares = new Float32Array(groups * n);
    for (let start = 0; start < groups * n; start += n) {
      let missing = 0;
      for (let at = 0; at < count; at++) missing += values[start + top[start + at]];
      for (let at = 0; at < n; at++) {
        const unit = start + units[start + at];
        shares[unit] = Math.min(Math.max(missing / Math.max(values[unit], 1e-300), 0), 1);
        missing -= values[unit];
      }
    }
    return shares;
  }

  permuted(draw) {
    if (this.unit !== "patch")
      throw new LabError(`Only patches have weights to move, not a ${this.unit}: choose patches.`);
    return this.orderOf("random", -2 - draw).map((places, i) =>
      this.edit(i, new Float32Array(places.length).fill(1), places),
    );
  }

  /** Each layer's order [groups, n]. */
  orderOf(order, draw = 0) {
    if (Array.isArray(order)) return this.given(order);
    if (!isOrder(order)) throw wrong("order", order, ORDERS);
    const key = `${order} ${draw}`;
    if (!this.orders.has(key))
      this.orders.set(key, this.strengths.map((_, i) => this.newOrder(i, order, draw)));
    return this.orders.get(key);
  }

  newOrder(i, order, draw) {
    const { groups, n, values } = this.strengths[i];
    if (order === "random")
      return keyedOrders(this.seed, this.index, draw * this.layers.length + i, groups, n);
    if (order === "centre") return this.centre(groups, n);
    const top = falling(values, groups, n);
    if (order === "top") return top;
    for (let group = 0; group < groups; group++) top.subarray(group * n, (group + 1) * n).reverse();
    return top;
  }

  /** The middle of the grid first. */
  centre(groups, n) {
    if (this.unit === "head")
      throw new LabError("Heads have no place, and so no order from the centre: choose another.");
    const side = Math.sqrt(n);
    const away = (i) => (2 * i + 1 - side) ** 2;
    const nearness = Float64Array.from({ length: groups * n }, (_, i) => {
      const place = i % n;
      return -away(Math.floor(place / side)) - away(place % side);
    });
    return falling(nearness, groups, n);
  }

  given(units) {
    return this.strengths.map(({ groups, n }) => {
      if (new Set(units).size !== units.length || (units.length && !some(units, n)))
        throw new LabError(`The list ${units} is not of units 0 to ${n - 1}: choose others.`);
      return Int32Array.from({ length: groups * units.length }, (_, i) => units[i % units.length]);
    });
  }
}

// What that does.

function logSoftmax(logits) {
  const most = Math.max(...logits);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - most), 0);
  return Float64Array.from(logits, (logit) => logit - most - Math.log(sum));
}

/** The number of the largest. */
export const largest = (numbers) => numbers.indexOf(Math.max(...numbers));

/** What became of the logits: KL(intact ‖ ablated), and the log-odds of a class, in nats. */
export function outcome(intact, ablated, label) {
  const [p, q] = [logSoftmax(intact), logSoftmax(ablated)];
  const kl = p.reduce((sum, log, i) => sum + Math.exp(log) * (log - q[i]), 0);
  const others = q.filter((_, i) => i !== label);
  const most = Math.max(...others);
  const rest = most + Math.log(others.reduce((sum, log) => sum + Math.exp(log - most), 0));
  return { kl: Math.max(kl, 0), margin: q[label] - rest, right: largest(q) === label };
}

/**
 * Removes more and more units in several orders, one condition a step.
 *
 * Yields { order, draw, k, kl, margin, right, done, total } and returns all that was yielded by
 * order, with `label` (the class asked about, the intact answer if none is given), `n` and `ranks`.
 */
export function* curve(run, scope, { orders, ranks, draws = 8, label = null }) {
  const removal = new Removal(run, scope);
  label ??= largest(run.logits);
  if (!some([label], run.logits.length))
    throw new LabError(`There is no class ${label}: choose 0 to ${run.logits.length - 1}.`);
  const unknown = orders.find((order) => order === "permuted" || !isOrder(order));
  if (unknown !== undefined) throw wrong("order of a curve", unknown, ORDERS.slice(0, -1));
  ranks ??= Array.from({ length: removal.n + 1 }, (_, k) => k);
  const drawn = (order) => (order === "random" || order === "matched" ? draws : 1);
  const series = orders.flatMap((order) =>
    Array.from({ length: drawn(order) }, (_, draw) => ({ order, draw })),
  );
  const points = Object.fromEntries(orders.map((order) => [order, []]));
  const ends = new Map([[0, run.logits]]); // nothing and everything removed are the same in all
  const total = ranks.length * series.length;
  let done = 0;
  for (const k of ranks)
    for (const { order, draw } of series) {
      const logits = ends.get(k) ?? run.network.ablate(run, removal.edits(order, k, draw));
      if (k === removal.n) ends.set(k, logits);
      const point = { order, draw, k, ...outcome(run.logits, logits, label) };
      points[order].push(point);
      yield { ...point, done: ++done, total };
    }
  return { label, n: removal.n, ranks, points };
}
