// The page of the search: sections of the book that hold what was asked, best first.
(() => {
  const COMMON = new Set(
    (
      "a an and are as at be by do does for from how in is it of on or that the this to what " +
      "when where which why with"
    ).split(" "),
  );
  const LISTS = /appendix_(reference|bibliography)/; // looked up by name, seldom read
  const SHOWN = 20;
  const EXCERPT = 220; // characters

  const index = new MiniSearch({
    fields: ["title", "page", "text"],
    storeFields: ["url", "title", "page", "text"],
    processTerm: (term) => {
      const word = term.toLowerCase();
      return COMMON.has(word) ? null : word;
    },
    searchOptions: {
      boost: { title: 4, page: 0.5 },
      prefix: (term) => term.length > 3,
      fuzzy: (term) => (term.length > 6 ? 0.15 : false),
      weights: { prefix: 0.4, fuzzy: 0.2 },
      boostDocument: (id, term, { url }) => (LISTS.test(url) ? 0.2 : 1),
    },
  });
  index.addAll(SECTIONS.map((section, id) => ({ id, ...section })));

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // The stretch of prose around the first word that was found, with all of them marked.
  const excerpt = (text, terms) => {
    const escaped = terms.map((term) => term.replace(/[^\p{L}\p{N}]/gu, "\\$&"));
    const found = new RegExp(`(?<![\\p{L}\\p{N}])(?:${escaped.join("|")})`, "giu");
    const first = Math.max(0, text.search(found));
    const start = first < 80 ? 0 : text.indexOf(" ", first - 80) + 1;
    const cut = text.slice(start, start + EXCERPT).replace(/\s\S*$/, "");
    const made = element("p", {}, start ? "… " : "");
    let end = 0;
    for (const match of cut.matchAll(found)) {
      made.append(cut.slice(end, match.index), element("mark", {}, match[0]));
      end = match.index + match[0].length;
    }
    made.append(cut.slice(end), start + EXCERPT < text.length ? " …" : "");
    return made;
  };

  const show = (query) => {
    const place = document.getElementById("search-results");
    const results = index.search(query).slice(0, SHOWN);
    const count = results.length === 1 ? "One section" : `${results.length || "No"} sections`;
    const said = query.trim() ? `${count} found.` : "";
    place.replaceChildren(
      element("p", { role: "status" }, said),
      element(
        "ol",
        { className: "found" },
        ...results.map((result) => {
          const link = element("a", { href: result.url }, result.title);
          const where = result.page === result.title ? [] : [element("span", {}, result.page)];
          return element("li", {}, link, ...where, excerpt(result.text, result.terms));
        }),
      ),
    );
  };

  const input = document.querySelector("main form.bd-search input");
  input.value = new URLSearchParams(location.search).get("q") ?? "";
  input.addEventListener("input", () => show(input.value));
  input.form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?q=${encodeURIComponent(input.value)}`);
    show(input.value);
  });
  show(input.value);
})();
