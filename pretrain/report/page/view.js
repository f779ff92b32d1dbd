"use strict";
// How numbers and elements are written. Texts of runs reach the page as text alone.

function element(name, attributes, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "on") for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (key in made && key !== "list" && typeof value !== "string") made[key] = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...content.filter((part) => part !== null && part !== undefined));
  return made;
}

function svg(name, attributes, ...content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

// Blue, vermilion, green, purple, orange, sky and the text's colour (Okabe and Ito, 2008, without yellow), then the same in dashes.
const COLOURS = 7;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4], [5, 2, 1, 2, 1, 2], [1, 6], [12, 3, 5, 3]];

function styleOf(group, member) {
  return { colour: group % COLOURS, dash: DASHES[(Math.floor(group / COLOURS) + member) % DASHES.length] };
}

function swatch(style) {
  const line = svg("line", { x1: 0, y1: 5, x2: 26, y2: 5, "stroke-width": 2.5, "stroke-dasharray": style.dash.join(" "), class: `stroke${style.colour}` });
  return svg("svg", { width: 26, height: 10, viewBox: "0 0 26 10", "aria-hidden": "true", class: "swatch" }, line);
}

function significant(value, digits) {
  if (!Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-4) return value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
  if (size >= Math.pow(10, digits)) return Math.round(value).toLocaleString("en-US");
  return Number(value.toPrecision(digits)).toLocaleString("en-US", { maximumFractionDigits: 12 });
}

function compact(value) {
  const size = Math.abs(value);
  for (const [unit, from] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]])
    if (size >= from) return `${significant(value / from, 4)}${unit}`;
  return significant(value, 4);
}

function bytes(value) {
  for (const [unit, size] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
    if (Math.abs(value) >= size) return `${significant(value / size, 4)} ${unit}`;
  return `${significant(value, 4)} B`;
}

function seconds(value) {
  const size = Math.abs(value);
  if (size >= 3600) return `${significant(value / 3600, 4)} h`;
  if (size >= 120) return `${significant(value / 60, 4)} min`;
  if (size >= 1 || value === 0) return `${significant(value, 4)} s`;
  return size >= 1e-3 ? `${significant(value * 1e3, 4)} ms` : `${significant(value * 1e6, 4)} \u00b5s`;
}

function hours(value) {
  return value >= 0.1 ? value.toFixed(2) : value.toFixed(4);
}

// A value of a curve as it is read out.
function reading(value, unit) {
  if (unit === "bytes") return bytes(value);
  if (unit === "seconds") return seconds(value);
  if (unit === "share") return `${significant(value * 100, 4)} %`;
  return significant(value, 5);
}

const AXES = {
  step: { title: "step", text: (value) => Math.round(value).toLocaleString("en-US"), unit: "" },
  tokens: { title: "tokens", text: (value) => compact(value), unit: "" },
  wall_seconds: { title: "wall time", text: (value) => seconds(value), unit: "seconds" },
};
