// For readers: one switch for all folded code, and predictions that can be made. What is chosen
// and written stays in this browser. Without this script the text stands as it is.
(() => {
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const kept = {
    get: (key) => {
      try {
        return localStorage.getItem(key);
      } catch {
        return null; // a browser that keeps nothing
      }
    },
    set: (key, value) => {
      try {
        if (value) localStorage.setItem(key, value);
        else localStorage.removeItem(key);
      } catch {
        // Then it lasts as long as the page.
      }
    },
  };

  // Solutions stay folded: they are opened one by one.
  const folds = document.querySelectorAll("div.cell:not(.tag_solution) > details");
  const header = document.querySelector(".article-header-buttons");
  if (folds.length && header) {
    const button = element(
      "button",
      { type: "button", className: "btn btn-sm all-code", title: "Open the folded code of this book" },
      element("i", { className: "fas fa-code", ariaHidden: "true" }),
      element("span", {}, " All code"),
    );
    const show = (open) => {
      button.setAttribute("aria-pressed", open);
      for (const fold of folds) fold.open = open;
    };
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-pressed") !== "true";
      kept.set("all code", open ? "open" : "");
      show(open);
    });
    button.setAttribute("aria-pressed", "false");
    if (kept.get("all code")) show(true);
    header.prepend(button);
  }

  // The answers that a box offers: a list, or short words after a colon at the end of a question.
  const offered = (box) => {
    const listed = [...box.querySelectorAll("li")].map((item) => item.textContent.trim());
    if (listed.length) return listed;
    const [, words] = box.textContent.match(/: ([^:;?.]+)\?/) ?? [];
    const answers = (words ?? "").split(/,? or |, /).map((answer) => answer.trim());
    const short = answers.every((answer) => answer && answer.split(/\s+/).length <= 4);
    return answers.length > 1 && short ? answers : [];
  };
  const outputs = [...document.querySelectorAll(".cell_output")];
  const boxes = [...document.querySelectorAll("article blockquote")].filter((box) =>
    box.querySelector("strong")?.textContent.startsWith("Predict"),
  );

  boxes.forEach((box, number) => {
    const after = (other) => box.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
    const next = boxes[number + 1];
    const result = outputs.find(
      (output) =>
        after(output) &&
        !(next && next.compareDocumentPosition(output) & Node.DOCUMENT_POSITION_FOLLOWING),
    );
    const key = `prediction ${location.pathname} ${box.textContent.trim().slice(0, 80)}`;
    const answers = offered(box);
    const text = element("textarea", { rows: 2 });
    const form = element("form", { className: "prediction" });
    if (answers.length) {
      const group = element("fieldset", {}, element("legend", {}, "Your prediction"));
      for (const answer of answers) {
        const choice = element("input", { type: "radio", name: `prediction-${number}`, value: answer });
        group.append(element("label", {}, choice, ` ${answer}`));
      }
      form.append(group, element("label", { className: "words" }, "Why? ", text));
    } else {
      form.append(element("label", { className: "words" }, "Your prediction ", text));
    }
    const said = element("p", { className: "kept", tabIndex: -1 });
    const again = element("p", { className: "predicted" });
    const change = element("button", { type: "button", className: "btn btn-sm" }, "Change");
    form.append(element("button", { className: "btn btn-sm" }, "Keep it"));

    // What comes is veiled while one thinks about it, and only then; nobody else is kept from it.
    const veil = (on) => result?.classList.toggle("veiled", on);
    form.addEventListener("input", () => veil(true));
    form.addEventListener("focusout", ({ relatedTarget }) => {
      if (!form.contains(relatedTarget)) veil(false);
    });
    const show = (prediction) => {
      form.hidden = Boolean(prediction);
      said.hidden = again.hidden = !prediction;
      if (prediction) {
        said.replaceChildren(element("strong", {}, "You predicted: "), prediction, " ", change);
        again.replaceChildren(element("strong", {}, "You predicted: "), prediction);
      }
      veil(false);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = form.querySelector(":checked")?.value;
      const prediction = [chosen, text.value.trim()].filter(Boolean).join(": ");
      if (!prediction) return;
      kept.set(key, prediction);
      show(prediction);
      said.focus();
    });
    change.addEventListener("click", () => {
      kept.set(key, "");
      show(null);
      form.querySelector("input, textarea").focus();
    });
    box.append(form, said);
    result?.before(again);
    show(kept.get(key));
  });
})();
