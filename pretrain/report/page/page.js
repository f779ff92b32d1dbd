"use strict";
// The page: what is chosen, and everything that follows from it.

const byId = (id) => document.getElementById(id);
const TARGET_COLUMNS = [
  { key: "steps_to_target", title: "steps to\u00a0target", told: "first evaluation at the target or better" },
  { key: "hours_to_target", title: "hours to\u00a0target", told: "wall time of that evaluation" },
];
const SIGNS = { finished: "\u2713", running: "\u25b8", diverged: "\u2715", stopped: "\u25a0", killed: "!" };
const BEST = { loss: -1, mlm_accuracy: 1, perplexity: -1, steps_to_target: -1, hours_to_target: -1, tokens_per_second: 1, mfu: 1, memory_peak_bytes: -1, memory_optimizer_bytes: -1 };

let data, runs, charts = new Map();
const chosen = {
  axis: "step", logX: false, logY: false, outliers: false, band: true, smoothing: 0, zoom: null, objective: null, filter: "",
  hidden: new Set(), curves: null, sort: null, highlighted: null, targets: {}, rest: null,
};

// What there is ------------------------------------------------------------------------------------------------------------------

function load(fresh) {
  const first = !data;
  data = fresh;
  const members = data.groups.map(() => 0);
  runs = data.runs.map((run) => ({ ...run, style: styleOf(run.group, members[run.group]++), unpacked: {}, points: {} }));
  const objectives = [...new Set(runs.map((run) => run.objective))];
  if (first) chosen.axis = data.x;
  if (!objectives.includes(chosen.objective))
    chosen.objective = objectives.reduce((a, b) => (ofObjective(b).length > ofObjective(a).length ? b : a), objectives[0]);
  byId("objectives").hidden = objectives.length < 2;
  byId("objective").replaceChildren(...objectives.map((name) => element("option", { value: name, selected: name === chosen.objective }, `${name} (${ofObjective(name).length})`)));
  if (!chosen.curves) chosen.curves = new Set(data.curves.filter((curve) => curve.first).map((curve) => curve.key));
  everything();
}

const ofObjective = (name) => runs.filter((run) => run.objective === name);
const compared = () => ofObjective(chosen.objective);
const isFiltered = (run) => !chosen.filter || [run.name, data.groups[run.group].label, ...run.cells.map(([, text]) => text)].some((text) => text.toLowerCase().includes(chosen.filter));
const isShown = (run) => run.objective === chosen.objective && !chosen.hidden.has(run.name) && isFiltered(run);
const curveOf = (key) => data.curves.find((curve) => curve.key === key);
const cellOf = (run, key) => run.cells[data.columns.findIndex((column) => column.key === key)];

function unpackedOf(run, key) {
  if (!(key in run.series)) return null;
  return (run.unpacked[key] ||= unpack(run.series[key]));
}

// {x, y, faint}: of one run, on the chosen axis. Evaluations are few and exact: they are never smoothed.
function pointsOf(run, key, ofMeans) {
  const found = unpackedOf(run, key), kind = key.split("/")[0], axis = run.axes[kind][chosen.axis];
  if (!found || !axis) return { x: [], y: [], faint: null };
  const weight = kind === "train" ? chosen.smoothing : 0, name = `${key} ${chosen.axis} ${weight} ${ofMeans}`;
  if (!(name in run.points)) {
    const raw = () => ({ x: along(axis, found.at), y: found.value });
    if (!weight && !ofMeans) run.points[name] = { ...raw(), faint: null };
    else run.points[name] = { x: along(axis, found.meanAt), y: smoothed(found.mean, weight, found.length), faint: weight && !ofMeans ? raw() : null };
  }
  return run.points[name];
}

// The target -----------------------------------------------------------------------------------------------------------------------

const scoresHere = () => data.scores.filter((score) => compared().some((run) => `eval/${score.name}` in run.series));

function targetOf() {
  const found = (chosen.targets[chosen.objective] ||= { score: "loss", value: data.targets[chosen.objective] });
  return { ...found, about: data.scores.find((score) => score.name === found.score) };
}

function chooseScore(name) {
  const about = data.scores.find((score) => score.name === name), finals = compared().filter((run) => (cellOf(run, name) || [])[1] !== "-" && cellOf(run, name));
  const value = (run) => cellOf(run, name)[0], adamw = finals.filter((run) => (cellOf(run, "optimizer.name") || [])[0] === "adamw");
  const sorted = (adamw.length ? adamw : finals).map(value).sort((a, b) => (about.lower ? a - b : b - a));
  const wanted = adamw.length ? sorted[0] : sorted[Math.floor(sorted.length / 2)];
  const unit = Math.pow(10, -4);
  chosen.targets[chosen.objective] = { score: name, value: name === "loss" ? data.targets[chosen.objective] : wanted === undefined ? null : Number(((about.lower ? Math.ceil(wanted / unit) : Math.floor(wanted / unit)) * unit).toFixed(4)) };
}

// {step, hours} or null
function reachOf(run) {
  const target = targetOf(), found = unpackedOf(run, `eval/${target.score}`);
  if (target.value === null || !found) return null;
  const first = firstReach(found, target.value, target.about.lower);
  if (!first) return null;
  const on = (axis) => (run.axes.eval[axis] ? along(run.axes.eval[axis], [first.at])[0] : NaN);
  return { step: Math.round(on("step")), hours: on("wall_seconds") / 3600, at: first.at, value: first.value };
}

// The parts of the page ------------------------------------------------------------------------------------------------------------

function everything() {
  head();
  controls();
  scoresAndTables();
  legend();
  makeCharts();
  drawCharts();
  memory();
  settings();
}

function scoresAndTables() {
  tiles();
  verdictTable();
  runsTable();
}

// Of a setting that all runs compared have alike; null where they do not.
function commonValue(name) {
  if (name in data.shared) return data.shared[name];
  const differs = data.differing.find((setting) => setting.name === name);
  const values = new Set(differs ? differs.values.filter((_, place) => runs[place].objective === chosen.objective) : []);
  return values.size === 1 ? [...values][0] : null;
}

function head() {
  const here = compared(), states = {};
  for (const run of here) states[run.state] = (states[run.state] || 0) + 1;
  const words = { "model.name": "", "objective.kind": "", "train.num_steps": " steps", "train.global_batch_size": " per batch", "data.max_seq_length": " tokens long", "train.precision": "" };
  const common = Object.entries(words).map(([name, unit]) => [commonValue(name), unit]).filter(([value]) => value !== null).map(([value, unit]) => value + unit);
  byId("title").textContent = runs.length === 1 ? runs[0].name : `${here.length} runs compared`;
  const others = runs.length - here.length;
  byId("about").textContent = [common.join(", "), Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", "), others ? `${others} of another objective, whose scores cannot be compared` : "", data.made].filter(Boolean).join(" \u00b7 ");
}

function controls() {
  for (const radio of document.querySelectorAll("input[name=axis]")) radio.checked = radio.value === chosen.axis;
  byId("log-x").checked = chosen.logX;
  byId("log-y").checked = chosen.logY;
  byId("outliers").checked = chosen.outliers;
  byId("band").checked = chosen.band;
  byId("band-choice").hidden = !data.groups.some((_, place) => runs.filter((run) => run.group === place).length > 1);
  byId("smoothing").value = chosen.smoothing;
  byId("smoothing-value").textContent = chosen.smoothing.toFixed(2).replace(/^0\.00$/, "0");
  const factor = chosen.axis === "wall_seconds" ? 3600 : 1;
  for (const [place, id] of ["from", "to"].entries())
    if (document.activeElement !== byId(id)) byId(id).value = chosen.zoom ? Number((chosen.zoom[place] / factor).toPrecision(4)) : "";
  const target = targetOf();
  byId("score").replaceChildren(...scoresHere().map((score) => element("option", { value: score.name, selected: score.name === target.score }, `${score.title} ${score.lower ? "\u2264" : "\u2265"}`)));
  if (document.activeElement !== byId("target")) byId("target").value = target.value === null || target.value === undefined ? "" : target.value;
  const here = data.curves.filter((curve) => compared().some((run) => curve.key in run.series));
  byId("curves").replaceChildren(...here.map((curve) =>
    element("label", {}, element("input", { type: "checkbox", checked: chosen.curves.has(curve.key), value: curve.key, on: { change: (event) => chooseCurve(curve.key, event.target.checked) } }), ` ${curve.title}`)));
}

function chooseCurve(key, isOn) {
  if (isOn) chosen.curves.add(key); else chosen.curves.delete(key);
  makeCharts();
  drawCharts();
}

function tiles() {
  const made = [], here = compared();
  const tile = (what, key, best) => {
    const known = here.map((run) => ({ run, cell: key === "hours_to_target" ? reachCells(run)[1] : cellOf(run, key) })).filter(({ cell }) => cell && typeof cell[0] === "number");
    if (!known.length) return;
    const { run, cell } = known.reduce((a, b) => ((b.cell[0] - a.cell[0]) * best > 0 ? b : a));
    made.push(element("div", { class: "tile" }, element("div", { class: "what" }, what), element("div", { class: "value" }, cell[1]), element("div", { class: "who" }, swatch(run.style), element("span", { title: run.name }, run.name))));
  };
  tile("Lowest validation loss", "loss", -1);
  tile("Highest MLM accuracy", "mlm_accuracy", 1);
  tile("Lowest perplexity", "perplexity", -1);
  tile("Fewest hours to the target", "hours_to_target", -1);
  tile("Highest throughput, tokens/s", "tokens_per_second", 1);
  tile("Least optimizer memory", "memory_optimizer_bytes", -1);
  byId("tiles").replaceChildren(...(here.length > 1 ? made : []));
}

function verdictTable() {
  const target = targetOf(), groups = data.groups.map((group, place) => ({ ...group, place, runs: runs.filter((run) => run.group === place) })).filter((group) => group.objective === chosen.objective);
  const mean = (values) => (values.length ? values.reduce((a, b) => a + b) / values.length : null);
  const of = (group, key) => group.runs.map((run) => cellOf(run, key)).filter((cell) => cell && typeof cell[0] === "number").map((cell) => cell[0]);
  const fallback = (value, text) => (value === null ? "-" : text(value));
  const titles = ["setting", "seeds", "validation loss", "difference [95 %]", "verdict", "steps to\u00a0target", "hours to\u00a0target", "tokens/s", "peak mem", "opt mem"];
  const rows = groups.map((group) => {
    const reached = group.runs.map(reachOf).filter(Boolean), all = reached.length === group.runs.length ? "" : reached.length ? ` (${reached.length} of ${group.runs.length})` : "";
    const word = { better: "\u2193 better", worse: "\u2191 worse", "no difference shown": "= no difference shown" }[group.word] || group.word;
    return {
      rank: group.mean === null ? Infinity : group.mean,
      cells: [
        element("th", { scope: "row" }, element("span", { class: "named" }, swatch(group.runs[0].style), group.label)),
        String(group.runs.length),
        group.mean === null ? "-" : group.mean.toFixed(4) + (group.spread === null ? "" : ` \u00b1 ${significant(group.spread, 2)}`),
        group.interval ? significantly(group.interval) : "-",
        element("td", { class: `left ${group.word}` }, word),
        fallback(mean(reached.map((found) => found.step)), (value) => Math.round(value).toLocaleString("en-US") + all),
        fallback(mean(reached.map((found) => found.hours)), (value) => hours(value) + all),
        fallback(mean(of(group, "tokens_per_second")), (value) => Math.round(value).toLocaleString("en-US")),
        fallback(of(group, "memory_peak_bytes").length ? Math.max(...of(group, "memory_peak_bytes")) : null, bytes),
        fallback(of(group, "memory_optimizer_bytes").length ? Math.max(...of(group, "memory_optimizer_bytes")) : null, bytes),
      ],
    };
  }).sort((a, b) => a.rank - b.rank || 0);
  byId("verdicts").replaceChildren(
    element("caption", { class: "unseen" }, "Settings, each with its seeds"),
    element("thead", {}, element("tr", {}, ...titles.map((title) => element("th", { scope: "col", class: ["setting", "verdict"].includes(title) ? "left" : null }, title)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.cells.map((cell) => (cell instanceof Node ? cell : element("td", {}, cell)))))));
  const baseline = groups.find((group) => group.baseline);
  const about = target.value === null || target.value === undefined ? "" : ` Target: ${target.about.title} ${target.about.lower ? "at most" : "at least"} ${significant(target.value, 6)}; the first evaluation there, nothing interpolated.`;
  const mixed = data.mixed.includes(chosen.objective) ? "The prepared data differ among these runs: their losses may not be on one scale. " : "";
  byId("verdict-note").textContent = mixed + (baseline ? `Final validation loss of finished runs against ${baseline.baseline}: mean \u00b1 standard deviation over seeds, difference with Welch's 95 % interval, where both have several seeds. With one seed nothing says whether a difference is real: run several (run.seed=1, 2, ...).${about}` : about.trim());
}

function significantly({ mean, low, high }) {
  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(4);
  return signed(mean) + (low === null ? "" : ` [${signed(low)}, ${signed(high)}]`);
}

function reachCells(run) {
  const found = reachOf(run);
  return found ? [[found.step, found.step.toLocaleString("en-US")], [found.hours, hours(found.hours)]] : [[null, "-"], [null, "-"]];
}

function runsTable() {
  const after = data.columns.findLastIndex((column) => ["loss", "mlm_accuracy", "perplexity"].includes(column.key)) + 1;
  const insert = (list, more) => [...list.slice(0, after), ...more, ...list.slice(after)];
  const all = insert(data.columns, after ? TARGET_COLUMNS : []);
  let rows = compared().map((run) => ({ run, cells: insert(run.cells, after ? reachCells(run) : []) }));
  const used = all.map((column, place) => column.key === "run" || rows.some((row) => row.cells[place][1] !== "-"));
  const sorted = all.findIndex((column) => chosen.sort && column.key === chosen.sort.key);
  if (sorted >= 0) {
    const known = (cell) => cell[0] !== null && cell[1] !== "-";
    rows = [...rows].sort((a, b) => {
      const [x, y] = [a.cells[sorted], b.cells[sorted]];
      if (known(x) !== known(y)) return known(x) ? -1 : 1;
      const order = typeof x[0] === "number" && typeof y[0] === "number" ? x[0] - y[0] : String(x[1]).localeCompare(String(y[1]), "en", { numeric: true });
      return chosen.sort.falling ? -order : order;
    });
  }
  const bests = all.map((column, place) => {
    const values = rows.map((row) => row.cells[place][0]).filter((value) => typeof value === "number");
    if (!(column.key in BEST) || new Set(values).size < 2) return null;
    return BEST[column.key] > 0 ? Math.max(...values) : Math.min(...values);
  });
  const isLeft = (column) => column.setting || column.key === "state" || column.key === "run";
  const header = (column) => {
    const direction = chosen.sort && chosen.sort.key === column.key ? (chosen.sort.falling ? "descending" : "ascending") : "none";
    return element("th", { scope: "col", "aria-sort": direction, class: isLeft(column) ? "left" : null, title: column.told || null, "data-column": column.key },
      element("button", { type: "button", on: { click: () => sortBy(column.key) } }, column.title));
  };
  const cell = (row, column, place) => {
    const [value, text] = row.cells[place];
    if (column.key === "run")
      return element("th", { scope: "row" }, element("label", { title: text }, element("input", { type: "checkbox", checked: !chosen.hidden.has(row.run.name), on: { change: () => toggle([row.run]) } }), swatch(row.run.style), element("span", {}, text)));
    const shown = column.key === "state" ? `${SIGNS[text] || ""} ${text}` : text;
    return element("td", { class: [isLeft(column) ? "left" : "", bests[place] !== null && value === bests[place] ? "best" : ""].join(" ").trim() || null }, shown);
  };
  const focused = document.activeElement && document.activeElement.closest("#runs th[data-column]"), column = focused && focused.dataset.column;
  byId("runs").replaceChildren(
    element("caption", { class: "unseen" }, "Runs; the buttons in the head sort"),
    element("thead", {}, element("tr", {}, ...all.filter((_, place) => used[place]).map(header))),
    element("tbody", {}, ...rows.filter((row) => isFiltered(row.run)).map((row) =>
      element("tr", { class: chosen.hidden.has(row.run.name) ? "off" : null, "data-run": row.run.name, on: { mouseenter: () => highlight(lineKeyOf(row.run)), mouseleave: () => highlight(null) } },
        ...all.map((each, place) => (used[place] ? cell(row, each, place) : null))))));
  if (column) for (const th of byId("runs").querySelectorAll("th[data-column]")) if (th.dataset.column === column) th.firstChild.focus();
}

function sortBy(key) {
  const first = (BEST[key] || -1) > 0;
  if (!chosen.sort || chosen.sort.key !== key) chosen.sort = { key, falling: first };
  else if (chosen.sort.falling === first) chosen.sort.falling = !first;
  else chosen.sort = null;
  runsTable();
}

// Legend and charts ----------------------------------------------------------------------------------------------------------------

// What is drawn as one line: the seeds of a group together, or a run alone.
function entries() {
  const found = new Map();
  for (const run of compared().filter(isFiltered)) {
    const key = lineKeyOf(run);
    if (!found.has(key)) found.set(key, { key, runs: [] });
    found.get(key).runs.push(run);
  }
  return [...found.values()].map((entry) => ({ ...entry, label: entry.runs.length > 1 ? `${data.groups[entry.runs[0].group].label}, ${entry.runs.length} seeds` : entry.runs[0].name, style: entry.runs.length > 1 ? styleOf(entry.runs[0].group, 0) : entry.runs[0].style }));
}

function lineKeyOf(run) {
  const together = chosen.band && runs.filter((other) => other.group === run.group).length > 1;
  return together ? `group ${run.group}` : `run ${run.name}`;
}

function legend() {
  const focused = document.activeElement && document.activeElement.dataset.entry;
  byId("legend").replaceChildren(...entries().map((entry) =>
    element("button", {
      type: "button", "data-entry": entry.key, "aria-pressed": String(entry.runs.some((run) => !chosen.hidden.has(run.name))), title: `${entry.label}: press to hide or show, with Shift to see it alone`,
      on: {
        click: (event) => (event.shiftKey ? alone(entry.runs) : toggle(entry.runs)),
        mouseenter: () => highlight(entry.key), mouseleave: () => highlight(null), focus: () => highlight(entry.key), blur: () => highlight(null),
      },
    }, swatch(entry.style), element("span", {}, entry.label))));
  if (focused) for (const button of byId("legend").children) if (button.dataset.entry === focused) button.focus();
  const together = entries().some((entry) => entry.runs.length > 1);
  byId("legend-note").textContent = together ? "Seeds: the line is their mean, the band reaches from the lowest to the highest seed, where all of them have values." : "";
}

function toggle(some) {
  const hide = some.some((run) => !chosen.hidden.has(run.name));
  for (const run of some) if (hide) chosen.hidden.add(run.name); else chosen.hidden.delete(run.name);
  shownChanged();
}

function alone(some) {
  const others = compared().filter((run) => !some.includes(run)), isAlone = others.every((run) => chosen.hidden.has(run.name));
  for (const run of compared()) if (isAlone || some.includes(run)) chosen.hidden.delete(run.name); else chosen.hidden.add(run.name);
  shownChanged();
}

function shownChanged() {
  runsTable();
  legend();
  drawCharts();
  memory();
}

function highlight(key) {
  if (chosen.highlighted === key) return;
  chosen.highlighted = key;
  for (const chart of charts.values()) if (!chart.stale) chart.highlight(key);
}

function linesOf(key) {
  const target = targetOf(), isTarget = key === `eval/${target.score}`;
  return entries().map((entry) => {
    const shown = entry.runs.filter(isShown), line = { key: entry.key, label: entry.label, style: entry.style, low: null, high: null, faint: null, reach: null };
    if (!shown.length) return null;
    if (shown.length > 1) {
      const found = meanAndBand(shown.map((run) => pointsOf(run, key, true)));
      return found && { ...line, ...found };
    }
    const reached = isTarget ? reachOf(shown[0]) : null, axis = shown[0].axes.eval[chosen.axis];
    if (reached && axis) line.reach = { x: along(axis, [reached.at])[0], y: reached.value };
    return { ...line, ...pointsOf(shown[0], key, false) };
  }).filter(Boolean);
}

const listener = {
  zoomed(range) {
    chosen.zoom = range;
    if (!range) for (const chart of charts.values()) chart.zoomY = null;
    controls();
    drawCharts();
  },
  cursor(source, at, pixelY, speak) {
    for (const chart of charts.values()) chart.setCursor(at, chart === source ? pixelY : undefined, speak && chart === source);
  },
};

const nearby = new IntersectionObserver((changes) => { for (const change of changes) if (change.isIntersecting) drawIfStale(charts.get(change.target.dataset.curve)); }, { rootMargin: "300px" });
const resized = new ResizeObserver((changes) => { for (const change of changes) { const chart = charts.get(change.target.parentNode.dataset.curve); if (chart && !chart.stale) chart.draw(); } });

function makeCharts() {
  const wanted = data.curves.filter((curve) => chosen.curves.has(curve.key) && compared().some((run) => curve.key in run.series));
  for (const [key, chart] of charts)
    if (!wanted.some((curve) => curve.key === key)) { nearby.unobserve(chart.figure); resized.unobserve(chart.plot); charts.delete(key); }
  for (const curve of wanted)
    if (!charts.has(curve.key)) {
      const chart = new Chart(curve, listener);
      charts.set(curve.key, chart);
      nearby.observe(chart.figure);
      resized.observe(chart.plot);
    }
  const figures = wanted.map((curve) => charts.get(curve.key).figure);
  if (figures.length !== byId("grid").children.length || figures.some((figure, place) => byId("grid").children[place] !== figure)) byId("grid").replaceChildren(...figures);
}

// At once what can be seen, the others when they come near.
function drawCharts() {
  for (const chart of charts.values()) {
    chart.stale = true;
    const box = chart.figure.getBoundingClientRect();
    if (chosen.printing || (box.top < innerHeight + 300 && box.bottom > -300)) drawIfStale(chart);
  }
}

function drawIfStale(chart) {
  if (!chart || !chart.stale) return;
  chart.stale = false;
  const target = targetOf();
  chart.show(linesOf(chart.curve.key), {
    axis: chosen.axis, logX: chosen.logX, logY: chosen.logY, zoom: chosen.zoom, outliers: chosen.outliers, highlighted: chosen.highlighted, colours: colours(), printing: Boolean(chosen.printing),
    target: chart.curve.key === `eval/${target.score}` && Number.isFinite(target.value) ? target.value : null,
  });
}

// Memory and settings --------------------------------------------------------------------------------------------------------------

function memory() {
  const shown = compared().filter((run) => isShown(run) && Object.keys(run.memory).length), parts = [...new Set(shown.flatMap((run) => Object.keys(run.memory)))];
  byId("memory-section").hidden = !compared().some((run) => Object.keys(run.memory).length);
  const sum = (run) => Object.values(run.memory).reduce((a, b) => a + b, 0), rest = (run) => Math.max(0, (run.peak || 0) - sum(run));
  const withRest = chosen.rest === null ? shown.every((run) => rest(run) < 10 * sum(run)) : chosen.rest;
  byId("rest").checked = withRest;
  const total = (run) => sum(run) + (withRest ? rest(run) : 0), largest = Math.max(...shown.map(total), 1);
  const piece = (name, value) => {
    const made = element("div", { class: `part ${name}` });
    made.style.width = `${(100 * value) / largest}%`;
    return made;
  };
  const named = (part) => part.replaceAll("_", " ");
  byId("memory").replaceChildren(
    element("div", { class: "parts" }, ...parts.map((part, place) => element("span", {}, element("span", { class: `key part${place % 6}` }), named(part))), withRest ? element("span", {}, element("span", { class: "key part-rest" }), "everything else up to the peak") : null),
    ...shown.sort((a, b) => total(a) - total(b)).flatMap((run) => [
      element("div", { class: "who", title: run.name }, run.name),
      element("div", { class: "stack", "aria-hidden": "true" }, ...parts.map((part, place) => piece(`part${place % 6}`, run.memory[part] || 0)), withRest ? piece("part-rest", rest(run)) : null),
      element("div", { class: "total" }, bytes(total(run))),
      element("div", { class: "numbers" }, [...parts.filter((part) => part in run.memory).map((part) => `${named(part)} ${bytes(run.memory[part])}`), run.peak ? `peak ${bytes(run.peak)}` : ""].filter(Boolean).join(" \u00b7 ")),
    ]));
}

const brief = (name, value) => (/fingerprint|commit/.test(name) ? value.slice(0, 12) : value);

function settings() {
  const names = (some) => (some.length > 6 ? `${some.slice(0, 5).join(", ")} and ${some.length - 5} more` : some.join(", "));
  const same = { ...data.shared }, rows = [];
  for (const setting of data.differing) {
    const values = new Map();
    setting.values.forEach((value, place) => {
      if (value !== null && runs[place].objective === chosen.objective) values.set(value, [...(values.get(value) || []), runs[place].name]);
    });
    if (values.size < 2) {
      for (const [value, having] of values) if (having.length === compared().length) same[setting.name] = value;
      continue;
    }
    const all = [...values].map(([value, having]) => element("div", {}, element("b", {}, brief(setting.name, value)), `  ${names(having)}`));
    rows.push(element("tr", {}, element("th", { scope: "row" }, setting.name), element("td", {}, ...all)));
  }
  byId("differing").replaceChildren(element("tbody", {}, ...(rows.length ? rows : [element("tr", {}, element("td", {}, "Nothing that is known of the runs."))])));
  const list = Object.entries(same).sort(([a], [b]) => a.localeCompare(b));
  byId("shared").replaceChildren(...list.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, brief(name, value)))));
}

// Theme, print, watching -----------------------------------------------------------------------------------------------------------

let palette = null;

function colours() {
  if (palette) return palette;
  const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(`--${name}`).trim();
  palette = { card: of("card"), text: of("text"), soft: of("soft"), grid: of("grid"), axis: of("axis"), series: Array.from({ length: COLOURS }, (_, place) => of(`c${place}`)) };
  return palette;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  palette = null;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  if (data) drawCharts();
}

function listen() {
  const on = (id, event, change) => byId(id).addEventListener(event, () => change(byId(id)));
  const redraw = (change) => (input) => { change(input); controls(); legend(); drawCharts(); };
  for (const radio of document.querySelectorAll("input[name=axis]"))
    radio.addEventListener("change", () => { chosen.axis = radio.value; listener.zoomed(null); });
  on("log-x", "change", redraw((input) => { chosen.logX = input.checked; }));
  on("log-y", "change", redraw((input) => { chosen.logY = input.checked; for (const chart of charts.values()) chart.zoomY = null; }));
  on("outliers", "change", redraw((input) => { chosen.outliers = input.checked; }));
  on("band", "change", redraw((input) => { chosen.band = input.checked; }));
  on("smoothing", "input", redraw((input) => { chosen.smoothing = Number(input.value); }));
  on("reset", "click", () => listener.zoomed(null));
  for (const id of ["from", "to"])
    on(id, "change", () => {
      const factor = chosen.axis === "wall_seconds" ? 3600 : 1, [from, to] = ["from", "to"].map((name) => byId(name).value);
      const ends = compared().flatMap((run) => Object.values(run.axes).map((axes) => axes[chosen.axis]).filter(Boolean).map((axis) => axis.v[axis.v.length - 1]));
      const range = [from === "" ? 0 : Number(from) * factor, to === "" ? Math.max(...ends) : Number(to) * factor];
      listener.zoomed(range[1] > range[0] && (from !== "" || to !== "") ? range : null);
    });
  on("score", "change", (input) => { chooseScore(input.value); controls(); scoresAndTables(); drawCharts(); });
  on("target", "input", (input) => {
    targetOf();
    chosen.targets[chosen.objective].value = input.value === "" || !Number.isFinite(Number(input.value)) ? null : Number(input.value);
    scoresAndTables();
    drawCharts();
  });
  on("objective", "change", (input) => { chosen.objective = input.value; chosen.zoom = null; chosen.rest = null; everything(); });
  on("filter", "input", (input) => { chosen.filter = input.value.trim().toLowerCase(); shownChanged(); });
  on("show-all", "click", () => { for (const run of compared()) chosen.hidden.delete(run.name); shownChanged(); });
  on("hide-all", "click", () => { for (const run of compared().filter(isFiltered)) chosen.hidden.add(run.name); shownChanged(); });
  on("rest", "change", (input) => { chosen.rest = input.checked; memory(); });
  on("theme", "click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  setTheme(dark.matches ? "dark" : "light");
  let before = null;
  addEventListener("beforeprint", () => { before = document.documentElement.dataset.theme; chosen.printing = true; setTheme("light"); });
  addEventListener("afterprint", () => { chosen.printing = false; if (before) setTheme(before); });
  document.addEventListener("click", (event) => { for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") for (const menu of document.querySelectorAll(".menu[open]")) { menu.open = false; menu.firstElementChild.focus(); } });
}

const EVERY_MILLISECONDS = 3000;

let version = null;

// Newer data, where there are any.
async function ask() {
  const told = byId("live");
  told.hidden = false;
  try {
    const answer = await fetch("data.json", { cache: "no-store", headers: version ? { "If-None-Match": version } : {} });
    if (answer.status === 200) {
      version = answer.headers.get("ETag");
      load(await answer.json());
    }
    told.textContent = answer.ok || answer.status === 304 ? `live \u00b7 ${data.made}` : "the server cannot read the runs now";
  } catch {
    told.textContent = "the server is gone; these are the last data";
  }
}

async function watch() {
  await ask();
  setTimeout(watch, EVERY_MILLISECONDS);
}

listen();
load(JSON.parse(byId("data").textContent));
document.documentElement.dataset.drawnAfter = performance.now().toFixed(0);
if (data.watched) watch();
