// Numbers of the selected head, its distance from the one it is compared with, and its strongest links as lines.

function drawStatistics() {
  const source = meta.sources[state.source], rows = [];
  for (const [name, table] of Object.entries(source.statistics)) {
    const value = table[state.layer][state.head];
    const all = table.flat().filter((v) => v !== null);
    const rank = 1 + all.filter((v) => v > value).length;
    const row = document.createElement("tr");
    row.title = `${DESCRIPTIONS[name] || ""} (click: colour all heads by it)`;
    row.classList.toggle("chosen", state.colour === name);
    row.onclick = () => select({ colour: state.colour === name ? "maps" : name });
    for (const text of [name, numberText(value, 3), value === null ? "" : `${rank} of ${all.length}`]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    rows.push(row);
  }
  byId("statistics").replaceChildren(...rows);
}

function drawComparison() {
  const place = byId("comparison"), other = otherHead();
  byId("comparison-card").hidden = !other;
  if (other) {
    const { rows, mean, most } = shown.change;
    const text = document.createElement("p");
    const bold = document.createElement("b");
    bold.id = "divergence";
    bold.textContent = numberText(mean);
    text.append("Against ", nameOf(other), ": Jensen-Shannon divergence ", bold, ` bits (mean over queries; 0: same rows, 1: no key in common). Largest change of a weight: ${numberText(most, 3)}.`);
    place.replaceChildren(text, chart(place, rows, state.token, "each query's row (bits)"));
  }
}

// How a statistic of this head grew over training.
function drawTrend() {
  const place = byId("trend"), steps = kinds("step");
  place.replaceChildren();
  const name = state.colour === "maps" ? "entropy" : state.colour;
  if (steps.length > 1 && meta.sources[state.source].kind === "step") {
    const values = steps.map((s) => meta.sources[s].statistics[name]?.[state.layer]?.[state.head] ?? NaN);
    place.append(chart(place, values, steps.indexOf(state.source), `${name} at each training step`));
  }
}

// A small bar chart with a caption; the selected bar is marked.
function chart(place, values, selected, caption) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", caption);
  const width = Math.max(160, place.clientWidth), height = 74;
  const context = sized(canvas, width, height);
  const most = values.reduce((top, value) => Math.max(top, value || 0), 1e-9);
  const step = width / values.length;
  values.forEach((value, i) => {
    context.fillStyle = css(i === selected ? "--mark" : "--accent");
    const tall = Number.isNaN(value) ? 0 : Math.max(1, (50 * Math.max(0, value)) / most);
    context.fillRect(i * step, 52 - tall, Math.max(1, step - (step > 4 ? 1 : 0)), tall);
  });
  context.fillStyle = css("--muted");
  context.textBaseline = "top";
  context.fillText(fitted(context, `${caption}, tallest ${numberText(most, 3)}`, width), 0, 57);
  return canvas;
}

const LISTED = 26; // tokens a column of the link view shows at most

function drawLinks() {
  const canvas = byId("links"), width = Math.max(200, canvas.parentElement.clientWidth - 28);
  const query = state.token, row = shownRow(query);
  const best = Array.from(row.keys()).filter((k) => Math.abs(row[k]) > 0).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, 8);
  byId("links-title").textContent = `Strongest links of query ${query}`;
  const window_ = (count, centre) => {
    const first = Math.max(0, Math.min(count - LISTED, centre - (LISTED >> 1)));
    return Array.from({ length: Math.min(count, LISTED) }, (_, i) => first + i);
  };
  const queries = window_(meta.queries, query);
  const keys = meta.keys <= LISTED ? window_(meta.keys, 0) : [...best].sort((a, b) => a - b);
  const line = 19, rows = Math.max(queries.length, keys.length, 1), height = rows * line + 24;
  const context = sized(canvas, width, height);
  const column = Math.min(width * 0.34, 130), x0 = column + 6, x1 = width - column - 6;
  const spread = (list, i) => 22 + (list.length === rows ? i : ((i + 0.5) * rows) / list.length - 0.5) * line + line / 2;
  context.fillStyle = css("--muted");
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.fillText("query", column, 9);
  context.textAlign = "left";
  context.fillText("key", x1 + 6, 9);
  queries.forEach((q, i) => {
    context.textAlign = "right";
    context.fillStyle = css(q === query ? "--mark" : "--ink");
    context.fillText(fitted(context, labels("query")[q], column), column, spread(queries, i));
  });
  keys.forEach((k, i) => {
    context.textAlign = "left";
    context.globalAlpha = best.includes(k) ? 1 : 0.55;
    context.fillStyle = css("--ink");
    const name = meta.keys <= LISTED ? labels("key")[k] : `${labels("key")[k]}  ${k}`;
    context.fillText(fitted(context, name, column), x1 + 6, spread(keys, i));
  });
  const strand = (q, k, value, alpha) => {
    const i = queries.indexOf(q), j = keys.indexOf(k);
    if (i < 0 || j < 0) return;
    context.globalAlpha = alpha;
    context.strokeStyle = shown.signed ? `rgb(${css(value < 0 ? "--less" : "--more")})` : css("--accent");
    context.lineWidth = 0.8 + 5 * Math.min(1, Math.abs(value) / shown.top);
    context.beginPath();
    context.moveTo(x0, spread(queries, i));
    context.bezierCurveTo((x0 + x1) / 2, spread(queries, i), (x0 + x1) / 2, spread(keys, j), x1, spread(keys, j));
    context.stroke();
  };
  for (const q of queries) if (q !== query) strand(q, strongest(q), shown.values[q * meta.keys + strongest(q)], 0.13);
  for (const k of best) strand(query, k, row[k], 0.35 + 0.65 * Math.min(1, Math.abs(row[k]) / shown.top));
  context.globalAlpha = 1;
  canvas.setAttribute("aria-label", `strongest keys of query ${query}: ${best.map((k) => `${k} ${numberText(row[k], 2)}`).join(", ")}`);
}

function startDetails() {
  views.push(drawStatistics, drawTrend, drawComparison, drawLinks);
}
