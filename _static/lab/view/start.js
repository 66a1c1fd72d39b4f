// Begins every Lab on a page as the reader comes near; nothing of it is loaded before.

const NEAR = "100% 0px"; // a screen above and below

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      import("./begin.js").then(({ begin }) => begin(target));
    }
  },
  { rootMargin: NEAR },
);
for (const place of document.querySelectorAll("[data-lab]")) observer.observe(place);
