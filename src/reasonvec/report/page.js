// Draws the plots of the page in the page's own colours, light or dark, and follows a change of either.
// Data comes from the JSON element only; nothing here makes HTML of it.
"use strict";
(() => {
  const root = document.documentElement;
  let errors = 0;
  const note = () => { errors += 1; root.dataset.errors = String(errors); };
  root.dataset.errors = "0";
  window.addEventListener("error", note);
  window.addEventListener("unhandledrejection", note);
  document.addEventListener("securitypolicyviolation", note);

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const holders = [...document.querySelectorAll("[data-figure]")];
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // "$ink" in a colour's place stands for the CSS variable --ink; texts that look so stay as they are
  function coloured(value, isColour, style) {
    if (typeof value === "string") {
      return isColour && value.startsWith("$") ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((entry) => coloured(entry, isColour, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, entry]) => [key, coloured(entry, /color(scale)?$/.test(key), style)]),
    );
  }

  function draw(holder) {
    const style = getComputedStyle(root);
    const figure = figures[holder.dataset.figure];
    const { data, layout } = coloured(figure, false, style);
    layout.font = { ...layout.font, family: style.getPropertyValue("--sans").trim() };
    layout.autosize = true;
    holder.style.minHeight = layout.height + "px";
    holder.setAttribute("aria-label", figure.description);
    return Plotly.react(holder, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
  }

  const drawAll = () => Promise.all(holders.map(draw));

  for (const select of document.querySelectorAll("select[data-chooses]")) {
    const holder = holders.find((candidate) => candidate.dataset.figure.startsWith(select.dataset.chooses + "-"));
    select.addEventListener("change", () => { holder.dataset.figure = select.value; draw(holder); });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  // paper is white, whatever the screen is
  window.addEventListener("beforeprint", () => { root.dataset.theme = "light"; drawAll(); });
  window.addEventListener("afterprint", () => { delete root.dataset.theme; drawAll(); });

  // a link into a folded part opens it
  const openTarget = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    target?.closest("details")?.setAttribute("open", "");
    target?.scrollIntoView({ behavior: reducedMotion ? "auto" : "smooth" });
  };
  window.addEventListener("hashchange", openTarget);

  drawAll().then(() => {
    root.dataset.figures = String(holders.filter((holder) => holder.querySelector("svg.main-svg")).length);
    root.dataset.ready = "true";
  });
})();
