// Runs before the first paint: follow the system's light or dark until the reader chooses.
(function () {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  root.dataset.theme = system.matches ? "dark" : "light";
  system.addEventListener("change", () => {
    if (!root.dataset.chosen) {
      root.dataset.theme = system.matches ? "dark" : "light";
      root.dispatchEvent(new Event("theme"));
    }
  });
})();
