// Runs before the page is drawn: the reader's choice of light or dark, if there is one, else the system's.
(() => {
  try {
    const chosen = localStorage.getItem("normviz-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* a browser that keeps nothing for pages on a disk */ }
  document.documentElement.classList.add("js");
})();
