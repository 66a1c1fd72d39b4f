// The widget manager draws sliders whose handle has no accessible name, so a screen reader says
// only "slider". Each handle and its readout get the description that stands beside them, and the
// handle says what the readout shows.
(() => {
  const name = (slider) => {
    const label = slider.querySelector(".widget-label");
    const readout = slider.querySelector(".widget-readout");
    const handles = slider.querySelectorAll("[role=slider]");
    const text = (label && label.textContent.trim()) || "slider";
    handles.forEach((handle) => handle.setAttribute("aria-label", text));
    if (!readout) return;
    readout.setAttribute("role", "textbox");
    readout.setAttribute("aria-label", `${text}: value`);
    handles.forEach((handle) => {
      if (handle.getAttribute("aria-valuetext") !== readout.textContent)
        handle.setAttribute("aria-valuetext", readout.textContent);
    });
  };
  const nameAll = () => document.querySelectorAll(".widget-slider").forEach(name);
  new MutationObserver(nameAll).observe(document.documentElement, {
    childList: true,
    subtree: true,
    characterData: true,
    attributeFilter: ["aria-valuetext"],
  });
})();
