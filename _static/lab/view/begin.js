// What was recorded is replaced by what runs.

import { h } from "./dom.js";
import { figure } from "./figure.js";
import { page } from "./page.js";
import { Session } from "./session.js";
import { parse } from "./state.js";

const base = new URL("../data/", import.meta.url);
let known = null;

async function fetched() {
  const answer = await fetch(new URL("lab.json", base));
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  return answer.json();
}

/** Put the Lab, or a figure of it, into a place. */
export async function begin(place) {
  const { lab: kind, state, view } = place.dataset;
  try {
    const about = await (known ??= fetched());
    const session = new Session(view ? { ...about, first: JSON.parse(view) } : about, base);
    if (state) session.state = parse(state, session.about);
    const steps = place.querySelector(".lab-steps");
    const live = kind === "page" ? page(session, steps) : figure(session, kind);
    place.querySelector(".lab-still").replaceWith(live);
  } catch (error) {
    const sentence = `The Lab could not start (${error.message}): reload the page.`;
    place.prepend(h("p", { class: "lab-message", role: "status" }, sentence));
  }
}
