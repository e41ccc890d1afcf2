// Full-text search over window.NORMVIZ_INDEX: sections {u: address, p: page, t: heading, x: text}.  Every word must be there.
(() => {
  "use strict";
  const field = document.getElementById("ask"), list = document.querySelector(".results"), said = document.querySelector(".found");
  const fold = text => text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "").replace(/[‘’]/g, "'");
  const rows = window.NORMVIZ_INDEX.map(row => ({ ...row, title: fold(row.t), page: fold(row.p), text: fold(row.x) }));
  const starts = (text, word) => { // how often a word of the text begins so
    let count = 0;
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
      if (at === 0 || !/[\p{L}\p{N}_]/u.test(text[at - 1])) count += 1;
    }
    return count;
  };
  const score = (row, words) => {
    let sum = 0;
    for (const word of words) {
      const title = starts(row.title, word), text = starts(row.text, word);
      if (!title && !text && !starts(row.page, word)) return 0;
      sum += 12 * Math.min(title, 1) + 2 * starts(row.page, word) + Math.log2(1 + text);
      if (row.title === word) sum += 20;
    }
    return row.u.startsWith("glossary") ? sum * 1.2 : sum;
  };
  const excerpt = (row, words) => { // some words around the first hit, hits marked
    const at = Math.max(0, Math.min(...words.map(word => { const i = row.text.indexOf(word); return i < 0 ? Infinity : i; })));
    const from = Number.isFinite(at) ? Math.max(0, row.x.lastIndexOf(" ", Math.max(0, at - 60)) + 1) : 0;
    const piece = (from ? "… " : "") + row.x.slice(from, from + 200) + (row.x.length > from + 200 ? " …" : "");
    const out = document.createElement("p");
    const safe = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
    for (const part of piece.split(new RegExp(`(${safe})`, "i"))) {
      if (words.includes(fold(part))) { const mark = document.createElement("mark"); mark.textContent = part; out.append(mark); }
      else out.append(part);
    }
    return out;
  };
  const search = () => {
    const words = [...new Set(fold(field.value).split(/\s+/).filter(Boolean))];
    list.replaceChildren();
    if (!words.length) { said.textContent = ""; return; }
    const hits = rows.map(row => [score(row, words), row]).filter(([sum]) => sum > 0).sort((a, b) => b[0] - a[0]);
    said.textContent = hits.length ? `${hits.length} section${hits.length > 1 ? "s" : ""}${hits.length > 40 ? ", the first 40 shown" : ""}` : "Nothing found.";
    for (const [, row] of hits.slice(0, 40)) {
      const item = document.createElement("li"), link = document.createElement("a"), page = document.createElement("span");
      link.href = row.u;
      link.textContent = row.t;
      page.className = "page";
      page.textContent = row.p;
      item.append(link, " ", page, excerpt(row, words));
      list.append(item);
    }
  };
  field.value = new URLSearchParams(location.search).get("q") ?? "";
  field.addEventListener("input", search);
  field.form.addEventListener("submit", event => { event.preventDefault(); search(); });
  search();
  field.focus();
})();
