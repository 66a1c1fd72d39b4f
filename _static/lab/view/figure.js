// The Lab inside a chapter: one figure of it.

import { h } from "./dom.js";
import { Asking, Attention } from "./maps.js";
import { bothAnswers, news } from "./page.js";
import { Choice, Picture } from "./picture.js";
import { Removal } from "./removal.js";
import { format } from "./state.js";

const KINDS = {
  teaser: (session) => [
    new Asking(session, null),
    new Choice(session),
    bothAnswers(session),
    new Attention(session),
  ],
  both: (session) => [new Picture(), bothAnswers(session), new Choice(session)],
  attention: (session) => [new Asking(session), new Attention(session)],
  ablation: (session) => [new Removal(session)],
};

/** The figure of a kind, with a way to the same state in the Lab. */
export function figure(session, kind) {
  const page = new URL("../../../chapters/lab.html", import.meta.url);
  const more = h("a", {}, "Go on in the Lab");
  const way = {
    element: h("p", { class: "lab-row" }, more),
    update: () => (more.href = `${page}#${format(session.state, session.about)}`),
  };
  const views = [news(), ...KINDS[kind](session), way];
  session.show(...views);
  session.settle();
  const parts = views.slice(1, -1).map(({ element }) => element);
  const body = h("div", { class: `lab-kind lab-kind-${kind}` }, ...parts);
  return h("div", { class: "lab-stage" }, views[0].element, body, way.element);
}
