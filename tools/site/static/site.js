// What every page does: theme, table of contents, boxes that scroll, print, replays.  A classic script: works from file://.
(() => {
  "use strict";
  const root = document.documentElement;

  // Theme ------------------------------------------------------------------------------------------------------
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.querySelector("button.theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("normviz-theme", root.dataset.theme); } catch { /* for this page alone then */ }
    name();
  });
  system.addEventListener("change", name);
  name();

  // Contents: open where they stand beside the text ---------------------------------------------------------------
  const contents = document.querySelector(".contents details");
  const wide = matchMedia("(min-width: 1100px)");
  if (contents) {
    const fit = () => { contents.open = wide.matches; };
    wide.addEventListener("change", fit);
    fit();
    const links = new Map([...contents.querySelectorAll("a")].map(a => [decodeURIComponent(a.hash.slice(1)), a]));
    const seen = new IntersectionObserver(entries => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        contents.querySelector("[aria-current]")?.removeAttribute("aria-current");
        links.get(target.id)?.setAttribute("aria-current", "location");
      }
    }, { rootMargin: "0px 0px -75% 0px" });
    for (const id of links.keys()) {
      const heading = document.getElementById(id);
      if (heading) seen.observe(heading);
    }
  }

  // Long lines scroll in a box of their own, which the keyboard must reach ------------------------------------------
  const reach = boxes => {
    const widths = boxes.map(box => [box.scrollWidth, box.clientWidth]);
    boxes.forEach((box, i) => {
      const [content, room] = widths[i];
      box.classList.toggle("fits", room > 0 && content <= room); // no room: folded away, or not laid out yet
      content > room ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
    });
  };
  const watch = new ResizeObserver(entries => reach(entries.map(({ target }) => target)));
  const scrolling = [...document.querySelectorAll(".scrolls")];
  reach(scrolling);
  scrolling.forEach(box => watch.observe(box));

  // "/" goes to the search field --------------------------------------------------------------------------------
  addEventListener("keydown", event => {
    const typing = event.target.closest("input, select, textarea, [contenteditable], [data-explorer]");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    event.preventDefault();
    (document.getElementById("ask") ?? document.querySelector(".find input")).focus();
  });

  // On paper nothing is folded --------------------------------------------------------------------------------------
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("main details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of folded) one.open = false; });

  // Replays ------------------------------------------------------------------------------------------------------
  for (const section of document.querySelectorAll("[data-replay]")) {
    const { steps, medians } = JSON.parse(section.querySelector("script").textContent);
    const slider = section.querySelector("input"), said = section.querySelector("output");
    const play = section.querySelector("button"), rects = [...section.querySelectorAll("clipPath rect")];
    const show = () => {
      const step = Number(slider.value);
      for (const rect of rects) {
        const { from, to } = rect.dataset, rest = step >= steps ? 9 : 0;
        rect.setAttribute("width", (Number(from) + ((to - from) * step) / steps + rest).toFixed(1));
      }
      const values = medians.map(([arm, loss]) => `${arm} ${loss[step - 1] === null ? "not finite" : loss[step - 1].toFixed(3)}`);
      said.textContent = `${step} of ${steps}. Median loss: ${values.join(", ")}.`;
      slider.setAttribute("aria-valuetext", `step ${said.textContent}`);
    };
    let frame = 0;
    const stop = () => {
      cancelAnimationFrame(frame);
      frame = 0;
      play.textContent = "▶ Play";
      play.setAttribute("aria-label", "Play the replay");
    };
    play.addEventListener("click", () => {
      if (frame) return stop();
      const begin = Number(slider.value) >= steps ? 1 : Number(slider.value);
      const started = performance.now();
      play.textContent = "❚❚ Pause";
      play.setAttribute("aria-label", "Pause the replay");
      const tick = now => {
        const step = Math.min(steps, Math.round(begin + ((now - started) / 6000) * steps)); // six seconds for the whole
        slider.value = Math.max(1, step);
        show();
        if (step < steps) frame = requestAnimationFrame(tick);
        else stop();
      };
      frame = requestAnimationFrame(tick);
    });
    slider.addEventListener("input", () => { if (frame) stop(); show(); });
    show();
  }
})();
