// The zoo's ResNets and plain nets.

import { convolve, linear, matrix, multiply, relu } from "./arithmetic.js";
import { SIDE, checked } from "./pictures.js";
import { channelsLast, numbered, wrong } from "./weights.js";

export class ConvolutionalNetwork {
  constructor(parts, skips) {
    this.stem = parts.convolution("conv1", 3, { norm: "bn1", pad: 1, relu: true });
    let channels = this.stem.outputs;
    const names = [1, 2, 3].flatMap((stage) => numbered(parts, `layer${stage}`, "conv1.weight"));
    this.blocks = names.map((name) => {
      const block = takeBasicBlock(parts, name, channels, skips);
      channels = block.second.outputs;
      return block;
    });
    this.head = parts.linear("fc", channels);
    this.layers = ["act1", ...names];
    this.depth = 2 * names.length + 2;
    this.means = {};
  }

  /**
   * The intact pass: logits [classes], features [width] (what the head reads) and the maps of all
   * layers, { data [places, channels], side }.
   */
  run(picture) {
    const maps = [convolve({ data: channelsLast(checked(picture), 1, 3), side: SIDE }, this.stem)];
    for (const block of this.blocks) maps.push(basicBlock(block, maps.at(-1)));
    return { network: this, maps, ...this.read(maps.at(-1)) };
  }

  /** Logits after edits: what comes before the first of them is the intact run's. */
  ablate(run, edits) {
    const start = Math.min(...edits.map((edit) => edit.layer));
    if (!edits.length) return run.logits;
    let map = run.maps[start];
    for (let layer = start; layer < this.layers.length; layer++) {
      if (layer > start) map = basicBlock(this.blocks[layer - 1], map);
      for (const edit of edits) if (edit.layer === layer) map = editMap(edit, map);
    }
    return this.read(map).logits;
  }

  read({ data }) {
    const width = this.head.inputs;
    const places = data.length / width;
    const features = new Float32Array(width);
    for (let c = 0; c < width; c++) {
      let sum = 0;
      for (let place = 0; place < places; place++) sum += data[place * width + c];
      features[c] = sum / places;
    }
    return { features, logits: linear(features, this.head, 1) };
  }

  /** What each place of the last map adds to each logit [classes, places]; bias is the rest. */
  evidence(run) {
    const { weight, bias, inputs, outputs } = this.head;
    const { data } = run.maps.at(-1);
    const places = data.length / inputs;
    const evidence = new Float32Array(outputs * places);
    const [classes, map] = [matrix(weight, inputs), matrix(data, inputs)];
    multiply(classes, map, matrix(evidence, places), outputs, places, inputs);
    return { shares: evidence.map((e) => e / places), bias, side: Math.sqrt(places) };
  }

  /** How strongly the places of a layer respond: the norm over channels. */
  strengths(run, layer, unit) {
    if (unit !== "position") throw wrong("unit", unit, ["position"]);
    const { data, side } = run.maps[layer];
    const n = side ** 2;
    const channels = data.length / n;
    const values = Float64Array.from({ length: n }, (_, place) =>
      Math.hypot(...data.subarray(place * channels, (place + 1) * channels)),
    );
    return { groups: 1, n, values };
  }

  /** Measure what value "mean" puts in: the mean maps of layers over pictures. */
  measureMeans(pictures, layers) {
    const runs = pictures.map((picture) => this.run(picture));
    for (const layer of layers) {
      const maps = runs.map((run) => run.maps[layer].data);
      this.means[layer] = maps[0].map((_, i) => {
        const sum = maps.reduce((total, map) => total + map[i], 0);
        return sum / maps.length;
      });
    }
  }

  /** `shares` [places] in 0 … 1 of the places are replaced by `value`: "zero" or "mean". */
  edit(layer, unit, shares, value) {
    return { layer, shares, mean: value === "mean" ? this.means[layer] : null };
  }
}

function takeBasicBlock(parts, name, inputs, skips) {
  const [outputs] = parts.shape(`${name}.conv1.weight`);
  const stride = outputs / inputs;
  const norm = (part) => `${name}.${part}`;
  const first = { norm: norm("bn1"), pad: 1, relu: true, stride };
  const block = {
    first: parts.convolution(`${name}.conv1`, inputs, first),
    second: parts.convolution(`${name}.conv2`, outputs, { norm: norm("bn2"), pad: 1 }),
    shortcut: skips ? "identity" : null,
  };
  const key = `${name}.downsample.0`;
  if (parts.has(`${key}.weight`))
    block.shortcut = parts.convolution(key, inputs, { norm: norm("downsample.1"), stride });
  return block;
}

function basicBlock({ first, second, shortcut }, map) {
  const out = convolve(convolve(map, first), second);
  const { data } = out;
  const added = shortcut === "identity" ? map.data : shortcut && convolve(map, shortcut).data;
  if (added) for (let i = 0; i < data.length; i++) data[i] += added[i];
  relu(data);
  return out;
}

function editMap({ shares, mean }, { data, side }) {
  const channels = data.length / shares.length;
  const changed = data.map((number, i) => {
    const share = shares[Math.floor(i / channels)];
    return number * (1 - share) + (mean ? share * mean[i] : 0);
  });
  return { data: changed, side };
}
