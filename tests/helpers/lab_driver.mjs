// Does what a test asks of the Lab's files: node lab_driver.mjs FOLDER.
//
// Reads FOLDER/request.json, a list of calls { do, … }, and writes FOLDER/answer.json, a list of
// results. Arrays of numbers are files in FOLDER on the way in, base64 on the way out. A call that
// fails gives { error }.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Removal, curve, keyedOrders, outcome } from "../../_static/lab/ablation.js";
import { topClasses } from "../../_static/lab/arithmetic.js";
import { build } from "../../_static/lab/engine.js";
import { fromPixels } from "../../_static/lab/pictures.js";
import { statistics, unlike } from "../../_static/lab/unusual.js";
import { LabError, halves } from "../../_static/lab/weights.js";

const folder = process.argv[2];
const bytes = (file) => Uint8Array.from(readFileSync(join(folder, file))).buffer;
const networks = new Map();

function network({ name, file }) {
  const key = `${name} ${file}`;
  if (!networks.has(key)) networks.set(key, build(name, bytes(file)));
  return networks.get(key);
}

function pictures({ pictures: file }) {
  const all = new Float32Array(bytes(file));
  const size = 3 * 32 * 32;
  return Array.from({ length: all.length / size }, (_, i) => all.slice(i * size, (i + 1) * size));
}

const numbers = (array) => ({
  kind: array.constructor.name,
  base64: Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64"),
});
const joined = (arrays) => Float32Array.from(arrays.flatMap((array) => Array.from(array)));

const CALLS = {
  run(call) {
    const runs = pictures(call).map((picture) => network(call).run(picture));
    const answer = { logits: numbers(joined(runs.map((run) => run.logits))) };
    answer.features = numbers(joined(runs.map((run) => run.features)));
    if (runs[0].attention) answer.attention = runs.map((run) => numbers(run.attention));
    if (runs[0].maps) {
      const evidence = runs.map((run) => network(call).evidence(run));
      answer.evidence = numbers(joined(evidence.map(({ shares }) => shares)));
      answer.bias = numbers(evidence[0].bias);
    }
    return { ...answer, layers: network(call).layers };
  },

  // What is removed of each picture by each condition, and the logits after it.
  ablate(call) {
    const chosen = network(call);
    if (call.means) chosen.measureMeans(pictures({ pictures: call.means }), call.scope.layers);
    return pictures(call).map((picture, index) => {
      const removal = new Removal(chosen.run(picture), { ...call.scope, index });
      return call.conditions.map(([order, k, draw]) => {
        const edits = removal.edits(order, k, draw);
        const logits = numbers(chosen.ablate(removal.run, edits));
        const changes = edits.map(({ shares, places }) => [shares, places].map((a) => a && numbers(a)));
        return { logits, edits: changes };
      });
    });
  },

  curve(call) {
    const run = network(call).run(pictures(call)[call.picture]);
    const steps = curve(run, call.scope, call.options);
    const seen = [];
    for (;;) {
      const { done, value } = steps.next();
      if (done) return { seen, ...value };
      seen.push(value);
    }
  },

  orders: ({ seed, index, draw, groups, n }) => numbers(keyedOrders(seed, index, draw, groups, n)),
  halves: ({ file }) => numbers(halves(new Uint16Array(bytes(file)))),
  outcome: ({ intact, ablated, label }) => outcome(intact, ablated, label),
  classes: ({ logits, count }) => topClasses(logits, count),
  pixels: ({ file, width, height }) =>
    numbers(fromPixels(new Uint8Array(bytes(file)), width, height)),
  unusual: (call) =>
    pictures(call).map((picture) => ({
      statistics: statistics(picture),
      ...unlike(picture, call.reference),
    })),
  build: (call) => network(call).name,
  picture: (call) => numbers(network(call).run(new Float32Array(call.numbers)).logits),
};

const request = JSON.parse(readFileSync(join(folder, "request.json"), "utf8"));
const answers = request.map((call) => {
  try {
    return CALLS[call.do](call);
  } catch (error) {
    if (!(error instanceof LabError)) throw error;
    return { error: error.message };
  }
});
writeFileSync(join(folder, "answer.json"), JSON.stringify(answers));
