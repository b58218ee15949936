"use strict";
// What all parts of the page share: its data, colours, numbers as people read them, the hover text.

const page = JSON.parse(document.getElementById("data").textContent);
const redraws = [];

/** An element with attributes and children; text stays text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** The colours of the theme that is in force. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "raised", "text", "muted", "line", "accent", "data", "removed"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Give a canvas its size in CSS pixels, sharp on any screen, and return its cleared context. */
function prepare(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "11px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  return context;
}

function scaled(value, steps, below) {
  for (const [factor, unit] of steps) if (value >= factor) return `${(value / factor).toFixed(2)} ${unit}`;
  return below(value);
}

/** A number by its kind, as the tables show it. */
function show(kind, value) {
  if (value === null || value === undefined) return "unknown";
  switch (kind) {
    case "count": return scaled(value, [[1e9, "G"], [1e6, "M"], [1e3, "k"]], (v) => String(Math.round(v)));
    case "bytes": return scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]], (v) => `${Math.round(v)} B`);
    case "milliseconds": return `${value.toFixed(value >= 1 ? 2 : 3)} ms`;
    case "share": return `${(value * 100).toFixed(2)}%`;
    case "similarity": return value.toFixed(4);
    case "integer": return Math.round(value).toLocaleString("en");
    default: return Math.abs(value) >= 10 ? value.toFixed(1) : String(Number(value.toPrecision(4)));
  }
}

/** As `show`, without needless decimals: for axes. */
function tick(kind, value) {
  if (kind === "share") return `${Number((value * 100).toPrecision(4))}%`;
  if (kind === "milliseconds") return `${Number(value.toPrecision(4))} ms`;
  if (kind === "count" || kind === "bytes") {
    return show(kind, value).replace(/\.?0+(?= )/, "").replace(/(\.\d)0(?= )/, "$1");
  }
  return String(Number(value.toPrecision(6)));
}

/** Round values between two limits, about `wanted` of them. */
function ticks(low, high, wanted) {
  const span = high - low || 1;
  const rough = span / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** The smallest round number that is no less than `least`: 1, 2, 5, 10, 20 and so on. */
function roundStep(least) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(least)));
  return [1, 2, 5, 10].map((k) => k * power).find((k) => k >= least);
}

/** The end of a text that is at most `room` pixels wide: the end tells layers apart. It begins with a whole part of
 * a path where that fills half of the room, so that no number loses its first digits. */
function shorten(context, text, room) {
  const wide = (start) => context.measureText("\u2026" + text.slice(start)).width;
  const fits = (start) => wide(start) <= room;
  if (context.measureText(text).width <= room) return text;
  const part = [...text.matchAll(/[/.]/g)].map((found) => found.index + 1).find(fits);
  if (part !== undefined && wide(part) >= room / 2) return "\u2026" + text.slice(part);
  let low = 0, high = text.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (fits(middle)) high = middle;
    else low = middle + 1;
  }
  return "\u2026" + text.slice(low);
}

/** The beginning and the end that nearly all names share, up to a separator: what is left tells them apart. */
function shared(names) {
  const typical = names[names.length >> 1] || "", most = 0.9 * names.length;
  const common = (test) => names.filter(test).length >= most;
  const cuts = [...typical.matchAll(/[/.]/g)].map((found) => found.index);
  const before = cuts.findLast((k) => common((name) => name.startsWith(typical.slice(0, k + 1))));
  const after = cuts.find((k) => common((name) => name.endsWith(typical.slice(k))));
  if (names.length < 2) return ["", ""];
  return [before === undefined ? "" : typical.slice(0, before + 1), after === undefined ? "" : typical.slice(after)];
}

/** A long name without what nearly all names share. */
function distinct(name, [before, after]) {
  if (name.length <= 20 || name.length <= before.length + after.length) return name;
  const start = name.startsWith(before) ? before.length : 0;
  return name.slice(start, name.endsWith(after) ? name.length - after.length : name.length);
}

const tipBox = document.getElementById("tip");
let tipAt = [0, 0];

/** Show lines of text beside a point of the window, inside of it. */
function tip(lines, x, y) {
  tipBox.replaceChildren(...lines.filter(Boolean).map((line) => element("div", {}, line)));
  tipBox.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tipBox;
  const left = x + 14 + width > innerWidth - 8 ? x - 14 - width : x + 14;
  const top = y + 14 + height > innerHeight - 8 ? y - 14 - height : y + 14;
  tipBox.style.left = `${Math.max(8, Math.min(left, innerWidth - 8 - width))}px`;
  tipBox.style.top = `${Math.max(8, top)}px`;
  tipAt = [scrollX, scrollY];
}

function hideTip() {
  tipBox.hidden = true;
}

/** Hide a tip that the page has moved away from; the event of a scroll may come after the tip. */
function hideTipOnScroll() {
  if (scrollX !== tipAt[0] || scrollY !== tipAt[1]) hideTip();
}

// Stops of the map "viridis", which keeps its order in print and for the colour-blind.
const STOPS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"]
  .map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));

/** Red, green and blue for a value from 0 to 1. */
function colourOf(value) {
  const place = Math.max(0, Math.min(1, value)) * (STOPS.length - 1);
  const k = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[k].map((channel, c) => Math.round(channel + (STOPS[k + 1][c] - channel) * (place - k)));
}

/** Pointer and keyboard for a canvas: `at` takes a place in its pixels, `move` the arrow keys' steps. */
function interact(canvas, { at, move, key }) {
  canvas.tabIndex = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top, event.clientX, event.clientY];
  };
  let last = null;
  canvas.addEventListener("pointermove", (event) => {
    // Browsers repeat the last move after a layout: a pointer at rest must not take the tip from the keys.
    const now = `${event.clientX},${event.clientY}`;
    if (now !== last) at(...place(event));
    last = now;
  });
  canvas.addEventListener("pointerdown", (event) => at(...place(event)));
  canvas.addEventListener("pointerleave", () => {
    last = null;
    hideTip();
  });
  canvas.addEventListener("blur", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (steps) move(...steps);
    else if (!key || !key(event.key)) return;
    event.preventDefault();
  });
}
