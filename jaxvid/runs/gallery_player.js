"use strict";
const DRIFT = 0.08;  // seconds that videos may be apart
const get = id => document.getElementById(id);

// Text only ever enters through textContent, so nothing in a manifest can become markup.
function make(tag, text = "", parent = null, attributes = {}) {
  const node = Object.assign(document.createElement(tag), attributes);
  if (text !== "") node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

/** Videos that play, stop and step together, on the clock of the longest one. */
class Player {
  constructor(parent, fps) {
    this.videos = [];
    this.frame = 1 / (fps || 10);
    this.playing = false;
    this.bar = make("div", "", parent, { className: "bar", hidden: true });
    this.button = make("button", "play", this.bar, { onclick: () => this.toggle() });
    make("button", "\u2039", this.bar, { title: "one frame back", onclick: () => this.step(-1) });
    make("button", "\u203a", this.bar, { title: "one frame on", onclick: () => this.step(1) });
    this.slider = make("input", "", this.bar,
      { type: "range", min: 0, max: 1, step: 0.0001, value: 0, ariaLabel: "time" });
    this.slider.oninput = () => {
      const time = this.slider.value * this.length();  // before the pause, which moves the slider
      this.pause();
      this.seek(time);
    };
    this.clock = make("output", "", this.bar);
  }
  add(video) {
    const time = this.videos.length ? this.master().currentTime : 0;
    this.videos.push(video);
    this.bar.hidden = false;
    video.addEventListener("loadedmetadata", () => {
      if (time) video.currentTime = Math.min(time, Math.max(video.duration - 1e-3, 0));
      if (this.playing) this.start(video);
      this.show();
    });
  }
  remove(video) {
    this.videos = this.videos.filter(other => other !== video);
    this.bar.hidden = !this.videos.length;
    video.removeAttribute("src");
    video.load();  // frees the decoder
  }
  master() { return this.videos.reduce((a, b) => (b.duration || 0) > (a.duration || 0) ? b : a, this.videos[0]); }
  length() { return (this.videos.length && this.master().duration) || 0; }
  toggle() { this.playing ? this.pause() : this.play(); }
  start(video) {
    video.playbackRate = Number(get("speed").value);
    video.play().catch(() => {});
  }
  play() {
    this.playing = true;
    this.button.textContent = "pause";
    if (this.videos.length) {
      const start = this.master().ended ? 0 : this.master().currentTime;
      this.seek(start);
      for (const video of this.videos) if (!(start >= video.duration)) this.start(video);
    }
    this.tick();
  }
  pause() {
    this.playing = false;
    this.button.textContent = "play";
    this.videos.forEach(video => video.pause());
    this.show();
  }
  stop() { this.playing = false; [...this.videos].forEach(video => this.remove(video)); }
  seek(time) {
    for (const video of this.videos) video.currentTime = Math.min(time, Math.max((video.duration || 0) - 1e-3, 0));
    this.show(time);
  }
  step(count) {
    this.pause();
    const frames = Math.round(this.length() / this.frame);
    const now = Math.floor(this.master().currentTime / this.frame + 1e-3);
    this.seek((Math.min(Math.max(now + count, 0), frames - 1) + 0.5) * this.frame);
  }
  tick() {
    if (!this.playing) return;
    if (this.videos.length) this.together();
    requestAnimationFrame(() => this.tick());
  }
  together() {
    const master = this.master();
    if (master.ended) { this.seek(0); this.videos.forEach(video => this.start(video)); }
    for (const video of this.videos) {
      const inside = master.currentTime < video.duration;
      if (inside && Math.abs(video.currentTime - master.currentTime) > DRIFT) video.currentTime = master.currentTime;
      if (inside && video.paused && !video.ended && video.readyState > 2) this.start(video);
    }
    this.show();
  }
  show(time = this.videos.length ? this.master().currentTime : 0) {
    const length = this.length();
    this.slider.value = length ? time / length : 0;
    this.clock.textContent = `${Math.floor(time / this.frame + 1e-3)} / ${Math.round(length / this.frame)}`;
  }
}

/** A file with its name; videos join the player. */
function figure(item, media, player) {
  const box = make("figure", "", media);
  const shown = item.type === "video" ? make("video", "", box, { muted: true, playsInline: true, preload: "auto" })
    : make("img", "", box, { alt: item.label, loading: "lazy" });
  const caption = make("figcaption", "", box);
  make("span", item.kind + " ", caption, { className: "kind" });
  make("a", item.label, caption, { href: item.src, title: item.path });
  if (item.frames) make("span", ` ${item.frames} frames`, caption, { className: "kind" });
  shown.onerror = () => { if (shown.getAttribute("src")) caption.classList.add("broken"); };
  const sized = () => shown.classList.toggle("small", (shown.videoWidth || shown.naturalWidth) <= 160);
  shown.onload = shown.onloadedmetadata = sized;
  if (item.type === "video") player.add(shown);
  shown.src = item.src;
  return box;
}
