// The zoo's Vision Transformers, with a class token, registers, positions or without.

import {
  convolve,
  gelu,
  layerNorm,
  linear,
  matrix,
  multiply,
  relu,
  softmax,
} from "./arithmetic.js";
import { SIDE, checked } from "./pictures.js";
import { broken, channelsLast, wrong } from "./weights.js";

export class Transformer {
  /** `prefix` tokens (class token, registers) come before the patches. */
  constructor(parts, depth, heads, rectified) {
    const [width, , size] = parts.shape("patch_embed.proj.weight");
    this.embedding = embedding(parts, size);
    this.width = width;
    this.activation = rectified ? relu : gelu;
    this.hasClassToken = parts.has("cls_token");
    this.before = [
      ...(this.hasClassToken ? parts.take("cls_token", 1, 1, width) : []),
      ...(parts.has("reg_token") ? parts.take("reg_token", 1, null, width) : []),
    ];
    this.prefix = this.before.length / width;
    this.side = this.embedding.reduce((side, layer) => Math.ceil(side / layer.stride), SIDE);
    this.tokens = this.prefix + this.side ** 2;
    if (parts.has("pos_embed")) this.places = parts.take("pos_embed", 1, this.tokens, width);
    this.layers = Array.from({ length: depth }, (_, i) => `blocks.${i}`);
    this.blocks = this.layers.map((name) => takeBlock(parts, name, width));
    this.norm = parts.norm(this.hasClassToken ? "norm" : "fc_norm", width);
    this.head = parts.linear("head", width);
    this.heads = heads;
    this.depth = depth;
    this.inner = this.blocks[0].qkv.outputs / 3; // heads × channels of a head
    this.dim = this.inner / heads;
    if (!Number.isInteger(this.dim)) throw broken(parts.name, `${heads} heads do not divide them`);
  }

  /**
   * The intact pass.
   *
   * Returns logits [classes], features [width] (what the head reads) and attention
   * [layers, heads, tokens, tokens], next to what ablations start from.
   */
  run(picture) {
    const run = { network: this, inputs: [], qkv: [], attention: null };
    run.attention = new Float32Array(this.depth * this.heads * this.tokens ** 2);
    let x = this.embed(checked(picture));
    this.blocks.forEach((block, number) => {
      run.inputs.push(x);
      const qkv = linear(layerNorm(x, block.norm1, this.tokens), block.qkv, this.tokens);
      const maps = this.attend(qkv, this.tokens);
      run.qkv.push(qkv);
      run.attention.set(maps, number * maps.length);
      x = this.finish(block, x, qkv, maps, this.tokens);
    });
    return Object.assign(run, this.read(x));
  }

  /** Logits after edits: what comes before the first of them is the intact run's. */
  ablate(run, edits) {
    const { tokens, depth } = this;
    const start = Math.min(...edits.map((edit) => edit.layer));
    if (!edits.length) return run.logits;
    let x = run.inputs[start];
    let changed = 0; // so many tokens, the first ones, are no longer the intact run's
    for (let number = start; number < depth; number++) {
      const block = this.blocks[number];
      // Edits change what the class token sees; others see that in the next block.
      const alone = this.hasClassToken && (changed === 0 || number === depth - 1);
      const rows = alone ? 1 : tokens;
      const qkv = changed ? this.project(block, x, changed, run.qkv[number]) : run.qkv[number];
      const maps = changed ? this.attend(qkv, rows) : this.maps(run, number, rows);
      for (const edit of edits) if (edit.layer === number) this.apply(edit, maps, rows);
      const next = this.finish(block, x, qkv, maps, rows);
      x = number + 1 < depth ? run.inputs[number + 1].slice() : next;
      x.set(next);
      changed = rows;
    }
    return this.read(x).logits;
  }

  embed(picture) {
    let map = { data: channelsLast(picture, 1, 3), side: SIDE };
    for (const layer of this.embedding) map = convolve(map, layer);
    const x = new Float32Array(this.tokens * this.width);
    x.set(this.before);
    x.set(map.data, this.before.length);
    if (this.places) for (let i = 0; i < x.length; i++) x[i] += this.places[i];
    return x;
  }

  /** Queries, keys and values of the first tokens; those of the others are known. */
  project(block, x, changed, known) {
    return linear(layerNorm(x, block.norm1, changed), block.qkv, changed, known.slice());
  }

  /** The attention of the first tokens to all: [heads, rows, tokens]. */
  attend(qkv, rows) {
    const { tokens, heads, dim, inner } = this;
    const maps = new Float32Array(heads * rows * tokens);
    for (let head = 0; head < heads; head++) {
      const query = matrix(qkv, 3 * inner, head * dim);
      const key = matrix(qkv, 3 * inner, inner + head * dim);
      multiply(query, key, matrix(maps, tokens, head * rows * tokens), rows, tokens, dim);
    }
    return softmax(maps, tokens, dim ** -0.5);
  }

  /** The same from the intact run. */
  maps(run, layer, rows) {
    const { tokens, heads } = this;
    const maps = new Float32Array(heads * rows * tokens);
    for (let head = 0; head < heads; head++) {
      const from = (layer * heads + head) * tokens * tokens;
      maps.set(run.attention.subarray(from, from + rows * tokens), head * rows * tokens);
    }
    return maps;
  }

  /** What a head's rows of attention make of the values: y [rows, inner] at the head's place. */
  mix(qkv, maps, head, rows, y) {
    const { tokens, dim, inner } = this;
    const values = new Float32Array(dim * tokens);
    for (let token = 0; token < tokens; token++)
      for (let c = 0; c < dim; c++)
        values[c * tokens + token] = qkv[token * 3 * inner + 2 * inner + head * dim + c];
    const weights = matrix(maps, tokens, head * rows * tokens);
    multiply(weights, matrix(values, tokens), matrix(y, inner, head * dim), rows, dim, tokens);
  }

  /** The rest of a block for its first tokens [rows, width]. */
  finish(block, x, qkv, maps, rows) {
    const mixed = new Float32Array(rows * this.inner);
    for (let head = 0; head < this.heads; head++) this.mix(qkv, maps, head, rows, mixed);
    const y = linear(mixed, block.proj, rows, x.slice(0, rows * this.width), true);
    const hidden = linear(layerNorm(y, block.norm2, rows), block.fc1, rows);
    this.activation(hidden);
    return linear(hidden, block.fc2, rows, y, true);
  }

  /** The head reads the class token or, without one, the mean of the patches. */
  read(x) {
    const mean = new Float32Array(this.width);
    const tokens = this.hasClassToken ? 1 : this.tokens;
    for (let c = 0; c < this.width; c++) {
      let sum = 0;
      for (let token = 0; token < tokens; token++) sum += x[token * this.width + c];
      mean[c] = sum / tokens;
    }
    const features = layerNorm(mean, this.norm, 1);
    return { features, logits: linear(features, this.head, 1) };
  }

  /**
   * How strongly the units of a layer respond: { groups, n, values [groups, n] }.
   *
   * "patch": what the class token (without one, the mean query) attends to, each head a group.
   * "head": the size of what each head adds to it.
   */
  strengths(run, layer, unit) {
    if (unit !== "patch" && unit !== "head") throw wrong("unit", unit, ["patch", "head"]);
    const { heads, tokens, prefix, inner, dim } = this;
    const seen = this.seen(run, layer);
    const patches = tokens - prefix;
    if (unit === "patch") {
      const values = new Float64Array(heads * patches);
      values.forEach((_, i) => {
        values[i] = seen[Math.floor(i / patches) * tokens + prefix + (i % patches)];
      });
      return { groups: heads, n: patches, values };
    }
    const { weight } = this.blocks[layer].proj;
    const mixed = new Float32Array(inner);
    const values = Float64Array.from({ length: heads }, (_, head) => {
      this.mix(run.qkv[layer], seen, head, 1, mixed);
      const added = new Float32Array(this.width);
      const own = (data) => matrix(data, inner, head * dim);
      multiply(own(mixed), own(weight), matrix(added, this.width), 1, this.width, dim);
      return Math.hypot(...added);
    });
    return { groups: 1, n: heads, values };
  }

  /** The class token's rows of attention, without one the mean over queries: [heads, tokens]. */
  seen(run, layer) {
    const { heads, tokens } = this;
    const rows = this.hasClassToken ? 1 : tokens;
    const maps = this.maps(run, layer, rows);
    const seen = new Float32Array(heads * tokens);
    seen.forEach((_, i) => {
      const [head, key] = [Math.floor(i / tokens), i % tokens];
      let sum = 0;
      for (let row = 0; row < rows; row++) sum += maps[(head * rows + row) * tokens + key];
      seen[i] = sum / rows;
    });
    return seen;
  }

  /**
   * What changes a layer's attention.
   *
   * `shares` [groups, n] in 0 … 1 of the units are taken away and replaced by `value`: "zero",
   * "renormalise" (zero, the rest of the row scaled up), "uniform" (what they hold spread evenly
   * over them); or `places` [heads, n] says whose weight each patch gets.
   */
  edit(layer, unit, shares, value, places = null) {
    const { heads, tokens, prefix } = this;
    const patches = tokens - prefix;
    const each = (patch) =>
      Float32Array.from({ length: heads * tokens }, (_, i) =>
        patch(Math.floor(i / tokens), (i % tokens) - prefix),
      );
    if (unit === "head") return { layer, shares: each((head) => shares[head]), value };
    return {
      layer,
      shares: each((head, i) => (i < 0 ? 0 : shares[head * patches + i])),
      value,
      places: places && each((head, i) => (i < 0 ? i : places[head * patches + i]) + prefix),
    };
  }

  /** Change maps [heads, rows, tokens], in place: the class token's rows, without one all. */
  apply({ shares, value, places }, maps, rows) {
    const { heads, tokens } = this;
    const edited = this.hasClassToken ? 1 : rows;
    const row = (data, number) => data.subarray(number * tokens, (number + 1) * tokens);
    for (let head = 0; head < heads; head++)
      for (let i = 0; i < edited; i++) {
        const put = places && row(places, head);
        editRow(row(maps, head * rows + i), row(shares, head), value, put);
      }
  }
}

function embedding(parts, size) {
  if (!parts.has("patch_embed.backbone.0.weight"))
    return [parts.convolution("patch_embed.proj", 3, { stride: size })];
  const stem = { pad: 1, stride: 2, relu: true };
  const layers = [];
  for (const number of [0, 3]) {
    const key = `patch_embed.backbone.${number}`;
    const norm = `patch_embed.backbone.${number + 1}`;
    layers.push(parts.convolution(key, layers.at(-1)?.outputs ?? 3, { ...stem, norm }));
  }
  return [...layers, parts.convolution("patch_embed.proj", layers[1].outputs, { stride: size })];
}

function takeBlock(parts, name, width) {
  const qkv = parts.linear(`${name}.attn.qkv`, width);
  const fc1 = parts.linear(`${name}.mlp.fc1`, width);
  return {
    norm1: parts.norm(`${name}.norm1`, width),
    qkv,
    proj: parts.linear(`${name}.attn.proj`, qkv.outputs / 3, width),
    norm2: parts.norm(`${name}.norm2`, width),
    fc1,
    fc2: parts.linear(`${name}.mlp.fc2`, fc1.outputs, width),
  };
}

/** Change a row of attention, in place. */
function editRow(row, shares, value, places) {
  const before = Float64Array.from(row);
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  for (let i = 0; i < row.length; i++) row[i] = before[i] * (1 - shares[i]);
  if (places) for (let i = 0; i < row.length; i++) row[i] += shares[i] * before[places[i]];
  else if (value === "renormalise") {
    const rest = sum(row);
    const scale = rest > 0 ? sum(before) / rest : 0;
    for (let i = 0; i < row.length; i++) row[i] *= scale;
  } else if (value === "uniform") {
    const mean = sum(before.map((b, i) => b * shares[i])) / Math.max(sum(shares), 1e-30);
    for (let i = 0; i < row.length; i++) row[i] += shares[i] * mean;
  }
}
