"use strict";
const {labels, videos} = JSON.parse(document.getElementById("results").textContent);
const perPage = 24, mostInLegend = 6;
const form = document.getElementById("filters"), cards = document.getElementById("cards");
const pagers = [...document.querySelectorAll(".pager")];
const dark = matchMedia("(prefers-color-scheme: dark)");
let found = videos, page = 0;

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const percent = score => `${(100 * score).toFixed(1)}%`;

function clock(seconds) {
  const whole = Math.floor(seconds + 1e-6), tenths = Math.floor((seconds - whole) * 10 + 1e-6);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const start = hours ? `${hours}:${String(minutes).padStart(2, "0")}` : minutes;
  return `${start}:${String(whole % 60).padStart(2, "0")}${tenths ? `.${tenths}` : ""}`;
}

function colour(index) {  // by the golden angle; numbers that are 8, 13 or 21 apart have similar hues
  if (index < 0) return "hsl(0 0% 55%)";  // unsure
  const light = (dark.matches ? 62 : 42) + [0, -14, 14][Math.floor(index / 8) % 3];
  return `hsl(${(205 + index * 137.508) % 360} 60% ${light}%)`;
}

// What is searched

for (const [place, video] of videos.entries()) {
  video.place = place;
  video.scores = new Map();  // of the best label, and of every part of the timeline
  for (const [index, score] of [...video.top.slice(0, 1), ...(video.parts ?? []).map(part => part.slice(2))])
    video.scores.set(index, Math.max(score, video.scores.get(index) ?? 0));
  video.best = Math.max(-1, ...video.scores.values());
  const names = [...video.scores.keys()].map(index => labels[index]);
  video.text = [video.name, video.error ?? "", ...video.warnings ?? [], ...names].join("\n").toLowerCase();
}

const orders = {
  given: (a, b) => a.place - b.place,
  name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  high: (a, b) => b.value - a.value,
  low: (a, b) => (a.value < 0) - (b.value < 0) || a.value - b.value,
};

function filter() {
  const {search, label, score, state, order} = Object.fromEntries(new FormData(form));
  const words = search.toLowerCase().split(/\s+/), least = score / 100;
  for (const video of videos) video.value = label === "" ? video.best : video.scores.get(+label) ?? -1;
  found = videos.filter(video =>
    words.every(word => video.text.includes(word))
    && (label === "" || video.value >= 0)
    && (least === 0 || video.value >= least)
    && (state === "" || (state === "error") === (video.error !== undefined)));
  found.sort(orders[order]);
  document.getElementById("least").textContent = `${score}%`;
  turn(0);
}

function countLabels() {
  const counts = new Map();
  for (const video of videos) for (const index of video.scores.keys()) counts.set(index, (counts.get(index) ?? 0) + 1);
  for (const [index, count] of [...counts].sort((a, b) => b[1] - a[1]))
    form.elements.label.append(make("option", {value: index}, `${labels[index]} (${count.toLocaleString("en")})`));
}

// What is shown

function turn(to) {
  const last = Math.max(0, Math.ceil(found.length / perPage) - 1);
  page = Math.min(Math.max(to, 0), last);
  const first = page * perPage, shown = found.slice(first, first + perPage), all = found.length.toLocaleString("en");
  cards.replaceChildren(...shown.map(card));
  const range = `${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")}`;
  for (const pager of pagers) {
    pager.querySelector("p").textContent =
      found.length ? `Videos ${range} of ${all}, page ${page + 1} of ${last + 1}` : "No video matches the filters.";
    for (const button of pager.querySelectorAll("button"))
      button.disabled = page === (button.dataset.to < 0 ? 0 : last);
  }
}

function card(video) {
  const cut = video.name.lastIndexOf("/") + 1, name = make("bdi", {}, video.name.slice(cut) || video.name);
  const player = video.link && !video.isFolder && video.top.length ? playerOf(video) : undefined;
  const item = make("li", {class: video.error === undefined ? "card" : "card failed"});
  if (player) item.append(player, unplayable(video, player));
  else if (video.picture) item.append(make("img", {src: picture(video), alt: ""}));
  item.append(make("h2", {}, video.link ? make("a", {href: video.link}, name) : name));
  if (cut) item.append(make("p", {class: "faint"}, make("bdi", {}, video.name.slice(0, cut))));
  if (video.error !== undefined) item.append(make("p", {class: "error"}, `Error: ${video.error}`));
  if (video.facts) item.append(make("p", {class: "faint"}, video.facts));
  for (const warning of video.warnings ?? []) item.append(make("p", {class: "caution"}, `Warning: ${warning}`));
  if (video.top.length) item.append(make("ol", {class: "scores", "aria-label": "Labels"}, ...video.top.map(score)));
  if (video.parts?.length) item.append(...timeline(video, player));
  return item;
}

const picture = video => `data:image/jpeg;base64,${video.picture}`;

function playerOf(video) {
  return make("video", {
    src: video.link, controls: "", playsinline: "", "aria-label": `Video ${video.name}`,
    ...(video.picture ? {poster: picture(video), preload: "none"} : {preload: "metadata"}),
  });
}

function unplayable(video, player) {
  const note = make("p", {class: "caution", hidden: ""}, "This browser cannot play the file, or it is no longer there.");
  player.addEventListener("error", () => note.hidden = false);
  return note;
}

function score([index, value]) {
  const bar = make("span");
  bar.style.width = percent(value).replace(" ", "");
  const label = make("span", {dir: "auto"}, labels[index]), number = make("span", {class: "percent"}, percent(value));
  return make("li", {}, label, number, make("span", {class: "bar"}, bar));
}

// The timeline: one coloured part a segment, as high as its score

function timeline(video, player) {
  const {parts} = video, total = Math.max(video.seconds ?? 0, parts.at(-1)[1]);
  const mark = make("span"), canvas = make("canvas", {width: 1000, height: 40});
  const caption = make("p", {class: "faint", "aria-hidden": "true"});
  const strip = make("div", {
    class: "strip", role: "slider", tabindex: 0, "aria-label": "Timeline", "aria-valuemin": 0, "aria-valuemax": total,
  }, canvas, mark);
  let now = 0;

  const partAt = seconds => Math.max(0, parts.findLastIndex(part => part[0] <= seconds + 1e-3));
  const words = ([start, end, index, value]) => `${clock(start)} to ${clock(end)}: ${labels[index]} ${percent(value)}`;
  const secondsAt = event => {
    const box = strip.getBoundingClientRect();
    return total * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const place = seconds => {
    now = seconds;
    mark.style.left = `${100 * seconds / total}%`;
    strip.setAttribute("aria-valuenow", seconds.toFixed(1));
    strip.setAttribute("aria-valuetext", words(parts[partAt(seconds)]));
    caption.textContent = words(parts[partAt(seconds)]);
  };
  const jump = seconds => {
    place(seconds);
    if (!player) return;
    player.preload = "auto";
    player.currentTime = seconds;
  };
  const moves = {
    ArrowRight: () => Math.min(partAt(now) + 1, parts.length - 1), ArrowLeft: () => Math.max(partAt(now) - 1, 0),
    Home: () => 0, End: () => parts.length - 1,
  };
  strip.addEventListener("click", event => jump(secondsAt(event)));
  strip.addEventListener("pointermove", event => caption.textContent = words(parts[partAt(secondsAt(event))]));
  strip.addEventListener("pointerleave", () => place(now));
  strip.addEventListener("keydown", event => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    jump(parts[moves[event.key]()][0]);
  });
  player?.addEventListener("timeupdate", () => { if (player.readyState) place(player.currentTime); });
  draw(canvas, parts, total);
  place(0);
  return [strip, caption, legend(parts)];
}

function draw(canvas, parts, total) {
  const pen = canvas.getContext("2d"), {width, height} = canvas, chosen = form.elements.label.value;
  for (const [start, end, index, value] of parts) {
    const left = width * start / total, wide = Math.max(1, width * (end - start) / total);
    pen.fillStyle = colour(index);
    for (const [high, alpha] of [[height, .3], [height * value, 1]]) {
      pen.globalAlpha = chosen === "" || +chosen === index ? alpha : alpha / 5;
      pen.fillRect(left, height - high, wide, high);
    }
  }
}

function legend(parts) {
  const seconds = new Map();
  for (const [start, end, index] of parts) seconds.set(index, (seconds.get(index) ?? 0) + end - start);
  const rows = [...seconds].sort((a, b) => b[1] - a[1]);
  const items = rows.slice(0, mostInLegend).map(([index, length]) => {
    const swatch = make("span");
    swatch.style.background = colour(index);
    return make("li", {}, swatch, make("bdi", {}, labels[index]), ` ${clock(length)}`);
  });
  if (rows.length > mostInLegend) items.push(make("li", {}, `and ${rows.length - mostInLegend} more`));
  return make("ul", {class: "legend", "aria-label": "Labels of the timeline, with their time"}, ...items);
}

form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", event => event.preventDefault());
dark.addEventListener("change", () => turn(page));
for (const pager of pagers) pager.addEventListener("click", event => {
  const step = event.target.dataset?.to;
  if (step === undefined) return;
  turn(page + +step);
  if (pager === pagers[1]) {
    cards.scrollIntoView();
    cards.focus({preventScroll: true});
  }
});
countLabels();
filter();
