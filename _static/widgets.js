// Mends what the widgets' html-manager leaves open. Loaded before it.
(() => {
  // It asks MathJax 2 to typeset descriptions, and stops with an error where it finds MathJax 3.
  window.addEventListener("load", () => {
    const { MathJax } = window;
    if (!MathJax || MathJax.Hub) return;
    const typeset = (element) =>
      MathJax.startup.promise.then(() => MathJax.typesetPromise([element]));
    MathJax.Hub = { Queue: ([, , element]) => typeset(element) };
  });

  // The handles of its sliders have no accessible name, so a screen reader says only "slider".
  // Each handle gets the description beside it, and its value is what the readout says.
  const name = (slider) => {
    const label = slider.querySelector(".widget-label");
    const readout = slider.querySelector(".widget-readout");
    const text = (label && label.textContent.trim()) || "slider";
    if (label && label.title === "null") label.removeAttribute("title"); // it shows as a tooltip
    slider.querySelectorAll("[role=slider]").forEach((handle) => {
      handle.setAttribute("aria-label", text);
      if (readout && handle.getAttribute("aria-valuetext") !== readout.textContent)
        handle.setAttribute("aria-valuetext", readout.textContent);
    });
    if (readout && readout.isContentEditable) {
      readout.setAttribute("role", "textbox");
      readout.setAttribute("aria-label", `${text}: value`);
    }
  };
  const nameAll = () => document.querySelectorAll(".widget-slider").forEach(name);
  new MutationObserver(nameAll).observe(document.documentElement, {
    childList: true,
    subtree: true,
    characterData: true,
    attributeFilter: ["aria-valuetext"],
  });
})();
