"use strict";
const byId = (id) => document.getElementById(id);

function make(tag, content, css) {
  const node = document.createElement(tag);
  if (content) node.textContent = content;
  if (css) node.className = css;
  return node;
}

function remember(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* private windows and some file viewers have no storage */ }
  return null;
}

(() => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => { byId("theme-name").textContent = current() === "dark" ? "Dark" : "Light"; };
  const kept = remember("cai-audit-theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    remember("cai-audit-theme", root.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  show();
})();
