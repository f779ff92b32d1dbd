"use strict";
// From packed curves (pretrain/report/packing.py) to points.

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// {at, value}: the points to draw, thinned ones by their extremes, and {meanAt, mean, length}: what smoothing and seeds are taken over.
// `at` counts lines of the run, from 0; a point that lines lack is left out.
function unpack(packed) {
  if ("c" in packed) {
    const known = packed.c !== null && packed.n > 0, ends = packed.n > 1 ? [0, packed.n - 1] : [0];
    const at = known ? ends : [], value = at.map(() => packed.c);
    return { at, value, meanAt: at, mean: value, length: 1 };
  }
  const bytes = bytesOf(packed.v), at = [], value = [];
  if (packed.k === 1) {
    const values = new Float32Array(bytes.buffer);
    for (let i = 0; i < packed.n; i++)
      if (Number.isFinite(values[i])) { at.push(i); value.push(values[i]); }
    return { at, value, meanAt: at, mean: value, length: 1 };
  }
  const stretches = bytes.length / 11, meanAt = [], mean = [], scale = Math.max(packed.k, 256) / 256;
  const [lows, highs] = [0, 1].map((place) => new Float32Array(bytes.buffer, 4 * stretches * place, stretches));
  const [lowPlaces, highPlaces, shares] = [8, 9, 10].map((place) => bytes.subarray(stretches * place, stretches * (place + 1)));
  for (let i = 0; i < stretches; i++) {
    const low = lows[i], high = highs[i];
    if (!Number.isFinite(low)) continue;
    const begin = packed.k * i, end = Math.min(begin + packed.k, packed.n) - 1;
    const lowAt = Math.min(end, begin + Math.floor(lowPlaces[i] * scale)), highAt = Math.min(end, begin + Math.floor(highPlaces[i] * scale));
    if (lowAt <= highAt) { at.push(lowAt); value.push(low); }
    if (lowAt !== highAt) { at.push(highAt); value.push(high); }
    if (lowAt > highAt) { at.push(lowAt); value.push(low); }
    meanAt.push((begin + end) / 2);
    mean.push(low + (shares[i] / 255) * (high - low));
  }
  return { at, value, meanAt, mean, length: packed.k };
}

// Where on an axis the lines `at` lie: linear between its knots.
function along(axis, at) {
  const x = new Float64Array(at.length), { i: knots, v: values } = axis;
  let k = 0;
  for (let n = 0; n < at.length; n++) {
    while (k < knots.length - 2 && knots[k + 1] < at[n]) k++;
    const next = Math.min(k + 1, knots.length - 1), width = knots[next] - knots[k];
    x[n] = width ? values[k] + ((at[n] - knots[k]) / width) * (values[next] - values[k]) : values[k];
  }
  return x;
}

// Exponential moving average without the pull to zero at the beginning; `weight` is per line, `length` lines stand behind a value.
function smoothed(values, weight, length) {
  if (!weight) return values;
  const kept = Math.pow(weight, length), result = new Float64Array(values.length);
  let average = 0, correction = 0;
  for (let i = 0; i < values.length; i++) {
    average = kept * average + (1 - kept) * values[i];
    correction = kept * correction + (1 - kept);
    result[i] = average / correction;
  }
  return result;
}

// The first place in rising `x` that is not below `wanted`.
function firstFrom(x, wanted) {
  let low = 0, high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low;
}

// Mean, lowest and highest of several curves, where all of them have values: at the points of the one with the fewest.
function meanAndBand(curves) {
  const filled = curves.filter((curve) => curve.x.length);
  if (filled.length < 2) return filled[0] ? { x: filled[0].x, y: filled[0].y, low: null, high: null } : null;
  let begin = -Infinity, end = Infinity, fewest = filled[0];
  for (const curve of filled) {
    begin = Math.max(begin, curve.x[0]);
    end = Math.min(end, curve.x[curve.x.length - 1]);
    if (curve.x.length < fewest.x.length) fewest = curve;
  }
  const x = [], y = [], low = [], high = [], behind = filled.map(() => 0);
  for (let i = firstFrom(fewest.x, begin); i < fewest.x.length && fewest.x[i] <= end; i++) {
    const at = fewest.x[i];
    let sum = 0, lowest = Infinity, highest = -Infinity;
    for (let c = 0; c < filled.length; c++) {
      const { x: xs, y: ys } = filled[c];
      while (behind[c] < xs.length - 1 && xs[behind[c]] < at) behind[c]++;
      const after = behind[c], before = after > 0 ? after - 1 : 0, width = xs[after] - xs[before];
      const value = width > 0 && at < xs[after] ? ys[before] + ((at - xs[before]) / width) * (ys[after] - ys[before]) : ys[after];
      sum += value;
      if (value < lowest) lowest = value;
      if (value > highest) highest = value;
    }
    x.push(at);
    y.push(sum / filled.length);
    low.push(lowest);
    high.push(highest);
  }
  return { x, y, low, high };
}

// The first evaluation at the target or better: {at, x}, or null.
function firstReach(unpacked, target, lower) {
  const place = unpacked.value.findIndex((value) => (lower ? value <= target : value >= target));
  return place < 0 ? null : { at: unpacked.at[place], value: unpacked.value[place] };
}
