// What a page uses: jobs as promises, in a worker or, where there is none, in the page itself.

/**
 * Begin: an object with a function for each kind of job, `close`, and `hasWorker`, a
 * promise of whether there is a worker.
 *
 * Each takes what README.md lists for it, and { signal, progress }: an AbortSignal that cancels it
 * and a function of each progress. Each returns a promise of the result.
 */
export function connect({ worker = true } = {}) {
  const pending = new Map();
  const receive = ({ id, progress, ...answer }) => {
    const job = pending.get(id);
    if (progress) return job?.progress?.(progress);
    pending.delete(id);
    if (answer.error) job?.reject(new Error(answer.error));
    else if (answer.cancelled) job?.reject(new DOMException("Cancelled.", "AbortError"));
    else job?.resolve(answer.result);
  };
  const crashed = () => {
    const error = "The Lab stopped: reload the page.";
    for (const id of [...pending.keys()]) receive({ id, error });
  };
  const line = worker ? inWorker(receive, crashed) : inPage(receive);
  let last = 0;
  const ask = (kind, asked, { signal, progress } = {}) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(new DOMException("Cancelled.", "AbortError"));
      const id = ++last;
      pending.set(id, { resolve, reject, progress });
      const failed = () => reject(new Error("The Lab could not start: reload the page."));
      line.then(({ send }) => send({ ...asked, id, kind })).catch(failed);
      const cancel = () => line.then(({ send }) => send({ id, kind: "cancel" })).catch(failed);
      signal?.addEventListener("abort", cancel, { once: true });
    });
  const kinds = ["load", "picture", "run", "ablate", "curve", "means"];
  const jobs = Object.fromEntries(kinds.map((kind) => [kind, (...args) => ask(kind, ...args)]));
  // A worker would look for weights next to itself.
  const load = async ({ url, ...asked }, options) =>
    ask("load", { ...asked, url: new URL(url, globalThis.document?.baseURI).href }, options);
  const hasWorker = line.then(
    (found) => found.worker,
    () => true, // what is wrong then, each job says
  );
  return { ...jobs, load, hasWorker, close: () => line.then(({ close }) => close()) };
}

async function inPage(receive) {
  const { Jobs } = await import("./jobs.js");
  const jobs = new Jobs(receive);
  return { worker: false, send: (message) => jobs.receive(message), close() {} };
}

function inWorker(receive, crashed) {
  return new Promise((resolve) => {
    let worker;
    try {
      worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    } catch {
      return resolve(inPage(receive));
    }
    let ready = false;
    worker.onerror = () => (ready ? crashed() : resolve(inPage(receive)));
    worker.onmessage = ({ data }) => {
      if (!data.ready) return receive(data);
      ready = true;
      const [send, close] = [(message) => worker.postMessage(message), () => worker.terminate()];
      resolve({ worker: true, send, close });
    };
  });
}
