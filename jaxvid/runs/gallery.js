const PER_PAGE = 24;
const rows = JSON.parse(get("data").textContent);
const texts = rows.map(row => [row.id, row.error || "", JSON.stringify(row.options)].join(" ").toLowerCase());
const chosen = new Set();  // numbers of rows to compare
let page = 0, cards = [];

function options(select, values) {
  for (const value of values) make("option", value, select, { value });
  select.hidden = values.length < 2;
}

/** Numbers of the rows that pass all filters. */
function matching() {
  const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [clip, variant, status] = ["clip", "variant", "status"].map(id => get(id).value);
  const passes = (row, n) => (!clip || row.clip === clip) && (!variant || row.variant === variant)
    && (!status || row.status === status || row.kind === status) && words.every(word => texts[n].includes(word));
  return rows.map((_, n) => n).filter(n => passes(rows[n], n));
}

function draw() {
  const found = matching(), grid = get("view").value === "grid";
  watcher.disconnect();
  wallWatcher.disconnect();
  cards.forEach(card => card.player && card.player.stop());
  if (wall.player) wall.player.stop();
  wall.player = null;
  get("clock").replaceChildren();
  get("shown").hidden = !grid;
  get("play").textContent = "play all";
  grid ? drawGrid(found) : drawList(found);
  const failed = rows.filter(row => row.status === "failed").length;
  get("counts").textContent = `${found.length} of ${rows.length} results` + (failed ? `, ${failed} failed` : "");
}

function count() {
  get("compare").hidden = chosen.size < 1;
  get("compare").textContent = `compare ${chosen.size}`;
}

const players = () => [wall.player, (get("dialog") || {}).player, ...cards.map(card => card.player)].filter(Boolean);
function turn(by) { page += by; draw(); window.scrollTo(0, 0); }
const sorted = values => [...new Set(values)].filter(Boolean).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
options(get("clip"), sorted(rows.map(row => row.clip)));
options(get("variant"), sorted(rows.map(row => row.variant)));
options(get("file"), [...new Set(rows.flatMap(row => row.media.filter(item => item.type !== "file").map(nameOf)))]);
get("file").value = (rows.flatMap(row => row.media).filter(item => item.kind === "output" && item.type !== "file").map(nameOf))[0] || "";
for (const kind of sorted(rows.map(row => row.kind))) make("option", `failed: ${kind}`, get("status"), { value: kind });
for (const id of ["clip", "variant", "status", "view", "file"]) get(id).onchange = () => { page = 0; draw(); };
get("search").oninput = () => { page = 0; draw(); };
get("back").onclick = () => turn(-1);
get("next").onclick = () => turn(1);
get("compare").onclick = compare;
get("size").oninput = event => document.body.style.setProperty("--width", event.target.value + "px");
get("speed").onchange = event => players().forEach(player =>
  player.videos.forEach(video => { video.playbackRate = Number(event.target.value); }));
get("play").onclick = event => {
  const start = event.target.textContent === "play all";
  event.target.textContent = start ? "pause all" : "play all";
  players().forEach(player => start ? player.play() : player.pause());
};
draw();
