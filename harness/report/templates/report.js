// SPDX-License-Identifier: GPL-2.0-only
// Conveniences only: the page says everything without this script.
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  for (const hidden of all(".enhanced")) hidden.hidden = false;

  // A link into a closed part opens it.
  function reveal() {
    let name;
    try { name = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const target = name && at(name);
    if (!target) return;
    for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) {
      box.open = true;
    }
    target.scrollIntoView({ block: target.tagName === "B" ? "center" : "start" });
  }
  addEventListener("hashchange", reveal);
  reveal();

  for (const button of all("button[data-open]")) {
    button.addEventListener("click", () => {
      for (const box of all("details")) box.open = button.dataset.open === "1";
    });
  }

  const form = at("filter");
  if (!form) return;
  const text = at("filter-text"), test = at("filter-test"), count = at("filter-count");
  const rows = Array.from(at("events").children);
  const words = rows.map((row) => row.textContent.toLowerCase());
  let timer = 0;
  function filter() {
    const wanted = text.value.trim().toLowerCase();
    const [from, to] = test.value ? test.value.split(",").map(Number) : [-Infinity, Infinity];
    rows.forEach((row, i) => {
      const second = Number(row.dataset.s);
      row.hidden = !words[i].includes(wanted) || second < from || second > to;
    });
    const seen = rows.filter((row) => getComputedStyle(row).display !== "none").length;
    count.textContent = seen + " of " + rows.length + " lines";
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", filter);
  text.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 120); });
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, select");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      text.focus();
    } else if (event.key === "Escape" && event.target === text) {
      text.value = "";
      filter();
    }
  });
  filter();
})();
