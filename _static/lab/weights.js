// Weights as files: from the bytes of a safetensors file to the parts of a network.

const BATCH_EPS = 1e-5; // of batch normalisation, as in PyTorch
const LONGEST_HEADER = 1e8; // bytes, as in the safetensors library

/** What a reader can be told: its message is one sentence. */
export class LabError extends Error {}

/** The error for weights that cannot be used. */
export const broken = (name, why) =>
  new LabError(
    `The weights of ${name} cannot be used (${why}): reload the page to fetch them again.`,
  );

/** The error for a word that is none of those known. */
export const wrong = (what, given, known) =>
  new LabError(`There is no ${what} ${given} here: choose one of ${known.join(", ")}.`);

/** Half-precision numbers, given as their bits, in single precision: exact. */
export function halves(bits) {
  const words = new Uint32Array(bits.length);
  const numbers = new Float32Array(words.buffer);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] & 0x8000) << 16;
    const exponent = (bits[i] >> 10) & 31;
    const fraction = bits[i] & 1023;
    if (exponent === 0) numbers[i] = (sign ? -1 : 1) * fraction * 2 ** -24;
    else words[i] = sign | ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
  }
  return numbers;
}

const KINDS = {
  F16: { size: 2, decode: (bytes) => halves(new Uint16Array(bytes)) },
  F32: { size: 4, decode: (bytes) => new Float32Array(bytes) },
};

/** The tensors of a safetensors file, name → { shape, data }; counters are left out. */
export function readWeights(buffer, name) {
  const { entries, start } = readHeader(buffer, name);
  const tensors = new Map();
  let end = start;
  for (const [key, { dtype, shape, data_offsets: offsets }] of entries) {
    const [from, to] = offsets.map((offset) => start + offset);
    end = Math.max(end, to);
    if (to > buffer.byteLength) throw broken(name, "the file ends too early");
    if (key.endsWith("num_batches_tracked")) continue;
    const kind = KINDS[dtype];
    if (!kind) throw broken(name, `${key} is of the kind ${dtype}, not F16 or F32`);
    if (to - from !== kind.size * product(shape)) throw broken(name, `${key} is not of its shape`);
    const data = kind.decode(buffer.slice(from, to));
    if (!data.every(Number.isFinite)) throw broken(name, `${key} holds what is no number`);
    tensors.set(key, { shape, data });
  }
  if (end !== buffer.byteLength) throw broken(name, "the file goes on behind its last tensor");
  return tensors;
}

function readHeader(buffer, name) {
  const size = buffer.byteLength < 8 ? NaN : Number(new DataView(buffer).getBigUint64(0, true));
  if (!(size < LONGEST_HEADER)) throw broken(name, "it is no safetensors file");
  if (size > buffer.byteLength - 8) throw broken(name, "the file ends too early");
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, size));
    const entries = Object.entries(JSON.parse(text)).filter(([key]) => key !== "__metadata__");
    if (entries.every(([, entry]) => isTensor(entry))) return { entries, start: 8 + size };
  } catch {
    // Said below.
  }
  throw broken(name, "its list of tensors is damaged");
}

function isTensor(entry) {
  const whole = (list) => Array.isArray(list) && list.every((n) => Number.isInteger(n) && n >= 0);
  const { dtype, shape, data_offsets: offsets } = entry ?? {};
  if (typeof dtype !== "string" || !whole(shape) || !whole(offsets)) return false;
  return offsets.length === 2 && offsets[0] <= offsets[1];
}

const product = (lengths) => lengths.reduce((all, length) => all * length, 1);

/** [outer, channels, places] → [outer, places, channels]. */
export function channelsLast(data, outer, channels) {
  const places = data.length / outer / channels;
  const turned = new Float32Array(data.length);
  for (let o = 0, i = 0; o < outer; o++)
    for (let c = 0; c < channels; c++)
      for (let p = 0; p < places; p++) turned[(o * places + p) * channels + c] = data[i++];
  return turned;
}

/** Hands out tensors by name, once their shapes are as they must be. */
export class Parts {
  constructor(name, tensors) {
    this.name = name;
    this.tensors = new Map(tensors);
  }

  has(key) {
    return this.tensors.has(key);
  }

  shape(key) {
    if (!this.has(key)) throw broken(this.name, `${key} is missing`);
    return this.tensors.get(key).shape;
  }

  /** The numbers of a tensor of that shape; null stands for any length. */
  take(key, ...lengths) {
    const shape = this.shape(key);
    const fits = shape.length === lengths.length && shape.every((n, i) => n === (lengths[i] ?? n));
    if (!fits) throw broken(this.name, `${key} is of another shape, ${shape.join(" × ")}`);
    const { data } = this.tensors.get(key);
    this.tensors.delete(key);
    return data;
  }

  /** Weight [outputs, inputs] and bias [outputs]. */
  linear(key, inputs, outputs = null) {
    const weight = this.take(`${key}.weight`, outputs, inputs);
    outputs = weight.length / inputs;
    return { weight, bias: this.take(`${key}.bias`, outputs), inputs, outputs };
  }

  norm(key, width) {
    return { weight: this.take(`${key}.weight`, width), bias: this.take(`${key}.bias`, width) };
  }

  /** A convolution, channels last, with the batch normalisation behind it folded into it. */
  convolution(key, inputs, options) {
    const { norm = null, ...rest } = options;
    const [outputs, , size] = this.shape(`${key}.weight`);
    const planar = this.take(`${key}.weight`, null, inputs, size, size);
    const weight = channelsLast(planar, outputs, inputs);
    const layer = { inputs, outputs, size, pad: 0, stride: 1, relu: false, ...rest };
    if (norm === null) return { ...layer, weight, bias: this.take(`${key}.bias`, outputs) };
    const [gain, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(
      (part) => this.take(`${norm}.${part}`, outputs),
    );
    const scale = Array.from(variance, (v, o) => gain[o] / Math.sqrt(v + BATCH_EPS));
    const each = weight.length / outputs;
    return {
      ...layer,
      weight: weight.map((w, i) => w * scale[Math.floor(i / each)]),
      bias: shift.map((b, o) => b - mean[o] * scale[o]),
    };
  }

  /** To be called at the end: what no layer has asked for is of another network. */
  finish() {
    const [left] = this.tensors.keys();
    if (left) throw broken(this.name, `${left} has no place in this network`);
  }
}

/** The names of numbered parts: name.0, name.1, … for as long as they have that ending. */
export function numbered(parts, name, ending) {
  let count = 0;
  while (parts.has(`${name}.${count}.${ending}`)) count++;
  return Array.from({ length: count }, (_, i) => `${name}.${i}`);
}
