// One selection, shared by every view, kept in the page's link: #layer=3&head=5&token=12

const state = {
  source: 0, layer: 0, head: 0, token: null, key: null, // what is looked at; token is the query
  mode: "A", other: null, pin: null, // what it is compared with: another source, or one pinned head "s-l-h"
  scale: "sqrt", colour: "maps", direction: "to", theme: "light",
};
const NUMBERS = ["source", "layer", "head", "token", "key", "other"];
const shown = { id: "", a: null, b: null, values: null, levels: null, top: 1, signed: false, dropped: null, change: null }; // of the selection
const views = []; // functions that redraw, in order

const kinds = (kind) => meta.sources.map((s, i) => (s.kind === kind ? i : -1)).filter((i) => i >= 0);
const labels = (axis) => (meta[axis] || meta.query).labels;
const sameAxis = () => meta.key === null;

function clampState() {
  const clamp = (value, count) => Math.max(0, Math.min(count - 1, value | 0));
  state.source = clamp(state.source, meta.sources.length);
  const heads = meta.sources[state.source].heads;
  state.layer = clamp(state.layer, heads.length);
  state.head = clamp(state.head, heads[state.layer]);
  state.token = state.token === null ? meta.queries - 1 : clamp(state.token, meta.queries);
  state.key = state.key === null ? null : clamp(state.key, meta.keys);
  if (state.other !== null) state.other = clamp(state.other, meta.sources.length);
  if (state.pin && !exists(state.pin)) state.pin = null;
  if (!Object.hasOwn(SCALES, state.scale)) state.scale = "sqrt";
  if (!["A", "B", "difference"].includes(state.mode) || !otherHead()) state.mode = "A";
  if (state.direction !== "by") state.direction = "to";
  if (state.theme !== "dark") state.theme = "light";
  if (state.colour !== "maps" && !Object.hasOwn(meta.sources[state.source].statistics, state.colour)) state.colour = "maps";
}

function exists(key) {
  const [s, l, h] = key.split("-").map(Number);
  return s < meta.sources.length && meta.sources[s].heads[l] > h;
}

// The head that A is compared with, as "source-layer-head", or null.
function otherHead() {
  const key = state.pin || `${state.other}-${state.layer}-${state.head}`;
  return (state.pin || state.other !== null) && exists(key) ? key : null;
}

function nameOf(key) {
  const [s, l, h] = key.split("-").map(Number);
  const name = meta.sources.length > 1 ? `${meta.sources[s].name} · ` : "";
  const group = meta.groups && meta.sources[s].kind !== "map" ? ` (key/value head ${Math.floor(h / (meta.sources[s].heads[l] / meta.groups))})` : "";
  return `${name}layer ${l}, head ${h}${group}`;
}

function readHash() {
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (NUMBERS.includes(name)) state[name] = /^\d+$/.test(value) ? Number(value) : state[name];
    else if (name === "pin") state.pin = /^\d+-\d+-\d+$/.test(value) ? value : null;
    else if (["mode", "scale", "colour", "direction", "theme"].includes(name)) state[name] = value;
  }
}

const link = () => "#" + new URLSearchParams(Object.entries(state).filter(([, value]) => value !== null));

let written = "";
function writeHash() {
  written = link();
  try {
    history.replaceState(null, "", written);
  } catch {
    // Inside a notebook's frame the page has no address of its own, and no link to keep.
  }
}

let drawing = 0;
async function select(changes) {
  const before = { ...state };
  Object.assign(state, changes);
  if (state.pin === null && state.other === state.source && before.source !== state.source) state.other = before.source;
  clampState();
  document.documentElement.dataset.theme = state.theme;
  writeHash();
  const ticket = ++drawing;
  const own = `${state.source}-${state.layer}-${state.head}`, other = otherHead();
  let a, b;
  try {
    [a, b] = await Promise.all([loadHead(own), other ? loadHead(other) : null]);
  } catch (error) {
    return stop(error);
  }
  if (ticket !== drawing) return; // a later selection overtook this one
  shown.a = a.values;
  shown.b = b && b.values;
  shown.dropped = state.mode === "B" ? b.dropped : a.dropped;
  shown.signed = state.mode === "difference";
  const id = [own, other, state.mode].join(" ");
  if (id !== shown.id) {
    shown.id = id;
    shown.values = shown.signed ? a.values.map((value, i) => value - b.values[i]) : state.mode === "B" ? b.values : a.values;
    shown.levels = pyramid(shown.values, meta.queries, meta.keys);
    const source = meta.sources[state.mode === "B" ? Number(other.split("-")[0]) : state.source];
    shown.top = shown.signed ? largest(shown.values) || 1 : source.scale; // || 1: two equal heads
    shown.change = b && compared(a.values, b.values);
  }
  for (const draw of views) draw();
}

const largest = (values) => values.reduce((top, value) => Math.max(top, Math.abs(value) || 0), 0);

// Two heads' distance: the Jensen-Shannon divergence of each query's row, and the largest change of a weight.
function compared(a, b) {
  const row = (values, q) => values.subarray(q * meta.keys, (q + 1) * meta.keys);
  const rows = Array.from({ length: meta.queries }, (_, q) => jensenShannon(row(a, q), row(b, q)));
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]) || 0);
  return { rows, mean: rows.reduce((sum, v) => sum + v, 0) / rows.length, most };
}

const shownRow = (query) => shown.values.subarray(query * meta.keys, (query + 1) * meta.keys);
const shownColumn = (key) => Float32Array.from({ length: meta.queries }, (_, q) => shown.values[q * meta.keys + key]);
