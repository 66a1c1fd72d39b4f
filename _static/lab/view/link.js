// The page's address holds its state.

import { h, say } from "./dom.js";
import { format } from "./state.js";

/** Follow the address, and keep it up to date; the element copies it. */
export function link(session) {
  const address = () => location.hash.slice(1);
  const write = () =>
    history.replaceState(history.state, "", `#${format(session.state, session.about)}`);
  session.changed = write;
  const copied = h("span", { role: "status" });
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
  const follow = () => isState(address()) && session.follow(address());
  addEventListener("hashchange", follow);
  if (isState(address())) follow();
  else session.settle();
  return element;
}

/** Whether an address is meant as a state, and not as a place on the page. */
const isState = (address) => address !== "" && !document.getElementById(address);
