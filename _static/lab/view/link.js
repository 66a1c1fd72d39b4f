// The page's address holds its state.

import { h, say } from "./dom.js";
import { format } from "./state.js";

const PAUSE = 400; // milliseconds between two changes; Safari fails at 100 of them in 30 seconds

/** Follow the address, and keep it up to date; the element copies it. */
export function link(session) {
  let [last, later] = [-PAUSE, 0];
  const write = () => {
    last = performance.now();
    history.replaceState(history.state, "", `#${format(session.state, session.about)}`);
  };
  const copied = h("span", { role: "status" });
  session.changed = () => {
    say(copied, "");
    clearTimeout(later);
    later = setTimeout(write, last + PAUSE - performance.now());
  };
  const copy = async () => {
    write();
    const own = session.state.source.kind === "own";
    try {
      await navigator.clipboard.writeText(location.href);
      say(
        copied,
        own ? "Copied, but your picture is not in it: it never leaves this page." : "Copied.",
      );
    } catch {
      say(copied, "This browser does not let pages copy: take the address from its address bar.");
    }
  };
  const element = h(
    "p",
    { class: "lab-row" },
    h("button", { type: "button", on: { click: copy } }, "Copy link to this state"),
    copied,
  );
  addEventListener("hashchange", ({ newURL }) => {
    const asked = new URL(newURL).hash.slice(1);
    if (isState(asked)) session.follow(asked);
  });
  const opened = location.hash.slice(1);
  if (isState(opened)) session.follow(opened);
  else session.settle();
  return element;
}

/** Whether an address is meant as a state, and not as a place on the page. */
const isState = (address) => address !== "" && !document.getElementById(address);
