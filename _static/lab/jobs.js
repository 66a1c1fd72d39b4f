// Jobs for the networks, one step at a time: messages in, messages out (see README.md).
//
// Between two steps messages are received, so that a job can be cancelled, and short jobs do not
// wait for curves.

import { Removal, curve, outcome, largest } from "./ablation.js";
import { topClasses } from "./arithmetic.js";
import { build } from "./engine.js";
import { fromPixels } from "./pictures.js";
import { LabError } from "./weights.js";

const BREATH = 12; // milliseconds without looking for messages, at most, but for one step
const KEPT = 4; // intact passes of each network

export class Jobs {
  /** `post` takes what is answered. */
  constructor(post) {
    this.post = post;
    this.networks = new Map(); // name → { network, runs }
    this.loading = new Map(); // id → what stops it
    this.waiting = [];
    this.working = false;
  }

  receive({ id, kind, ...asked }) {
    if (kind === "cancel") this.cancel(id);
    else if (kind === "load") this.load(id, asked);
    else if (Object.hasOwn(KINDS, kind)) {
      this.waiting.push({ id, long: kind === "curve", steps: KINDS[kind](this, asked) });
      if (!this.working) this.work();
    } else this.fail(id, new LabError(`The Lab knows no job ${kind}: reload the page.`));
  }

  cancel(id) {
    this.loading.get(id)?.abort();
    const known = this.waiting.length;
    this.waiting = this.waiting.filter((job) => job.id !== id);
    if (this.waiting.length < known) this.post({ id, cancelled: true });
  }

  fail(id, error) {
    const sentence = `The Lab failed (${error.message}): reload the page.`;
    this.post({ id, error: error instanceof LabError ? error.message : sentence });
  }

  async load(id, { network: name, url, sha256 = null }) {
    const stop = new AbortController();
    this.loading.set(id, stop);
    try {
      if (!this.networks.has(name)) {
        const network = build(name, await fetched(name, url, sha256, stop.signal));
        this.networks.set(name, { network, runs: [] });
      }
      this.post({ id, result: about(this.networks.get(name).network) });
    } catch (error) {
      if (stop.signal.aborted) this.post({ id, cancelled: true });
      else this.fail(id, error);
    } finally {
      this.loading.delete(id);
    }
  }

  async work() {
    this.working = true;
    let since = performance.now();
    while (this.waiting.length) {
      this.step(this.waiting.find((job) => !job.long) ?? this.waiting[0]);
      if (performance.now() - since < BREATH) continue;
      await new Promise((resume) => setTimeout(resume));
      since = performance.now();
    }
    this.working = false;
  }

  step(job) {
    const { id } = job;
    try {
      const { done, value } = job.steps.next();
      if (!done) return this.post({ id, progress: value });
      this.post({ id, result: value });
    } catch (error) {
      this.fail(id, error);
    }
    this.waiting = this.waiting.filter((other) => other !== job);
  }

  known(name) {
    const found = this.networks.get(name);
    if (!found) throw new LabError(`The network ${name} has not been loaded: load it first.`);
    return found;
  }

  /** The intact pass of a picture, which is kept. */
  run(name, picture) {
    const { network, runs } = this.known(name);
    let run = runs.find((known) => same(known.picture, picture));
    if (!run) {
      run = network.run(picture);
      runs.unshift(Object.assign(run, { picture }));
      runs.length = Math.min(runs.length, KEPT);
    }
    return run;
  }
}

const same = (a, b) => a.length === b?.length && a.every((number, i) => number === b[i]);

const KINDS = {
  *picture(_, { pixels, width, height }) {
    return fromPixels(pixels, width, height);
  },

  *run(jobs, { network, picture }) {
    const run = jobs.run(network, picture);
    const { logits, features, attention = null } = run;
    const evidence = run.network.evidence?.(run) ?? null;
    return { logits, features, attention, evidence, classes: topClasses(logits) };
  },

  *ablate(jobs, { network, picture, scope, order, k, draw, label = null }) {
    const run = jobs.run(network, picture);
    const edits = new Removal(run, scope).edits(order, k, draw);
    const logits = run.network.ablate(run, edits);
    const asked = label ?? largest(run.logits);
    const changes = edits.map(({ shares, places = null }) => ({ shares, places }));
    return { logits, changes, classes: topClasses(logits), ...outcome(run.logits, logits, asked) };
  },

  *curve(jobs, { network, picture, scope, ...asked }) {
    return yield* curve(jobs.run(network, picture), scope, asked);
  },

  *means(jobs, { network, layers, pictures }) {
    jobs.known(network).network.measureMeans(pictures, layers);
    return layers;
  },
};

function about({ name, layers, head, heads = 0, tokens = 0, prefix = 0, side = 0 }) {
  return { name, layers, classes: head.outputs, heads, tokens, prefix, side };
}

async function fetched(name, url, sha256, signal) {
  const failed = (why) =>
    new LabError(`The weights of ${name} could not be fetched (${why}): reload the page.`);
  let buffer;
  try {
    const answer = await fetch(url, { signal });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    buffer = await answer.arrayBuffer();
  } catch (error) {
    throw failed(error.message);
  }
  // Browsers have hashes on secure pages only.
  if (sha256 && globalThis.crypto?.subtle && (await hash(buffer)) !== sha256)
    throw failed("what came is not the file that was asked for");
  return buffer;
}

async function hash(buffer) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
