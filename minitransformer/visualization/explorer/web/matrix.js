// One head's matrix on a canvas: queries down, keys across, labels that fit, zoom, and the numbers under the pointer.

const matrix = {
  left: 0, top: 8, width: 0, height: 0, // the plot in CSS pixels
  view: null, // the visible cells: { q, k, queries, keys }, which may start between cells
  steps: { query: 1, key: 1 }, // every so many-th label is written
  base: null, // everything but the cross-hair, drawn once per selection
  hover: null, drag: null, followed: "",
};

const wholeView = () => ({ q: 0, k: 0, queries: meta.queries, keys: meta.keys });
const plotLimit = () => Math.max(260, window.innerHeight * 0.82);
const isWhole = (view) => view.queries >= meta.queries && view.keys >= meta.keys;

function drawMatrix() {
  const canvas = byId("matrix");
  const width = Math.max(240, canvas.parentElement.clientWidth - 28);
  matrix.view ||= wholeView();
  follow();
  const probe = canvas.getContext("2d");
  probe.font = "11.5px system-ui, sans-serif";
  const limit = width < 460 ? 72 : 120, ratio = Math.max(0.3, Math.min(1.5, meta.queries / meta.keys));
  const least = width - limit - 30, steps = matrix.steps; // the plot is at least so wide
  steps.key = Math.max(1, Math.ceil((13 * matrix.view.keys) / least));
  steps.query = Math.max(1, Math.ceil((13 * matrix.view.queries) / Math.min(least * ratio, plotLimit())));
  const widest = (axis) => {
    const all = labels(axis), every = steps[axis] * Math.ceil(all.length / steps[axis] / 400); // a sample: measuring is slow
    return all.reduce((w, text, i) => (i % every ? w : Math.max(w, probe.measureText(text).width)), 12);
  };
  matrix.left = 24 + Math.min(limit, widest("query") + 4);
  const below = Math.min(limit, widest("key") + 4); // room under the plot, for labels that are turned
  matrix.width = width - matrix.left - 6;
  matrix.height = Math.min(matrix.width * ratio, plotLimit());
  const context = sized(canvas, width, matrix.top + matrix.height + below + 66);
  drawCells(context);
  drawLabels(context, "query", below);
  drawLabels(context, "key", below);
  drawLegend(context, matrix.top + matrix.height + below + 30, width);
  matrix.base = document.createElement("canvas");
  matrix.base.width = canvas.width;
  matrix.base.height = canvas.height;
  matrix.base.getContext("2d").drawImage(canvas, 0, 0);
  const name = nameOf(state.mode === "B" ? otherHead() : `${state.source}-${state.layer}-${state.head}`);
  byId("head-name").textContent = shown.signed ? differenceName(name, nameOf(otherHead())) : name;
  canvas.setAttribute("aria-label", `attention of ${name}, ${meta.queries} queries by ${meta.keys} keys`);
  drawCross();
  drawReadout();
}

// A selection made elsewhere is brought into a zoomed view.
function follow() {
  const { view, followed } = matrix, chosen = `${state.token} ${state.key}`;
  matrix.followed = chosen;
  if (followed === chosen || isWhole(view)) return;
  const into = (first, count, at) => (at >= first && at + 1 <= first + count ? first : at + 0.5 - count / 2);
  view.q = Math.max(0, Math.min(meta.queries - view.queries, into(view.q, view.queries, state.token)));
  if (state.key !== null) view.k = Math.max(0, Math.min(meta.keys - view.keys, into(view.k, view.keys, state.key)));
}

// "A − B: float32 − int8 · layer 1, head 3", or both names in full when they differ in more than the source.
function differenceName(a, b) {
  const [source, place] = a.split(" · "), [otherSource, otherPlace] = b.split(" · ");
  return place && place === otherPlace ? `A − B: ${source} − ${otherSource} · ${place}` : `A − B: ${a} − ${b}`;
}

function drawCells(context) {
  const { left, top, width, height, view } = matrix;
  const ratio = window.devicePixelRatio || 1;
  let n = 0; // the level at which a cell is at least one screen pixel
  while (n < shown.levels.length - 1 && ((width * ratio) / view.keys) * 2 ** n < 1) n++;
  const level = shown.levels[n], size = 2 ** n;
  const r0 = Math.floor(view.q / size), r1 = Math.min(level.rows, Math.ceil((view.q + view.queries) / size));
  const c0 = Math.floor(view.k / size), c1 = Math.min(level.columns, Math.ceil((view.k + view.keys) / size));
  const part = new Float32Array((r1 - r0) * (c1 - c0));
  for (let r = r0; r < r1; r++) part.set(level.values.subarray(r * level.columns + c0, r * level.columns + c1), (r - r0) * (c1 - c0));
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.imageSmoothingEnabled = false;
  const cell = { width: width / view.keys, height: height / view.queries };
  context.drawImage(
    pixels(part, r1 - r0, c1 - c0, colourOf(shown.top, shown.signed)),
    left + (c0 * size - view.k) * cell.width, top + (r0 * size - view.q) * cell.height,
    (c1 - c0) * size * cell.width, (r1 - r0) * size * cell.height,
  );
  if (cell.width > 34 && cell.height > 18) writeValues(context, cell);
  context.restore();
}

function writeValues(context, cell) {
  const { left, top, view } = matrix, colour = colourOf(shown.top, shown.signed);
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let q = Math.floor(view.q); q < Math.min(meta.queries, view.q + view.queries); q++) {
    for (let k = Math.floor(view.k); k < Math.min(meta.keys, view.k + view.keys); k++) {
      const value = shown.values[q * meta.keys + k];
      if (Number.isNaN(value)) continue;
      context.fillStyle = isDark(colour(value)) ? "#fff" : "#1f2328";
      const number = value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");
      context.fillText(number, left + (k - view.k + 0.5) * cell.width, top + (q - view.q + 0.5) * cell.height);
    }
  }
}

function drawLabels(context, axis, below) {
  const { left, top, width, height, view } = matrix, isQuery = axis === "query";
  const first = isQuery ? view.q : view.k, count = isQuery ? view.queries : view.keys, length = isQuery ? height : width;
  const texts = labels(axis), step = matrix.steps[axis];
  const flat = !isQuery && below < (length / count) * step; // labels narrower than their cells need not turn
  context.fillStyle = css("--ink");
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let i = Math.ceil(first / step) * step; i < Math.min(texts.length, first + count); i += step) {
    const at = ((i - first + 0.5) / count) * length;
    if (at < 0 || at > length) continue;
    context.save();
    if (isQuery) context.translate(left - 5, top + at);
    else {
      context.translate(left + at, top + height + 5);
      if (flat) context.textAlign = "center";
      else context.rotate(-Math.PI / 2);
    }
    context.fillText(fitted(context, texts[i], isQuery ? left - 27 : below - 4), 0, flat ? 6 : 0);
    context.restore();
  }
  context.fillStyle = css("--muted");
  context.textAlign = "center";
  context.save();
  if (isQuery) {
    context.translate(9, top + height / 2);
    context.rotate(-Math.PI / 2);
    context.fillText("query (looks)", 0, 0);
  } else context.fillText("key (looked at)", left + width / 2, top + height + below + 12);
  context.restore();
}

function drawLegend(context, y, width) {
  const { left } = matrix, bar = Math.min(240, width - left - 96), colour = colourOf(shown.top, shown.signed);
  for (let x = 0; x < bar; x++) {
    const t = x / (bar - 1);
    context.fillStyle = cssOf(colour(shown.signed ? shown.top * (2 * t - 1) : shown.top * t));
    context.fillRect(left + x, y, 1.5, 9);
  }
  context.fillStyle = css("--muted");
  context.textBaseline = "top";
  const ends = shown.signed ? [-shown.top, 0, shown.top] : [0, shown.top / 2, shown.top];
  ends.forEach((value, i) => {
    context.textAlign = ["left", "center", "right"][i];
    const meaning = shown.signed ? ["B more ", "", " A more"][i] : "";
    const number = numberText(value, 2).replace(/\.?0+$/, "") || "0";
    context.fillText(i ? number + meaning : meaning + number, left + (bar * i) / 2, y + 12);
  });
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = css("--masked");
  if (meta.visible !== "all") {
    context.fillRect(left + bar + 14, y - 1, 12, 11);
    context.fillStyle = css("--muted");
    context.fillText("masked", left + bar + 31, y + 5);
  }
}

function drawCross() {
  const canvas = byId("matrix"), context = canvas.getContext("2d"), { left, top, width, height, view } = matrix;
  context.save();
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(matrix.base, 0, 0);
  context.restore();
  context.save();
  context.beginPath();
  context.rect(left - 2, top - 2, width + 4, height + 4);
  context.clip();
  const box = (q, k, queries, keys) =>
    context.strokeRect(left + ((k - view.k) / view.keys) * width, top + ((q - view.q) / view.queries) * height,
      (keys / view.keys) * width, (queries / view.queries) * height);
  context.strokeStyle = css("--mark");
  context.lineWidth = 2;
  if (state.direction === "by" && state.key !== null) box(0, state.key, meta.queries, 1);
  else box(state.token, 0, 1, meta.keys);
  if (matrix.hover) {
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    box(matrix.hover.q, matrix.hover.k, 1, 1);
    context.lineWidth = 1;
    context.strokeStyle = "#000";
    box(matrix.hover.q, matrix.hover.k, 1, 1);
  }
  context.restore();
}

// What the numbers say about one cell: weight, rank in its row, and the mass of the keys at least as strong.
function cellNumbers(q, k) {
  const row = shownRow(q), value = row[k];
  if (Number.isNaN(value)) return null;
  let rank = 1, mass = value, seen = 0;
  row.forEach((other, i) => {
    if (Number.isNaN(other)) return;
    seen += 1;
    if (other > value || (other === value && i < k)) {
      rank += 1;
      mass += other;
    }
  });
  return { value, rank, mass, seen, a: shown.a[q * meta.keys + k], b: shown.b ? shown.b[q * meta.keys + k] : null };
}

function drawReadout() {
  const at = matrix.hover || { q: state.token, k: state.key ?? strongest(state.token) };
  const place = byId("readout"), numbers = cellNumbers(at.q, at.k);
  const token = (axis, i) => {
    const span = document.createElement("span");
    span.className = "token";
    span.dir = "auto";
    span.textContent = (meta[axis] || meta.query).full[i] || labels(axis)[i];
    return span;
  };
  const bold = (id, text) => {
    const b = document.createElement("b");
    b.id = id;
    b.textContent = text;
    return b;
  };
  const parts = [`query ${at.q} `, token("query", at.q), ` → key ${at.k} `, token("key", at.k), document.createElement("br")];
  if (!numbers) parts.push("masked: this query cannot see this key");
  else if (shown.signed) {
    parts.push("A ", bold("read-a", numberText(numbers.a)), " · B ", bold("read-b", numberText(numbers.b)), " · A − B ",
      bold("read-p", (numbers.value > 0 ? "+" : "") + numberText(numbers.value)));
  } else {
    const source = meta.sources[state.mode === "B" ? Number(otherHead().split("-")[0]) : state.source];
    parts.push(source.kind === "map" ? "value " : "probability ", bold("read-p", numberText(numbers.value)),
      " · rank ", bold("read-rank", `${numbers.rank}`), ` of ${numbers.seen}`);
    if (source.kind !== "map") parts.push(" · mass so far ", bold("read-mass", numberText(numbers.mass, 3)));
    if (shown.dropped && numbers.value === 0) {
      parts.push(` · not among the ${meta.topK} stored weights of this row`);
      if (source.kind !== "map") parts.push(`, which leave out ${numberText(shown.dropped[at.q], 3)}`);
    }
  }
  place.replaceChildren(...parts);
}

function strongest(q) {
  let best = 0;
  shownRow(q).forEach((value, k, row) => {
    if (Math.abs(value) > Math.abs(row[best]) || Number.isNaN(row[best])) best = k;
  });
  return best;
}

function cellAt(event) {
  const box = byId("matrix").getBoundingClientRect(), { left, top, width, height, view } = matrix;
  const k = Math.floor(view.k + ((event.clientX - box.left - left) / width) * view.keys);
  const q = Math.floor(view.q + ((event.clientY - box.top - top) / height) * view.queries);
  const inside = event.clientX - box.left >= left && event.clientY - box.top <= top + height;
  return inside && q >= 0 && k >= 0 && q < meta.queries && k < meta.keys ? { q, k } : null;
}

// The middle of a cell in page coordinates, for scripts.
function cellCentre(q, k) {
  const box = byId("matrix").getBoundingClientRect(), { left, top, width, height, view } = matrix;
  return {
    x: box.left + left + ((k - view.k + 0.5) / view.keys) * width,
    y: box.top + top + ((q - view.q + 0.5) / view.queries) * height,
  };
}

function zoom(factor, centre = { q: state.token + 0.5, k: (state.key ?? strongest(state.token)) + 0.5 }) {
  const view = matrix.view;
  const queries = Math.min(meta.queries, Math.max(Math.min(4, meta.queries), view.queries * factor));
  const keys = Math.min(meta.keys, Math.max(Math.min(4, meta.keys), view.keys * factor));
  moveView({
    q: centre.q - ((centre.q - view.q) / view.queries) * queries,
    k: centre.k - ((centre.k - view.k) / view.keys) * keys, queries, keys,
  });
}

function moveView(view) {
  view.q = Math.max(0, Math.min(meta.queries - view.queries, view.q));
  view.k = Math.max(0, Math.min(meta.keys - view.keys, view.k));
  matrix.view = view;
  drawMatrix();
}

function startMatrix() {
  const canvas = byId("matrix");
  canvas.addEventListener("pointermove", (event) => {
    if (matrix.drag) {
      const { view, x, y } = matrix.drag;
      matrix.drag.moved ||= Math.hypot(event.clientX - x, event.clientY - y) > 4;
      if (!matrix.drag.moved) return;
      return moveView({ ...view, k: view.k - ((event.clientX - x) / matrix.width) * view.keys, q: view.q - ((event.clientY - y) / matrix.height) * view.queries });
    }
    matrix.hover = cellAt(event);
    drawCross();
    drawReadout();
  });
  canvas.addEventListener("pointerleave", () => {
    matrix.hover = null;
    drawCross();
    drawReadout();
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (isWhole(matrix.view)) return;
    matrix.drag = { view: matrix.view, x: event.clientX, y: event.clientY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => setTimeout(() => (matrix.drag = null)));
  canvas.addEventListener("click", (event) => {
    const at = cellAt(event);
    if (at && !(matrix.drag && matrix.drag.moved)) select({ token: at.q, key: at.k });
  });
  canvas.addEventListener("wheel", (event) => {
    const at = cellAt(event);
    if (!at || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, { q: at.q + 0.5, k: at.k + 0.5 });
  }, { passive: false });
  byId("zoom-in").onclick = () => zoom(0.6);
  byId("zoom-out").onclick = () => zoom(1 / 0.6);
  views.push(drawMatrix);
}
