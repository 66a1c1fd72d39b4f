// The reader as an observer: the pictures one by one, and how the answers compare with networks'.
// Answers stay in this browser. Without this script the pictures stand in a list.
(() => {
  const BLANK = 500; // milliseconds of grey before a picture
  const SEEN = 300; // milliseconds for which it is seen
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const percent = (share) => (Number.isNaN(share) ? "none" : `${Math.round(100 * share)} %`);

  // Of the trials in which either cue was named, the share of the shape, with Wilson's interval.
  const bias = (answers, { shape, texture }) => {
    const byShape = answers.filter((answer, i) => answer === shape[i]).length;
    const n = byShape + answers.filter((answer, i) => answer === texture[i]).length;
    const p = byShape / n;
    const z2 = 1.96 ** 2;
    const middle = (p + z2 / (2 * n)) / (1 + z2 / n);
    const half = (1.96 / (1 + z2 / n)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
    return { bias: p, low: middle - half, high: middle + half, decided: n / answers.length };
  };

  // Whether two are right in the same trials beyond their accuracies, with its standard error.
  const consistency = (a, b) => {
    const n = a.length;
    const share = (holds) => a.filter((_, i) => holds(i)).length / n;
    const [p, q] = [share((i) => a[i]), share((i) => b[i])];
    const observed = share((i) => a[i] === b[i]);
    const expected = p * q + (1 - p) * (1 - q);
    const rest = 1 - expected;
    const se = Math.sqrt((observed * (1 - observed)) / n) / rest;
    return { kappa: (observed - expected) / rest, se };
  };

  const begin = (root) => {
    const told = JSON.parse(root.dataset.trials);
    const trials = told.shape.length;
    const key = `observer ${told.shape.join("")} ${told.texture.join("")}`;
    const kept = {
      get: () => {
        try {
          const answers = JSON.parse(localStorage.getItem(key) ?? "[]");
          return Array.isArray(answers) && answers.length <= trials ? answers : [];
        } catch {
          return []; // a browser that keeps nothing
        }
      },
      set: (answers) => {
        try {
          localStorage.setItem(key, JSON.stringify(answers));
        } catch {
          // Then they last as long as the page.
        }
      },
    };
    let answers = kept.get();
    let waiting = [];

    const pictures = [...root.querySelectorAll(".to-name img")];
    const details = root.querySelector("details");
    const rows = [...details.querySelectorAll("tbody tr")];
    for (const asleep of root.querySelectorAll(".asleep")) asleep.hidden = true;

    const stay = element("input", {
      type: "checkbox",
      checked: matchMedia("(prefers-reduced-motion: reduce)").matches,
    });
    const start = element("button", { type: "button" });
    const intro = element(
      "div",
      { className: "intro" },
      start,
      element("label", {}, stay, " leave each picture in view"),
    );
    const status = element("p", { className: "status", tabIndex: -1 });
    status.setAttribute("role", "status");
    const shown = element("div", { className: "shown" });
    const buttons = [...root.querySelectorAll(".classes li")].map((item, place) => {
      const digit = (place + 1) % 10;
      const [image] = item.children;
      const button = element("button", { type: "button" }, image, `${digit} ${told.names[place]}`);
      button.addEventListener("click", () => answer(place));
      return button;
    });
    const choices = element("div", { className: "answers" }, ...buttons);
    choices.setAttribute("role", "group");
    choices.setAttribute("aria-label", "Your answer, by a button or its digit");
    const results = element("div", { className: "results" });
    root.querySelector(".classes").replaceWith(choices);
    choices.before(intro, status, shown);
    details.before(results);

    const running = () => !shown.hidden;

    const present = () => {
      waiting.forEach(clearTimeout);
      const picture = pictures[answers.length].cloneNode();
      status.textContent = `Picture ${answers.length + 1} of ${trials}`;
      shown.replaceChildren(picture);
      if (stay.checked) return;
      picture.style.visibility = "hidden";
      const see = (how) => () => {
        picture.style.visibility = how;
      };
      waiting = [setTimeout(see("visible"), BLANK), setTimeout(see("hidden"), BLANK + SEEN)];
    };

    const answer = (place) => {
      if (!running()) return;
      answers.push(place);
      kept.set(answers);
      if (answers.length < trials) present();
      else {
        finish();
        status.focus();
      }
    };

    const wait = () => {
      shown.hidden = true;
      details.hidden = true;
      intro.hidden = choices.hidden = false;
      start.textContent = answers.length ? `Go on with picture ${answers.length + 1}` : "Begin";
      status.textContent = "";
      results.replaceChildren();
    };

    const finish = () => {
      waiting.forEach(clearTimeout);
      shown.hidden = intro.hidden = choices.hidden = true;
      details.hidden = false;
      const right = (decisions) => decisions.map((each, i) => each === told.shape[i]);
      const you = right(answers);
      const all = you.every(Boolean) || !you.some(Boolean);
      const line = (name, decisions) => {
        const own = bias(decisions, told);
        const { kappa, se } = consistency(you, right(decisions));
        const cells = [
          name,
          `${percent(own.bias)} [${percent(own.low)}, ${percent(own.high)}]`,
          percent(own.decided),
          all || Number.isNaN(kappa) ? "–" : `${kappa.toFixed(2)} ± ${(1.96 * se).toFixed(2)}`,
        ];
        if (decisions === answers) cells.pop();
        return element("tr", {}, ...cells.map((text) => element("td", {}, text)));
      };
      const head = ["", "shape bias", "decided", "κ with you"];
      const table = element(
        "table",
        {},
        element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text))),
        line("you", answers),
        ...Object.entries(told.networks).map(([name, decisions]) => line(name, decisions)),
      );
      const caution = all
        ? "Your answers were all by shape, or none was, so κ has nothing to compare."
        : "Twenty trials are few: look at the intervals before the numbers.";
      const again = element("button", { type: "button" }, "Once more");
      again.addEventListener("click", () => {
        answers = [];
        kept.set(answers);
        rows.forEach((row) => row.querySelector(".you").remove());
        details.querySelector("thead .you").remove();
        wait();
        start.focus();
      });
      status.textContent = `You named ${trials} of ${trials} pictures.`;
      results.replaceChildren(
        element("div", { className: "scroll", tabIndex: 0 }, table),
        element("p", {}, caution),
        again,
      );
      const column = (row, tag, text) =>
        row.append(element(tag, { className: "you" }, text));
      column(details.querySelector("thead tr"), "th", "you");
      rows.forEach((row, i) => column(row, "td", told.names[answers[i]]));
    };

    start.addEventListener("click", () => {
      intro.hidden = true;
      shown.hidden = false;
      present();
      buttons[0].focus();
    });
    root.addEventListener("keydown", (event) => {
      const place = (Number(event.key) + 9) % 10;
      if (!/^\d$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (!running() || place >= buttons.length) return;
      event.preventDefault();
      answer(place);
    });
    if (answers.length === trials) finish();
    else wait();
  };

  document.querySelectorAll(".observer").forEach(begin);
})();
