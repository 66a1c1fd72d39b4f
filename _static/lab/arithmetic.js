// What networks are made of. Rows of a matrix are tokens or places, its columns channels; what is
// stored is in single precision, as in PyTorch, and sums are in double.

const LAYER_EPS = 1e-6; // of layer normalisation, as in timm

/** Rows of a matrix that lie `step` numbers apart, the first at `start`. */
export const matrix = (data, step, start = 0) => ({ data, step, start });

/**
 * y[r, o] = Σ x[r, i] · w[o, i] + bias[o], added to y if `add`.
 *
 * Four rows and two outputs at a time, so that the sums stay in registers.
 */
export function multiply(x, w, y, rows, outputs, inputs, bias = null, add = false) {
  const Y = y.data;
  for (let row = 0; row < rows; row += 4) {
    for (let output = 0; output < outputs; output += 2) {
      const [high, wide] = [Math.min(4, rows - row), Math.min(2, outputs - output)];
      const a = x.start + row * x.step;
      const u = w.start + output * w.step;
      if (high === 4 && wide === 2) sumEight(x.data, a, x.step, w.data, u, w.step, inputs);
      else sumFew(x, a, high, w, u, wide, inputs);
      for (let i = 0; i < high; i++)
        for (let j = 0; j < wide; j++) {
          const at = y.start + (row + i) * y.step + output + j;
          Y[at] = SUMS[2 * i + j] + (bias === null ? 0 : bias[output + j]) + (add ? Y[at] : 0);
        }
    }
  }
}
const SUMS = new Float64Array(8);

function sumEight(x, a, xStep, w, u, wStep, inputs) {
  const [b, c, d, v] = [a + xStep, a + 2 * xStep, a + 3 * xStep, u + wStep];
  let [au, av, bu, bv, cu, cv, du, dv] = [0, 0, 0, 0, 0, 0, 0, 0];
  for (let i = 0; i < inputs; i++) {
    const p = w[u + i];
    const q = w[v + i];
    au += x[a + i] * p;
    av += x[a + i] * q;
    bu += x[b + i] * p;
    bv += x[b + i] * q;
    cu += x[c + i] * p;
    cv += x[c + i] * q;
    du += x[d + i] * p;
    dv += x[d + i] * q;
  }
  SUMS[0] = au;
  SUMS[1] = av;
  SUMS[2] = bu;
  SUMS[3] = bv;
  SUMS[4] = cu;
  SUMS[5] = cv;
  SUMS[6] = du;
  SUMS[7] = dv;
}

function sumFew(x, a, rows, w, u, outputs, inputs) {
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < outputs; j++) {
      const [from, by] = [a + i * x.step, u + j * w.step];
      let sum = 0;
      for (let k = 0; k < inputs; k++) sum += x.data[from + k] * w.data[by + k];
      SUMS[2 * i + j] = sum;
    }
}

/** Rows x [rows, inputs] through a layer, into y [rows, outputs]. */
export function linear(x, layer, rows, y = new Float32Array(rows * layer.outputs), add = false) {
  const { weight, bias, inputs, outputs } = layer;
  const [from, by, to] = [matrix(x, inputs), matrix(weight, inputs), matrix(y, outputs)];
  multiply(from, by, to, rows, outputs, inputs, bias, add);
  return y;
}

/** The first rows of x, each brought to mean 0 and variance 1, then scaled and shifted. */
export function layerNorm(x, { weight, bias }, rows) {
  const width = weight.length;
  const y = new Float32Array(rows * width);
  for (let start = 0; start < y.length; start += width) {
    let mean = 0;
    let variance = 0;
    for (let i = 0; i < width; i++) mean += x[start + i] / width;
    for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(variance + LAYER_EPS);
    for (let i = 0; i < width; i++)
      y[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
  }
  return y;
}

export function relu(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
}

/** x · Φ(x), by the Chebyshev fit of the complementary error function in Numerical Recipes. */
export function gelu(x) {
  for (let i = 0; i < x.length; i++) {
    const z = Math.abs(x[i]) * Math.SQRT1_2;
    const t = 1 / (1 + z / 2);
    const tail = (t * Math.exp(fitted(t) - z * z)) / 2; // Φ(−|x|), to 1.2e-7 of itself
    x[i] *= x[i] > 0 ? 1 - tail : tail;
  }
}
const fitted = (t) =>
  -1.26551223 +
  t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807 +
  t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));

/** A map { data [places, channels], side } through a convolution. */
export function convolve({ data, side }, layer) {
  const { inputs, outputs, size, pad, stride } = layer;
  const out = Math.floor((side + 2 * pad - size) / stride) + 1;
  const y = new Float32Array(out * out * outputs);
  const each = size * size * inputs;
  const patches = new Float32Array(out * each); // what one row of the output sees
  for (let row = 0; row < out; row++) {
    gather(data, side, layer, row, patches);
    const to = matrix(y, outputs, row * out * outputs);
    multiply(matrix(patches, each), matrix(layer.weight, each), to, out, outputs, each, layer.bias);
  }
  if (layer.relu) relu(y);
  return { data: y, side: out };
}

function gather(data, side, { inputs, size, pad, stride }, row, patches) {
  let to = 0;
  const end = patches.length / (size * size * inputs);
  for (let column = 0; column < end; column++)
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++) {
        const y = row * stride + i - pad;
        const x = column * stride + j - pad;
        const inside = y >= 0 && y < side && x >= 0 && x < side;
        const from = (y * side + x) * inputs;
        for (let c = 0; c < inputs; c++) patches[to++] = inside ? data[from + c] : 0;
      }
}

/** Logits or attention scores to shares, in place: rows of `length`. */
export function softmax(x, length = x.length, scale = 1) {
  for (let start = 0; start < x.length; start += length) {
    let most = -Infinity;
    let sum = 0;
    for (let i = start; i < start + length; i++) most = Math.max(most, x[i] * scale);
    for (let i = start; i < start + length; i++) sum += x[i] = Math.exp(x[i] * scale - most);
    for (let i = start; i < start + length; i++) x[i] /= sum;
  }
  return x;
}

/** The classes from the most probable on: { label, probability }. */
export function topClasses(logits, count = logits.length) {
  const probabilities = softmax(Float64Array.from(logits));
  const labels = Array.from(probabilities.keys());
  labels.sort((a, b) => probabilities[b] - probabilities[a]);
  return labels.slice(0, count).map((label) => ({ label, probability: probabilities[label] }));
}
