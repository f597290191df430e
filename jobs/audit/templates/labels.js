(() => {
  const pairs = JSON.parse(byId("label-data").textContent), list = byId("label-list");
  if (!list) return;
  const answers = new Array(pairs.length).fill(null), buttons = [];
  let open = 0;

  function kappa(both) {
    // Cohen 1960, over the pairs the reader decided: two raters, two labels.
    const n = both.length, agree = both.filter(([mine, label]) => mine === label).length / n;
    const share = (place) => both.filter((one) => one[place] === "A").length / n;
    const chance = share(0) * share(1) + (1 - share(0)) * (1 - share(1));
    return chance === 1 ? null : (agree - chance) / (1 - chance);
  }

  function score() {
    const given = answers.filter(Boolean).length, ties = answers.filter((one) => one === "tie").length;
    const both = answers.map((mine, i) => [mine, pairs[i].label]).filter(([mine]) => mine === "A" || mine === "B");
    const agreed = both.filter(([mine, label]) => mine === label).length, k = both.length ? kappa(both) : null;
    return { answered: given, of: pairs.length, ties, decided: both.length, agreed, kappa: k };
  }

  function show() {
    const s = score();
    let line = `${s.answered} of ${s.of} answered.`;
    if (s.decided) line += ` You agree with the data on ${s.agreed} of ${s.decided} (${(100 * s.agreed / s.decided).toFixed(0)} %), ${s.ties} ties; Cohen's κ ${s.kappa === null ? "not defined yet" : s.kappa.toFixed(2)}.`;
    byId("label-score").textContent = line;
  }

  function answer(i, choice) {
    answers[i] = choice;
    buttons[i].forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.choice === choice)));
    const told = buttons[i][0].parentNode.querySelector(".told");
    told.textContent = choice === pairs[i].label ? "The data says the same." : `The data chose ${pairs[i].label}.`;
    show();
    if (i + 1 === open) more();
  }

  function card(pair, i) {
    const box = make("article", "", "card");
    box.tabIndex = 0;
    box.setAttribute("aria-label", `Pair ${i + 1} of ${pairs.length}`);
    box.append(make("p", `Pair ${i + 1} of ${pairs.length} · ${pair.principle}`, "quiet"), make("p", pair.prompt, "text"));
    const sides = make("div", "", "sides"), choices = make("div", "", "choices");
    for (const [name, text] of [["A", pair.a], ["B", pair.b]]) {
      const side = make("div");
      side.append(make("b", `Answer ${name}`), make("p", text, "text"));
      sides.append(side);
    }
    buttons[i] = [["A", "A is better"], ["B", "B is better"], ["tie", "Tie"]].map(([choice, label]) => {
      const button = make("button", label, "quiet-button");
      button.type = "button";
      button.dataset.choice = choice;
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => answer(i, choice));
      return button;
    });
    choices.append(...buttons[i], make("span", "", "told quiet"));
    box.addEventListener("keydown", (event) => {
      const choice = { a: "A", b: "B", t: "tie" }[event.key.toLowerCase()];
      if (choice && !event.ctrlKey && !event.metaKey && !event.altKey) answer(i, choice);
    });
    box.append(sides, choices);
    return box;
  }

  function more() {
    if (open < pairs.length) { list.append(card(pairs[open], open)); open += 1; }
    byId("label-more").hidden = open >= pairs.length;
  }

  byId("label-more").addEventListener("click", more);
  byId("label-export").addEventListener("click", () => {
    const rows = pairs.map((pair, i) => ({ id: pair.id, answer: answers[i], label: pair.label }));
    const blob = new Blob([JSON.stringify({ ...score(), rows }, null, 2)], { type: "application/json" });
    const link = make("a");
    link.href = URL.createObjectURL(blob);
    link.download = "label-audit.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  more();
})();
