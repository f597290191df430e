(() => {
  const rows = JSON.parse(byId("row-data").textContent), input = byId("search"), list = byId("row-list");
  const detail = byId("row-detail"), principle = byId("row-principle"), part = byId("row-part"), most = 200;
  const haystacks = rows.map((row) => [row.id, row.key, row.principle, row.split, row.kind, row.language, ...row.faults, ...Object.values(row.texts)].join("\n").toLowerCase());
  let found = [], at = -1;

  const partNames = { pairs: "pair", examples: "supervised row", prompts: "prompt" };
  const words = () => input.value.toLowerCase().split(/\s+/).filter(Boolean);

  function twelve(numbers) {
    const seen = new Map();
    return numbers.sort((one, other) => rows[one].principle.localeCompare(rows[other].principle)).filter((i) => {
      const count = (seen.get(rows[i].principle) || 0) + 1;
      seen.set(rows[i].principle, count);
      return count <= 12;
    });
  }

  function matches(i, wanted) {
    const row = rows[i], kind = part.value;
    if (principle.value && row.principle !== principle.value) return false;
    if (kind === "faults" ? !row.faults.length : kind && !row.key.startsWith(kind)) return false;
    return wanted.every((word) => haystacks[i].includes(word));
  }

  function item(i, place) {
    const row = rows[i], node = make("li"), split = row.split ? ` · ${row.split}` : "";
    node.id = `option-${place}`;
    node.setAttribute("role", "option");
    node.append(make("b", row.texts.prompt), make("span", `${row.principle}${split} · ${partNames[row.key.split("-")[0]]}${row.faults.length ? " · ▲ " + row.faults.join(", ") : ""}`, "quiet"));
    node.addEventListener("click", () => { move(place); open(i); });
    return node;
  }

  function search() {
    const wanted = words();
    let all = rows.map((_, i) => i).filter((i) => matches(i, wanted));
    const count = all.length;
    if (!wanted.length && !part.value) all = twelve(all);
    found = all.slice(0, most);
    list.replaceChildren(...found.map(item));
    const listed = found.length < count ? `, ${found.length.toLocaleString("en")} listed` : "";
    byId("row-count").textContent = `${count.toLocaleString("en")} ${count === 1 ? "row matches" : "rows match"}${listed}.`;
    at = -1;
    input.removeAttribute("aria-activedescendant");
    if (wanted.length && found.length) move(0);
  }

  function move(place) {
    if (!found.length) return;
    const before = list.children[at];
    if (before) before.setAttribute("aria-selected", "false");
    at = Math.max(0, Math.min(place, found.length - 1));
    const now = list.children[at];
    now.setAttribute("aria-selected", "true");
    input.setAttribute("aria-activedescendant", now.id);
    const top = now.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 60) list.scrollTop = Math.max(0, top - 60);
  }

  function marked(text, wanted) {
    const node = make("p", "", "text"), lower = text.toLowerCase();
    let from = 0;
    // Some letters change their length in lower case; then positions would not fit.
    while (wanted.length && lower.length === text.length) {
      const hits = wanted.map((word) => [lower.indexOf(word, from), word.length]).filter(([place]) => place >= 0);
      if (!hits.length) break;
      const [place, length] = hits.reduce((a, b) => (b[0] < a[0] ? b : a));
      node.append(text.slice(from, place), make("mark", text.slice(place, place + length)));
      from = place + length;
    }
    node.append(text.slice(from));
    return node;
  }

  function open(i) {
    const row = rows[i];
    const about = [row.principle, row.split, row.kind, row.language, row.id, ...row.faults.map((one) => `▲ ${one}`)];
    detail.replaceChildren(make("p", about.filter(Boolean).join(" · "), "quiet"));
    for (const [name, text] of Object.entries(row.texts)) {
      const side = make("div", "", `side-${name}`);
      side.append(make("h3", name), marked(text, words()));
      detail.append(side);
    }
    detail.scrollTop = 0;
  }

  function goTo() {
    const key = /^#row=(.+)$/.exec(location.hash)?.[1], i = rows.findIndex((row) => row.key === key);
    if (i < 0) return;
    open(i);
    byId("rows").scrollIntoView();
    detail.focus({ preventScroll: true });
  }

  input.addEventListener("input", search);
  principle.addEventListener("change", search);
  part.addEventListener("change", search);
  input.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) { move(at + steps[event.key]); event.preventDefault(); }
    if (event.key === "Enter" && found[at] !== undefined) open(found[at]);
    if (event.key === "Escape") { input.value = ""; search(); }
  });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
    byId("rows").scrollIntoView();
  });
  for (const name of [...new Set(rows.map((row) => row.principle))].sort()) principle.append(make("option", name));
  addEventListener("hashchange", goTo);
  search();
  goTo();
})();
