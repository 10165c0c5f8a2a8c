const wall = { player: null };  // of the grid: one clock for all that is in sight

/** The file of a result that the grid shows: the one asked for, else the first video or picture. */
function pictured(row) {
  const media = row.media.filter(item => item.type !== "file");
  return media.find(item => nameOf(item) === get("file").value) || media.find(item => item.kind === "output") || media[0];
}
const nameOf = item => `${item.kind} ${item.label}`;

function fillCell(cell) {
  const n = Number(cell.dataset.row), row = rows[n], item = pictured(row);
  cell.filled = true;
  if (row.status === "failed") { make("p", `${row.kind || "failed"}: ${row.error}`, cell, { className: "error" }); return; }
  if (item) figure(item, cell, wall.player);
  choice(cell, n);
}

function emptyCell(cell) {
  cell.style.minHeight = `${cell.offsetHeight}px`;
  cell.querySelectorAll("video").forEach(video => wall.player.remove(video));
  cell.filled = false;
  cell.replaceChildren();
}

const wallWatcher = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !target.filled) fillCell(target);
    if (!isIntersecting && target.filled) emptyCell(target);
  }
}, { rootMargin: "200px" });

/** One line for each clip, one column for each variant. */
function drawGrid(found) {
  const clips = [...new Set(found.map(n => rows[n].clip))], variants = [...new Set(found.map(n => rows[n].variant))].sort();
  const places = new Map();
  for (const n of found) {
    const key = JSON.stringify([rows[n].clip, rows[n].variant]);
    places.set(key, [...(places.get(key) || []), n]);
  }
  const table = make("table", "", null, { className: "grid" });
  const head = make("tr", "", make("thead", "", table));
  make("th", "", head);
  variants.forEach(variant => make("th", variant, head));
  const body = make("tbody", "", table);
  cards = [];
  for (const clip of clips) {
    const line = make("tr", "", body);
    make("th", clip, line);
    for (const variant of variants) {
      const place = make("td", "", line);
      for (const n of places.get(JSON.stringify([clip, variant])) || []) cards.push(cellOf(place, n));
      if (!place.children.length) make("div", "", place, { className: "cell absent" });
    }
  }
  wall.player = new Player(get("clock"), rows.length ? rows[0].options.fps : 10);
  get("results").replaceChildren(table);
  get("pages").hidden = true;
  cards.forEach(cell => wallWatcher.observe(cell));
}

function cellOf(place, n) {
  const cell = make("div", "", place, { className: `cell ${rows[n].status}`, title: rows[n].id });
  cell.dataset.row = n;
  cell.onclick = event => { if (!["A", "INPUT", "LABEL"].includes(event.target.tagName)) inspect(n); };
  return cell;
}

function openDialog() {
  closeDialog();
  const dialog = make("dialog", "", document.body, { id: "dialog", onclose: closeDialog });
  make("button", "close", make("div", "", dialog), { onclick: closeDialog });
  dialog.showModal();
  return dialog;
}

function closeDialog() {
  const dialog = get("dialog");
  if (!dialog) return;
  if (dialog.player) dialog.player.stop();
  dialog.onclose = null;
  dialog.remove();
}

/** All about one result, above the grid. */
function inspect(n) {
  const dialog = openDialog(), card = make("article", "", dialog, { className: rows[n].status });
  fill(card, n);
  dialog.player = card.player;
}

/** The results that were ticked, on one clock: side by side, or two upon each other with a border. */
function compare() {
  const dialog = openDialog(), picked = [...chosen].map(n => rows[n]);
  const names = [...new Set(picked.flatMap(row => row.media.filter(item => item.type !== "file").map(nameOf)))];
  const bar = make("div", "", dialog, { className: "bar" });
  const file = make("select", "", bar, { ariaLabel: "file" });
  ["all files", ...names].forEach(name => make("option", name, file));
  file.value = names.includes(get("file").value) ? get("file").value : names.find(name => name.startsWith("output")) || "all files";
  const wipe = make("input", "", make("label", "one upon the other ", bar), { type: "checkbox" });
  const cut = make("input", "", bar, { type: "range", min: 0, max: 100, value: 50, ariaLabel: "border" });
  const space = make("div", "", dialog);
  const draw = () => {
    const shown = picked.map(row => row.media.filter(item => item.type !== "file" && (file.value === "all files" || nameOf(item) === file.value)));
    const two = picked.length === 2 && shown.every(items => items.length === 1);
    wipe.disabled = !two;
    cut.hidden = !(two && wipe.checked);
    if (dialog.player) dialog.player.stop();
    space.replaceChildren();
    dialog.player = new Player(space, picked[0].options.fps);
    const media = make("div", "", space, { className: two && wipe.checked ? "wipe" : "media" });
    picked.forEach((row, i) => shown[i].forEach(item => {
      const box = figure(item, media, dialog.player);
      box.prepend(make("h2", row.id));
    }));
    cut.oninput = () => media.style.setProperty("--cut", `${cut.value}%`);
  };
  file.onchange = wipe.onchange = draw;
  draw();
}
