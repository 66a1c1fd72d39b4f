// The Lab's own page: everything.

import { Answers } from "./answers.js";
import { Curve } from "./curve.js";
import { h, say } from "./dom.js";
import { link } from "./link.js";
import { Asking, Attention, Evidence } from "./maps.js";
import { Picture, Sources } from "./picture.js";
import { Removal } from "./removal.js";
import { KINDS } from "./words.js";

const SIDES = Object.entries(KINDS).map(([role, name]) => ({ role, name }));

const ALWAYS = ["shown", "said", "link"]; // are open on a phone as well

const UNLIKE =
  "Unlike the pictures that the networks learned from: their answers mean little here.";

/** What both networks say. */
export function bothAnswers(session) {
  const answers = new Answers(session.about, "What both networks say, class by class", SIDES);
  const warning = h("p", { class: "lab-warning" });
  const update = (session) => {
    answers.fill(...SIDES.map(({ role }) => session.probabilities(role)));
    say(warning, session.unusual ? UNLIKE : "");
  };
  return { element: h("div", {}, answers.element, warning), update };
}

/** What is wrong, to be seen, and what the networks say, to be heard. */
export function news() {
  const message = h("p", { class: "lab-message", role: "status" });
  const spoken = h("p", { class: "lab-hidden", role: "status" });
  let later = 0;
  const update = (session) => {
    say(message, session.message);
    clearTimeout(later);
    later = setTimeout(() => say(spoken, session.spoken), 400); // not each step of a slider
  };
  return { element: h("div", { class: "lab-news" }, message, spoken), update };
}

/** The part of the page that an address is about. */
function partOf(address) {
  const asked = new URLSearchParams(address);
  return asked.has("order") ? "gone" : asked.has("patch") || asked.has("evidence") ? "looks" : "shown";
}

export function page(session, steps) {
  const picture = new Picture();
  const views = {
    news: news(),
    picture,
    sources: new Sources(session, picture),
    answers: bothAnswers(session),
    asking: new Asking(session),
    attention: new Attention(session),
    evidence: new Evidence(session),
    removal: new Removal(session),
    curve: new Curve(session),
  };
  const roomy = matchMedia("(min-width: 48rem)").matches;
  const part = (name, title, ...content) => {
    const open = roomy || ALWAYS.includes(name);
    const summary = h("summary", {}, h("h2", {}, title));
    return h("details", { class: `lab-part lab-${name}`, open }, summary, ...content);
  };
  const stage = h(
    "div",
    { class: "lab-stage" },
    views.news.element,
    part("shown", "The picture", views.picture.element, views.sources.element),
    part("said", "What they say", views.answers.element),
    part("tasks", "Six things to find", steps),
    part(
      "looks",
      "Where they look",
      h(
        "div",
        { class: "lab-maps" },
        views.asking.element,
        views.attention.element,
        views.evidence.element,
      ),
    ),
    part("gone", "Take something away", views.removal.element, views.curve.element),
    part("link", "Keep it", link(session)),
  );
  session.show(...Object.values(views));
  const open = (address) => {
    const place = stage.querySelector(`.lab-${partOf(address)}`);
    place.open = true;
    return place;
  };
  open(location.hash.slice(1));
  addEventListener("hashchange", () => open(location.hash.slice(1)));
  steps.addEventListener("click", ({ target }) => {
    const way = target.closest("a");
    if (!way) return;
    const address = way.hash.slice(1);
    if (way.hash === location.hash) session.follow(address);
    const place = open(address);
    place.querySelector("summary").focus({ preventScroll: true });
    place.scrollIntoView();
  });
  return stage;
}
