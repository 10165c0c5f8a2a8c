function details(card, title, value) {
  const box = make("details", "", card);
  make("summary", title, box);
  if (typeof value === "string") { make("pre", value, box); return; }
  const table = make("table", "", box);
  for (const [name, item] of Object.entries(value)) {
    const line = make("tr", "", table);
    make("td", name, line);
    make("td", typeof item === "string" ? item : JSON.stringify(item), line);
  }
}

/** A box to tick: results that are to be compared. */
function choice(parent, n) {
  const label = make("label", "", parent, { className: "choice" });
  const box = make("input", "", label, { type: "checkbox", checked: chosen.has(n) });
  label.append(" compare");
  box.onchange = () => { box.checked ? chosen.add(n) : chosen.delete(n); count(); };
  label.onclick = event => event.stopPropagation();
}

/** Everything about one result. */
function fill(card, n) {
  const row = rows[n];
  make("h2", row.id, card);
  const metrics = Object.entries(row.metrics).map(([name, value]) => `${name} ${Number(value).toPrecision(4)}`);
  const short = Object.entries(row.options).filter(([name, value]) =>
    value !== "" && typeof value !== "object" && String(value).length < 30 && !row.prompts.includes(String(value)));
  const facts = [row.status, ...(row.seed === null ? [] : [`seed ${row.seed}`]), ...metrics, ...short.map(pair => pair.join(" "))];
  make("span", facts.join(" \u00b7 "), card, { className: "facts" });
  if (row.status === "done") choice(card, n);
  for (const prompt of row.prompts) make("p", prompt, card, { className: "prompt" });
  if (row.error) make("p", `${row.kind ? row.kind + ": " : ""}${row.error}`, card, { className: "error" });
  const media = make("div", "", card, { className: "media" });
  card.player = new Player(card, row.options.fps);
  row.media.filter(item => item.type !== "file").forEach(item => figure(item, media, card.player));
  const files = row.media.filter(item => item.type === "file");
  if (files.length) {
    const line = make("div", "", card);
    for (const item of files) make("a", `${item.kind} ${item.label}`, line, { href: item.src, style: "margin-right: 12px" });
  }
  details(card, "options and provenance", { ...row.options, ...row.facts });
  if (row.traceback) details(card, "traceback", row.traceback);
  if (get("play").textContent === "pause all") card.player.play();
}

function empty(card) {
  card.style.minHeight = `${card.offsetHeight}px`;
  card.player.stop();
  card.player = null;
  card.replaceChildren();
}

// Videos are loaded when their card comes near the window and dropped when it is far away.
const watcher = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !target.player) fill(target, Number(target.dataset.row));
    if (!isIntersecting && target.player) empty(target);
  }
}, { rootMargin: "600px" });

function drawList(found) {
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  cards = found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(n => {
    const card = make("article", "", null, { className: rows[n].status });
    card.dataset.row = n;
    card.style.minHeight = rows[n].status === "done" ? "260px" : "";
    return card;
  });
  get("results").replaceChildren(...cards);
  cards.forEach(card => watcher.observe(card));
  get("page").textContent = `${page + 1} / ${pages}`;
  get("pages").hidden = pages === 1;
}
