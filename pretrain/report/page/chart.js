"use strict";
// Line charts on a canvas: linear and logarithmic axes, zoom, a cursor that reads values, by pointer and by keyboard.

const MARGIN = { top: 10, right: 14, bottom: 42, left: 62 };

// Round numbers from low to high: about `count`, or the 1-2-5 of each decade on a logarithmic axis of more than one.
function ticks(low, high, count, log) {
  const found = [];
  if (log && high / low > 12) {
    const decades = Math.log10(high / low), multiples = decades > 6 ? [1] : decades > 2.5 ? [1, 3] : [1, 2, 5];
    const every = Math.max(1, Math.ceil(decades / 8));
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += every)
      for (const multiple of multiples) {
        const value = multiple * Math.pow(10, power);
        if (value >= low && value <= high) found.push(Number(value.toPrecision(6)));
      }
    return found;
  }
  const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 2.5, 5, 10].map((multiple) => multiple * power).find((size) => size >= raw) || power * 10;
  for (let place = Math.ceil(low / step); found.length <= 2 * count && place * step <= high + step * 1e-9; place++) found.push(Number((place * step).toPrecision(12)));
  return found;
}

// The factor to draw a unit's ticks in round numbers, and its name.
function inUnits(unit, largest) {
  const sizes = {
    bytes: [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["B", 0]],
    seconds: [["hours", 7200], ["minutes", 180], ["seconds", 0.5], ["milliseconds", 5e-4], ["microseconds", 0]],
  };
  const factors = { TiB: 2 ** 40, GiB: 2 ** 30, MiB: 2 ** 20, KiB: 2 ** 10, B: 1, hours: 3600, minutes: 60, seconds: 1, milliseconds: 1e-3, microseconds: 1e-6 };
  if (unit === "share") return { name: "%", factor: 0.01 };
  if (!(unit in sizes)) return { name: unit, factor: 1 };
  const name = sizes[unit].find(([, from]) => largest >= from)[0];
  return { name, factor: factors[name] };
}

class Chart {
  // `listener.zoomed([low, high] or null)`: the user chose a stretch of x for all charts.
  constructor(curve, listener) {
    this.curve = curve;
    this.listener = listener;
    this.lines = [];
    this.cursor = null;
    this.zoomY = null;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.overlay = element("canvas", { "aria-hidden": "true", class: "overlay" });
    this.tip = element("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.spoken = element("p", { class: "unseen", "aria-live": "polite" });
    this.plot = element("div", { class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart", "aria-describedby": "keys" }, this.canvas, this.overlay, this.tip);
    this.note = element("p", { class: "note" });
    this.wide = element("button", { type: "button", class: "quiet", "aria-pressed": "false", title: "Use the whole width" }, "wide");
    this.save = element("button", { type: "button", class: "quiet", title: "Save this chart as an image" }, "PNG");
    this.heading = element("h3", {}, curve.title);
    this.figure = element("figure", { class: "chart", "data-curve": curve.key }, element("div", { class: "head" }, this.heading, this.wide, this.save), this.plot, this.note, this.spoken);
    this.plot.setAttribute("aria-label", curve.title);
    this.#listen();
  }

  // lines: {label, style, x, y, low, high, faint: {x, y}, reach: {x, y}}; options: {axis, logX, logY, zoom, outliers, target, highlighted}
  show(lines, options) {
    this.lines = lines;
    this.options = options;
    this.draw();
  }

  highlight(key) {
    if (!this.options) return;
    this.options.highlighted = key;
    this.draw();
  }

  draw() {
    if (!this.options) return;
    const width = this.plot.clientWidth, height = this.plot.clientHeight;
    if (!width || !height) return;
    this.width = width;
    this.height = height;
    this.scales = this.#scales();
    this.note.textContent = this.#noteText();
    this.context = this.#prepared(this.canvas);
    this.#drawAxes();
    if (this.scales) this.#drawLines();
    this.#drawCursor();
    if (this.options.printing) this.context.getImageData(0, 0, 1, 1); // or what is drawn now is missing on paper
  }

  #prepared(canvas) {
    const ratio = (window.devicePixelRatio || 1) * (this.options.printing ? 2 : 1), context = canvas.getContext("2d");
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(this.height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    return context;
  }

  #noteText() {
    if (this.lines.some((line) => line.x.length)) return this.scales ? "" : "Nothing of it can be drawn on these axes.";
    return this.lines.length ? "None of the runs shown has values here." : "All runs are hidden.";
  }

  // {x, y}: {low, high, log, from, to}; null where there is nothing to draw
  #scales() {
    const { logX, logY, zoom, outliers } = this.options;
    let low = Infinity, high = -Infinity;
    for (const line of this.lines)
      for (const at of line.x.length ? [line.x[0], line.x[line.x.length - 1]] : []) {
        if (at < low) low = at;
        if (at > high) high = at;
      }
    if (low === Infinity) return null;
    if (logX) {
      low = Infinity;
      for (const line of this.lines) {
        const at = line.x[firstFrom(line.x, Number.MIN_VALUE)];
        if (at > 0 && at < low) low = at;
      }
    } else if (!zoom && low > 0 && low < 0.5 * high) low = 0;
    if (zoom) [low, high] = zoom;
    if (logX && !(low > 0)) low = high > 0 ? high * 1e-3 : NaN;
    if (!(high > low)) [low, high] = logX ? [low / 1.5, high * 1.5] : [low - 0.5, high + 0.5];
    if (!Number.isFinite(low)) return null;
    const y = this.zoomY || this.#rangeOfY(low, high, logY, outliers);
    if (!y) return null;
    const scale = (from, to, begin, end, log) => ({ low: from, high: to, begin, end, log });
    return { x: scale(low, high, MARGIN.left, this.width - MARGIN.right, logX), y: scale(y[0], y[1], this.height - MARGIN.bottom, MARGIN.top, logY) };
  }

  #rangeOfY(low, high, log, withoutOutliers) {
    let all = [], bottom = Infinity, top = -Infinity;
    const take = (x, y) => {
      const end = Math.min(firstFrom(x, high) + 1, x.length);
      for (let i = Math.max(firstFrom(x, low) - 1, 0); i < end; i++) {
        const value = y[i];
        if (!Number.isFinite(value) || (log && value <= 0)) continue;
        if (withoutOutliers) all.push(value);
        if (value < bottom) bottom = value;
        if (value > top) top = value;
      }
    };
    for (const line of this.lines) {
      take(line.x, line.y);
      if (line.low) { take(line.x, line.low); take(line.x, line.high); }
      if (line.faint) take(line.faint.x, line.faint.y);
    }
    if (bottom === Infinity) return null;
    if (withoutOutliers && all.length > 20) {
      all = Float64Array.from(all).sort();
      bottom = all[Math.floor(0.02 * (all.length - 1))];
      top = all[Math.ceil(0.98 * (all.length - 1))];
    }
    if (top - bottom <= 1e-6 * Math.max(Math.abs(top), Math.abs(bottom))) return log ? [bottom / 1.5, top * 1.5] : [bottom - Math.abs(bottom || 1) * 0.1, top + Math.abs(top || 1) * 0.1];
    if (log) { const margin = Math.pow(top / bottom, 0.05); return [bottom / margin, top * margin]; }
    const margin = 0.05 * (top - bottom);
    return [bottom >= 0 && bottom - margin < 0 ? 0 : bottom - margin, top + margin];
  }

  #pixel(scale, value) {
    const share = scale.log ? Math.log(value / scale.low) / Math.log(scale.high / scale.low) : (value - scale.low) / (scale.high - scale.low);
    return scale.begin + share * (scale.end - scale.begin);
  }

  #value(scale, pixel) {
    const share = (pixel - scale.begin) / (scale.end - scale.begin);
    return scale.log ? scale.low * Math.pow(scale.high / scale.low, share) : scale.low + share * (scale.high - scale.low);
  }

  #drawAxes() {
    const context = this.context, colours = this.options.colours, right = this.width - MARGIN.right, bottom = this.height - MARGIN.bottom;
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 1;
    context.strokeStyle = colours.grid;
    context.fillStyle = colours.soft;
    if (this.scales) {
      const { x, y } = this.scales, axis = AXES[this.options.axis];
      const yUnit = inUnits(this.curve.unit, Math.max(Math.abs(y.low), Math.abs(y.high))), xUnit = inUnits(axis.unit, x.high);
      context.textAlign = "right";
      context.textBaseline = "middle";
      const yTicks = ticks(y.low / yUnit.factor, y.high / yUnit.factor, 5, y.log), small = Math.abs(y.high / yUnit.factor) < 1e4;
      const decimals = y.log || !small ? null : Math.max(...yTicks.map((tick) => (String(tick).split(".")[1] || "").length));
      for (const tick of yTicks) {
        const at = Math.round(this.#pixel(y, tick * yUnit.factor)) + 0.5;
        context.beginPath();
        context.moveTo(MARGIN.left, at);
        context.lineTo(right, at);
        context.stroke();
        context.fillText(decimals !== null && decimals < 6 ? tick.toFixed(decimals) : small ? significant(tick, 5) : compact(tick), MARGIN.left - 7, at);
      }
      context.textAlign = "center";
      context.textBaseline = "top";
      let free = -Infinity;
      for (const tick of ticks(x.low / xUnit.factor, x.high / xUnit.factor, Math.max(3, Math.floor(this.width / 90)), x.log)) {
        const at = this.#pixel(x, tick * xUnit.factor), text = compact(tick), half = context.measureText(text).width / 2;
        if (at - half < free) continue;
        free = at + half + 8;
        context.beginPath();
        context.moveTo(Math.round(at) + 0.5, bottom);
        context.lineTo(Math.round(at) + 0.5, bottom + 4);
        context.stroke();
        context.fillText(text, Math.min(at, this.width - half - 1), bottom + 7);
      }
      context.fillText(axis.title + (xUnit.name ? `, ${xUnit.name}` : ""), (MARGIN.left + right) / 2, bottom + 24);
      context.textAlign = "left";
      context.save();
      context.translate(4, (MARGIN.top + bottom) / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText(yUnit.name, 0, 0);
      context.restore();
    }
    context.strokeStyle = colours.axis;
    context.beginPath();
    context.moveTo(MARGIN.left + 0.5, MARGIN.top);
    context.lineTo(MARGIN.left + 0.5, bottom + 0.5);
    context.lineTo(right, bottom + 0.5);
    context.stroke();
  }

  #drawLines() {
    const context = this.context, { highlighted, colours, target } = this.options, { x, y } = this.scales;
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top - 2, this.width - MARGIN.left - MARGIN.right, this.height - MARGIN.top - MARGIN.bottom + 4);
    context.clip();
    context.lineJoin = "round";
    const order = highlighted === null ? this.lines : [...this.lines.filter((line) => line.key !== highlighted), ...this.lines.filter((line) => line.key === highlighted)];
    for (const line of order) {
      const dim = highlighted !== null && line.key !== highlighted, colour = colours.series[line.style.colour];
      context.strokeStyle = context.fillStyle = colour;
      if (line.low) {
        context.globalAlpha = dim ? 0.04 : 0.18;
        this.#fillBand(line);
      }
      if (line.faint) {
        context.globalAlpha = dim ? 0.05 : 0.22;
        context.lineWidth = 1;
        context.setLineDash([]);
        this.#stroke(line.faint.x, line.faint.y);
      }
      context.globalAlpha = dim ? 0.15 : 1;
      context.lineWidth = line.key === highlighted ? 3 : this.lines.length > 20 ? 1.25 : 1.9;
      context.setLineDash(line.style.dash);
      this.#stroke(line.x, line.y);
      context.setLineDash([]);
      const marks = line.x.length === 1 ? [{ x: line.x[0], y: line.y[0] }] : [];
      if (line.reach) marks.push(line.reach);
      for (const mark of marks) {
        context.beginPath();
        context.arc(this.#pixel(x, mark.x), this.#pixel(y, mark.y), 4.5, 0, 2 * Math.PI);
        context.fill();
        context.strokeStyle = colours.card;
        context.lineWidth = 1.5;
        context.stroke();
        context.strokeStyle = colour;
      }
    }
    context.globalAlpha = 1;
    if (target !== null && target >= y.low && target <= y.high) {
      const at = Math.round(this.#pixel(y, target)) + 0.5;
      context.strokeStyle = colours.text;
      context.lineWidth = 1;
      context.setLineDash([2, 4]);
      context.beginPath();
      context.moveTo(x.begin, at);
      context.lineTo(x.end, at);
      context.stroke();
      context.textAlign = "left";
      const below = at < MARGIN.top + 14; // no room above it
      context.textBaseline = below ? "top" : "bottom";
      context.fillStyle = colours.text;
      context.fillText(`target ${significant(target, 6)}`, x.begin + 6, at + (below ? 3 : -3)); // where curves that near it have not arrived yet
    }
    context.restore();
  }

  // The points from one before the left edge to one behind the right one; of those in one pixel column the first, extremes and last.
  #stroke(xs, ys) {
    const context = this.context, { x, y } = this.scales;
    const begin = Math.max(firstFrom(xs, x.low) - 1, 0), end = Math.min(firstFrom(xs, x.high) + 1, xs.length);
    context.beginPath();
    let column = NaN, low = 0, high = 0, last = 0, pen = false;
    const flush = () => {
      if (low !== high) { context.lineTo(column, low); context.lineTo(column, high); }
      context.lineTo(column, last);
    };
    for (let i = begin; i < end; i++) {
      if ((x.log && xs[i] <= 0) || (y.log && ys[i] <= 0)) continue;
      const px = Math.round(this.#pixel(x, xs[i]) * 2) / 2, py = this.#pixel(y, ys[i]);
      if (px === column) {
        if (py < low) low = py;
        if (py > high) high = py;
        last = py;
        continue;
      }
      if (pen) flush();
      if (!pen) context.moveTo(px, py); else context.lineTo(px, py);
      pen = true;
      column = px;
      low = high = last = py;
    }
    if (pen) flush();
    context.stroke();
  }

  #fillBand(line) {
    const context = this.context, { x, y } = this.scales, bounded = (value) => (y.log ? Math.max(value, y.low * 1e-3) : value);
    const begin = Math.max(firstFrom(line.x, x.log ? Math.max(x.low, Number.MIN_VALUE) : x.low) - 1, 0), end = Math.min(firstFrom(line.x, x.high) + 1, line.x.length);
    const first = x.log && line.x[begin] <= 0 ? begin + 1 : begin;
    context.beginPath();
    for (let i = first; i < end; i++) context.lineTo(this.#pixel(x, line.x[i]), this.#pixel(y, bounded(line.low[i])));
    for (let i = end - 1; i >= first; i--) context.lineTo(this.#pixel(x, line.x[i]), this.#pixel(y, bounded(line.high[i])));
    context.fill();
  }

  // The cursor ---------------------------------------------------------------------------------------------------------------------

  // What every line has at x, best known by distance to `pixelY` where there is one.
  readings(at) {
    if (!this.scales) return [];
    const found = [];
    for (const line of this.lines) {
      const after = firstFrom(line.x, at), near = [after - 1, after].filter((i) => i >= 0 && i < line.x.length);
      if (!near.length) continue;
      const i = near.reduce((a, b) => (Math.abs(line.x[a] - at) <= Math.abs(line.x[b] - at) ? a : b));
      const gap = Math.abs(this.#pixel(this.scales.x, line.x[i]) - this.#pixel(this.scales.x, at));
      if (after < line.x.length && after > 0 ? false : gap > 12) continue; // before its beginning or behind its end
      found.push({ line, x: line.x[i], y: line.y[i], low: line.low ? line.low[i] : null, high: line.high ? line.high[i] : null });
    }
    return found.sort((a, b) => b.y - a.y);
  }

  setCursor(at, pixelY, speak) {
    this.cursor = at;
    this.pixelY = pixelY;
    this.#drawCursor();
    if (speak && at !== null) {
      const axis = AXES[this.options.axis];
      const values = this.readings(at).slice(0, 12).map((found) => `${found.line.label} ${reading(found.y, this.curve.unit)}`);
      this.spoken.textContent = `${axis.title} ${axis.text(at)}: ${values.join(", ") || "no values"}`;
    }
  }

  #drawCursor() {
    if (!this.width) return;
    const context = this.#prepared(this.overlay), colours = this.options.colours;
    this.tip.hidden = true;
    if (this.drag) {
      const { left, top, right, bottom } = this.#dragged();
      context.fillStyle = colours.text;
      context.globalAlpha = 0.12;
      context.fillRect(left, top, right - left, bottom - top);
      return;
    }
    if (this.cursor === null || !this.scales) return;
    const { x, y } = this.scales, at = this.#pixel(x, this.cursor);
    if (at < x.begin - 1 || at > x.end + 1) return;
    context.strokeStyle = colours.soft;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(Math.round(at) + 0.5, MARGIN.top);
    context.lineTo(Math.round(at) + 0.5, this.height - MARGIN.bottom);
    context.stroke();
    context.setLineDash([]);
    let found = this.readings(this.cursor);
    for (const each of found) {
      const py = this.#pixel(y, each.y);
      if (!(py >= y.end - 3 && py <= y.begin + 3)) continue;
      context.fillStyle = colours.series[each.line.style.colour];
      context.beginPath();
      context.arc(this.#pixel(x, each.x), py, 3.5, 0, 2 * Math.PI);
      context.fill();
    }
    if (!found.length || this.pixelY === undefined) return;
    const distance = (each) => Math.abs(this.#pixel(y, each.y) - this.pixelY);
    const nearest = this.pixelY === null ? null : found.reduce((a, b) => (distance(a) <= distance(b) ? a : b));
    const most = 10, more = found.length - most;
    if (more > 0) {
      const kept = new Set(this.pixelY === null ? found.slice(0, most) : [...found].sort((a, b) => distance(a) - distance(b)).slice(0, most));
      found = found.filter((each) => kept.has(each));
    }
    const axis = AXES[this.options.axis];
    this.tip.replaceChildren(
      element("div", { class: "at" }, `${axis.title} ${axis.text((nearest || found[0]).x)}`),
      ...found.map((each) =>
        element("div", { class: each === nearest ? "row near" : "row" }, swatch(each.line.style), element("span", { class: "name" }, each.line.label),
          element("span", { class: "value" }, reading(each.y, this.curve.unit) + (each.low !== null ? ` (${reading(each.low, this.curve.unit)} to ${reading(each.high, this.curve.unit)})` : "")))),
      more > 0 ? element("div", { class: "at" }, `and ${more} more`) : "",
    );
    this.tip.hidden = false;
    const width = this.tip.offsetWidth, right = at + 14 + width < this.width;
    const left = right ? at + 14 : Math.max(0, at - 14 - width);
    this.tip.style.transform = `translate(${Math.round(Math.min(left, Math.max(0, this.width - width)))}px, ${MARGIN.top}px)`;
  }

  #dragged() {
    const { x0, y0, x1, y1 } = this.drag, { x, y } = this.scales, inX = (at) => Math.min(Math.max(at, x.begin), x.end), inY = (at) => Math.min(Math.max(at, y.end), y.begin);
    const box = Math.abs(y1 - y0) > 24;
    return { left: inX(Math.min(x0, x1)), right: inX(Math.max(x0, x1)), top: box ? inY(Math.min(y0, y1)) : y.end, bottom: box ? inY(Math.max(y0, y1)) : y.begin, box };
  }

  #endDrag() {
    const area = this.#dragged(), { x, y } = this.scales;
    this.drag = null;
    if (area.right - area.left < 6) { this.#drawCursor(); return; }
    if (area.box) this.zoomY = [this.#value(y, area.bottom), this.#value(y, area.top)];
    this.listener.zoomed([this.#value(x, area.left), this.#value(x, area.right)]);
  }

  #listen() {
    const place = (event) => { const box = this.plot.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.scales) return;
      const [x, y] = place(event);
      if (event.pointerType === "touch") { this.listener.cursor(this, this.#value(this.scales.x, x), y); return; }
      this.drag = { x0: x, y0: y, x1: x, y1: y };
      this.plot.setPointerCapture(event.pointerId);
    });
    this.plot.addEventListener("pointermove", (event) => {
      if (!this.scales) return;
      const [x, y] = place(event);
      if (this.drag) { this.drag.x1 = x; this.drag.y1 = y; this.#drawCursor(); return; }
      const inside = x >= this.scales.x.begin - 2 && x <= this.scales.x.end + 2;
      this.listener.cursor(this, inside ? this.#value(this.scales.x, x) : null, y);
    });
    this.plot.addEventListener("pointerup", () => { if (this.drag) this.#endDrag(); });
    this.plot.addEventListener("pointercancel", () => { this.drag = null; this.#drawCursor(); });
    this.plot.addEventListener("pointerleave", () => { if (!this.drag) this.listener.cursor(this, null); });
    this.plot.addEventListener("dblclick", () => this.listener.zoomed(null));
    this.plot.addEventListener("blur", () => this.listener.cursor(this, null));
    this.plot.addEventListener("keydown", (event) => this.#key(event));
    this.wide.addEventListener("click", () => {
      this.wide.setAttribute("aria-pressed", String(this.figure.classList.toggle("wide")));
      this.draw();
    });
    this.save.addEventListener("click", () => this.#savePicture());
  }

  #key(event) {
    if (!this.scales || event.ctrlKey || event.metaKey || event.altKey) return;
    const { x } = this.scales, middle = this.#value(x, (x.begin + x.end) / 2), cursor = this.cursor === null ? middle : this.cursor;
    const at = this.#pixel(x, cursor), step = (x.end - x.begin) / 50, quarter = (x.end - x.begin) / 4;
    const move = (pixel) => this.listener.cursor(this, this.#value(x, Math.min(Math.max(pixel, x.begin), x.end)), null, true);
    const stretch = (from, to) => this.listener.zoomed([this.#value(x, from), this.#value(x, to)]);
    const actions = {
      ArrowLeft: () => (event.shiftKey ? stretch(x.begin - quarter, x.end - quarter) : move(at - step)),
      ArrowRight: () => (event.shiftKey ? stretch(x.begin + quarter, x.end + quarter) : move(at + step)),
      Home: () => move(x.begin),
      End: () => move(x.end),
      "+": () => stretch(at - quarter, at + quarter),
      "=": () => stretch(at - quarter, at + quarter),
      "-": () => stretch(x.begin - 2 * quarter, x.end + 2 * quarter),
      0: () => this.listener.zoomed(null),
      Escape: () => this.listener.zoomed(null),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  #savePicture() {
    const copy = element("canvas", {}), context = copy.getContext("2d");
    const ratio = this.canvas.width / this.width, shown = this.lines.slice(0, 24), row = 18, head = 30;
    copy.width = this.canvas.width;
    copy.height = this.canvas.height + (head + row * shown.length + 8) * ratio;
    context.scale(ratio, ratio);
    context.fillStyle = this.options.colours.card;
    context.fillRect(0, 0, this.width, copy.height / ratio);
    context.drawImage(this.canvas, 0, head, this.width, this.height);
    context.fillStyle = this.options.colours.text;
    context.font = "600 15px system-ui, sans-serif";
    context.fillText(this.curve.title, 12, 21);
    context.font = "12px system-ui, sans-serif";
    shown.forEach((line, place) => {
      const at = head + this.height + row * place + 8;
      context.strokeStyle = this.options.colours.series[line.style.colour];
      context.lineWidth = 2;
      context.setLineDash(line.style.dash);
      context.beginPath();
      context.moveTo(MARGIN.left, at);
      context.lineTo(MARGIN.left + 26, at);
      context.stroke();
      context.fillText(line.label, MARGIN.left + 34, at + 4);
    });
    copy.toBlob((blob) => {
      const link = element("a", { href: URL.createObjectURL(blob), download: `${this.curve.key.replace("/", "_")}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
}
