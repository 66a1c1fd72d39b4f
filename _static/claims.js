// The claims by verdict, source and rung. Without this script all of them are shown.
(() => {
  const cards = [...document.querySelectorAll(".claim-card")];
  const filters = { verdicts: "Verdict", sources: "Claimed by", rungs: "Images" };
  const status = document.createElement("p");
  status.setAttribute("role", "status");
  const form = document.createElement("form");
  form.className = "claim-filter";

  const chosen = {};
  const show = () => {
    // Verdict and rung have to be those of one line of a card.
    const fits = (card) => {
      const lists = Object.fromEntries(
        Object.keys(filters).map((key) => [key, card.dataset[key].split("|")]),
      );
      const source = !chosen.sources || lists.sources.includes(chosen.sources);
      const line = lists.rungs.some(
        (rung, place) =>
          (!chosen.rungs || rung === chosen.rungs) &&
          (!chosen.verdicts || lists.verdicts[place] === chosen.verdicts),
      );
      return source && line;
    };
    for (const card of cards) card.hidden = !fits(card);
    const shown = cards.filter((card) => !card.hidden).length;
    status.textContent = `${shown} of ${cards.length} claims`;
  };

  for (const [key, name] of Object.entries(filters)) {
    const values = new Set(cards.flatMap((card) => card.dataset[key].split("|")));
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...[...values].map((value) => new Option(value)));
    select.addEventListener("change", () => {
      chosen[key] = select.value;
      show();
    });
    const label = document.createElement("label");
    label.append(`${name} `, select);
    form.append(label);
  }
  form.append(status);
  cards[0].before(form);
  show();

  // A link to a card that the filter hides shows all of them again.
  const reveal = () => {
    const card = cards.find((each) => `#${each.id}` === location.hash);
    if (!card) return;
    if (card.hidden) {
      form.reset();
      for (const key of Object.keys(chosen)) delete chosen[key];
      show();
    }
    card.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);
  reveal();
})();
