// What becomes of jobs, as JSON: node lab_queue.mjs WEIGHTS NAME. The client runs them in its own
// thread, as in a browser without workers; weights come by fetch.

import { readFileSync } from "node:fs";

import { connect } from "../../_static/lab/client.js";
import { Jobs } from "../../_static/lab/jobs.js";

const [file, network] = process.argv.slice(2);
const url = `data:application/octet-stream;base64,${readFileSync(file).toString("base64")}`;
const picture = Float32Array.from({ length: 3072 }, (_, i) => (i % 7) / 7);
const curve = { network, picture, scope: { layers: [0, 1], unit: "patch" }, orders: ["top"] };
const found = {};

/** What a promise came to. */
const outcome = (promise) =>
  promise.then(
    (result) => ({ result }),
    (error) => ({ name: error.name, error: error.message }),
  );

const lab = connect({ worker: false });
found.unloaded = await outcome(lab.run({ network, picture }));
found.missing = await outcome(lab.load({ network, url: "data:," }));
found.unreachable = await outcome(lab.load({ network, url: "no-such-scheme:weights" }));
found.otherFile = await outcome(lab.load({ network, url, sha256: "0".repeat(64) }));
found.about = await lab.load({ network, url });

const run = await lab.run({ network, picture });
found.kinds = Object.entries(run).map(([key, value]) => [key, value?.constructor?.name ?? null]);
found.shares = run.classes.map(({ probability }) => probability);
const ablated = { network, picture, scope: curve.scope, order: "top", k: 0 };
found.nothing = (await lab.ablate(ablated)).kl;
const pixels = Uint8ClampedArray.from({ length: 4 * 40 * 30 }, (_, i) => i % 251);
found.picture = (await lab.picture({ pixels, width: 40, height: 30 })).length;

// A short job overtakes a curve; a curve can be cancelled, before it begins and in the middle.
const order = [];
const whole = lab.curve(curve, { progress: ({ done }) => done === 1 && order.push("begun") });
const later = lab.curve({ ...curve, ranks: [1] });
const short = lab.run({ network, picture: picture.map((x) => 1 - x) });
whole.then(() => order.push("curve"));
later.then(() => order.push("later curve"));
short.then(() => order.push("run"));
await Promise.all([whole, later, short]);
found.order = order;
found.points = (await whole).points.top.map(({ k }) => k);

const middle = new AbortController();
let steps = 0;
const stop = ({ done }) => {
  steps = done;
  if (done === 3) middle.abort();
};
found.cancelled = await outcome(lab.curve(curve, { signal: middle.signal, progress: stop }));
found.steps = steps;
const early = new AbortController();
const waiting = lab.curve(curve, { signal: early.signal });
early.abort();
found.early = await outcome(waiting);
found.after = await outcome(lab.curve(curve, { signal: early.signal }));
const loading = new AbortController();
const slow = lab.load({ network: "resnet-d8", url }, { signal: loading.signal });
loading.abort();
found.loading = await outcome(slow);
found.still = (await lab.ablate({ ...ablated, k: 64 })).logits.every(Number.isFinite);

// The queue itself: an unknown job, a failure that is no sentence of its own.
const messages = [];
const jobs = new Jobs((message) => messages.push(message));
jobs.receive({ id: 1, kind: "dance" });
jobs.receive({ id: 2, kind: "means" });
jobs.receive({ id: 3, kind: "picture" });
jobs.receive({ id: 9, kind: "cancel" });
await new Promise((resume) => setTimeout(resume, 20));
found.messages = messages;
console.log(JSON.stringify(found));
