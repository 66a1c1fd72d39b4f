// Begins every Lab on a page: what was recorded is replaced by what runs.

import { h } from "./dom.js";
import { figure } from "./figure.js";
import { page } from "./page.js";
import { Session } from "./session.js";
import { parse } from "./state.js";

const base = new URL("../data/", import.meta.url);

async function known() {
  const answer = await fetch(new URL("lab.json", base));
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  return answer.json();
}

function begin(place, about) {
  const { lab: kind, state, view } = place.dataset;
  const session = new Session(view ? { ...about, first: JSON.parse(view) } : about, base);
  if (state) session.state = parse(state, session.about);
  const still = place.querySelector(".lab-still");
  const steps = place.querySelector(".lab-steps");
  still.replaceWith(kind === "page" ? page(session, steps) : figure(session, kind));
}

const places = [...document.querySelectorAll("[data-lab]")];
try {
  const about = await known();
  for (const place of places) begin(place, about);
} catch (error) {
  const sentence = `The Lab could not start (${error.message}): reload the page.`;
  for (const place of places)
    place.prepend(h("p", { class: "lab-message", role: "status" }, sentence));
}
