// Unfolds what a link leads to and what is printed, and keeps the contents in step with the page.
"use strict";
(() => {
  const WIDE = matchMedia("(min-width: 68rem)"); // where style.css puts the contents at the side
  const contents = document.querySelector("nav details");
  const folds = [...document.querySelectorAll("main > section > details")];

  // -- links ---------------------------------------------------------------------------------------------------

  function lead(hash) {
    const target = document.getElementById(decodeURIComponent(hash.slice(1)));
    if (!target) return;
    const fold = target.querySelector(":scope > details") || target.closest("details");
    if (fold) fold.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", () => lead(location.hash));
  if (location.hash) lead(location.hash);

  // -- contents ------------------------------------------------------------------------------------------------

  function follow() {
    const links = [...contents.querySelectorAll("a")];
    const settle = () => { contents.open = WIDE.matches; };
    settle();
    WIDE.addEventListener("change", settle);
    links.forEach((link) => link.addEventListener("click", () => {
      settle();
      if (link.hash === location.hash) lead(link.hash); // the browser tells of a new address only
    }));

    const all = contents.querySelector(".all");
    const name = () => { all.textContent = folds.every((fold) => fold.open) ? "Fold all" : "Unfold all"; };
    all.hidden = false;
    all.addEventListener("click", () => {
      const wanted = !folds.every((fold) => fold.open);
      folds.forEach((fold) => { fold.open = wanted; });
    });
    folds.forEach((fold) => fold.addEventListener("toggle", name));
    name();

    // the section at the top third of the window is the one that is read
    const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
      const link = links.find((one) => one.hash === `#${entry.target.id}`);
      if (entry.isIntersecting) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }), { rootMargin: "-33% 0px -66% 0px" });
    folds.forEach((fold) => seen.observe(fold.parentElement));
  }
  if (contents) follow();

  // -- paper ---------------------------------------------------------------------------------------------------

  let unfolded = []; // for paper, and to be folded again
  function paper(on) {
    if (on) unfolded = unfolded.concat([...document.querySelectorAll("main details:not([open])")]);
    unfolded.forEach((fold) => { fold.open = on; });
    if (!on) unfolded = [];
  }
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
})();
