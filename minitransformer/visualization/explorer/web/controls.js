// Menus, keys, saving, the cover that asks for a guess, and the start of everything.

const KEYS = [
  ["← →", "head"], ["↑ ↓", "layer"], ["j k", "next, previous query"], ["h l", "previous, next key"], [", .", "training step or source"],
  ["m", "A, B, A − B"], ["p", "compare other heads with this one; again: stop"], ["s", "colour scale: linear, √, log"],
  ["c", "colour the heads by the next statistic"], ["d", "direction: attends to, attended by"], ["+ − 0", "zoom in, out, whole (also Ctrl + wheel)"],
  ["t", "dark or light"], ["?", "this list"],
];

const cycle = (values, value, by = 1) => values[(values.indexOf(value) + by + values.length) % values.length];
const colours = () => ["maps", ...Object.keys(meta.sources[state.source].statistics)];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !byId("cover").hidden) return;
  if (/^(SELECT|INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
  const key = state.key ?? strongest(state.token);
  const actions = {
    ArrowRight: () => select({ head: state.head + 1 }), ArrowLeft: () => select({ head: state.head - 1 }),
    ArrowDown: () => select({ layer: state.layer + 1 }), ArrowUp: () => select({ layer: state.layer - 1 }),
    j: () => select({ token: state.token + 1, key: null }), k: () => select({ token: state.token - 1, key: null }),
    l: () => select({ key: key + 1 }), h: () => select({ key: key - 1 }),
    ".": () => select({ source: state.source + 1 }), ",": () => select({ source: state.source - 1 }),
    m: () => select({ mode: cycle(["A", "B", "difference"], state.mode) }), p: togglePin,
    s: () => select({ scale: cycle(Object.keys(SCALES), state.scale) }), c: () => select({ colour: cycle(colours(), state.colour) }),
    d: () => select({ direction: state.direction === "to" ? "by" : "to" }), t: () => select({ theme: state.theme === "dark" ? "light" : "dark" }),
    "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: () => moveView(wholeView()),
    "?": () => byId("help").showModal(),
  };
  if (byId("help").open || !actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function togglePin() {
  const own = `${state.source}-${state.layer}-${state.head}`;
  select(state.pin ? { pin: null } : { pin: own });
}

function fill(menu, options) {
  menu.replaceChildren(...options.map(([value, text]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    return option;
  }));
}

function drawControls() {
  const steps = kinds("step"), other = otherHead(), source = byId("source"), slider = byId("step");
  byId("source-field").hidden = meta.sources.length - steps.length < 1 || meta.sources.length < 2;
  byId("step-field").hidden = steps.length < 2;
  source.value = state.source;
  slider.value = Math.max(0, steps.indexOf(state.source));
  byId("step-value").textContent = steps.includes(state.source) ? meta.sources[state.source].step : "–";
  byId("other-field").hidden = meta.sources.length < 2 && !state.pin;
  fill(byId("other"), [["", "nothing"], ...meta.sources.map((s, i) => [i, s.name]), ...(state.pin ? [["pin", nameOf(state.pin)]] : [])]);
  byId("other").value = state.pin ? "pin" : state.other ?? "";
  byId("mode").hidden = !other;
  byId("pin").textContent = state.pin ? "stop comparing" : "compare with this";
  fill(byId("colour"), colours().map((name) => [name, name === "maps" ? "as pictures" : `by ${name}`]));
  byId("colour").value = state.colour;
  for (const name of ["mode", "scale", "direction"]) {
    for (const button of byId(name).children) button.setAttribute("aria-pressed", button.dataset.value === state[name]);
  }
}

function download(name, blob) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}

const fileName = (suffix) => `layer-${state.layer}-head-${state.head}.${suffix}`;

function savePng() {
  const from = byId("matrix"), ratio = from.width / from.clientWidth, title = Math.round(34 * ratio);
  const canvas = document.createElement("canvas");
  canvas.width = from.width;
  canvas.height = from.height + title;
  const context = canvas.getContext("2d");
  context.fillStyle = css("--card");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = css("--ink");
  context.font = `600 ${Math.round(14 * ratio)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillText(fitted(context, `${meta.title}: ${byId("head-name").textContent}`, canvas.width - 20 * ratio), 10 * ratio, title / 2);
  context.drawImage(matrix.base, 0, title);
  canvas.toBlob((blob) => download(fileName("png"), blob));
}

// The selected head as numbers; masked weights are null, and long rows hold only [key, weight] pairs.
function headJson() {
  const round = (value) => (Number.isNaN(value) ? null : Number(value.toPrecision(5)));
  const sparse = meta.topK !== null;
  const rows = Array.from({ length: meta.queries }, (_, q) => {
    const row = Array.from(shownRow(q), round);
    return sparse ? row.flatMap((value, k) => (value ? [[k, value]] : [])) : row;
  });
  const numbers = Object.entries(meta.sources[state.source].statistics).map(([name, t]) => [name, t[state.layer][state.head]]);
  return {
    title: meta.title, head: byId("head-name").textContent, layer: state.layer, index: state.head, mode: state.mode, worst_error: meta.sources[state.source].worstError,
    format: sparse ? "rows of [key, weight]" : "rows of weights", query_labels: labels("query"), key_labels: labels("key"),
    statistics: Object.fromEntries(numbers), attention: rows,
  };
}

function ask(question) {
  if (!question) return;
  byId("cover").hidden = false;
  byId("question").textContent = question.text;
  const buttons = question.choices.map((text, i) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.onclick = () => {
      buttons.forEach((b, j) => {
        b.disabled = true;
        b.classList.toggle("right", j === question.answer);
        b.classList.toggle("wrong", j === i && i !== question.answer);
      });
      byId("verdict").textContent = `${i === question.answer ? "Right." : `It is: ${question.choices[question.answer]}.`} ${question.why}`;
      byId("reveal").textContent = "look for yourself";
      byId("reveal").focus();
    };
    return button;
  });
  byId("choices").replaceChildren(...buttons);
  byId("reveal").onclick = () => {
    byId("cover").hidden = true;
    byId("matrix").focus();
  };
  buttons[0].focus();
}

function startControls() {
  byId("title").textContent = meta.title;
  byId("caption").textContent = meta.caption;
  const steps = kinds("step");
  fill(byId("source"), meta.sources.map((s, i) => [i, s.name]));
  byId("source").onchange = (event) => select({ source: Number(event.target.value) });
  byId("step").max = steps.length - 1;
  byId("step").oninput = (event) => select({ source: steps[Number(event.target.value)] });
  byId("other").onchange = ({ target }) => target.value !== "pin" && select({ pin: null, other: target.value === "" ? null : Number(target.value) });
  byId("colour").onchange = (event) => select({ colour: event.target.value });
  byId("pin").onclick = togglePin;
  byId("theme").onclick = () => select({ theme: state.theme === "dark" ? "light" : "dark" });
  byId("save-png").onclick = savePng;
  byId("save-json").onclick = () => download(fileName("json"), new Blob([JSON.stringify(headJson())], { type: "application/json" }));
  byId("help-button").onclick = () => byId("help").showModal();
  for (const name of ["mode", "scale", "direction"]) {
    byId(name).onclick = ({ target }) => target.dataset.value && select({ [name]: target.dataset.value });
  }
  byId("keys").replaceChildren(...KEYS.map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return line;
  }));
  const worst = Math.max(...meta.sources.filter((s) => s.kind !== "map").map((s) => s.worstError)), dropped = Math.max(...meta.sources.map((s) => s.dropped));
  byId("encoding").textContent = `Weights are stored as ${meta.encoding}: what is shown is at most ${numberText(worst)} away from the given number` +
    (dropped > 0 ? `; a row leaves out up to ${numberText(dropped, 3)} of its mass (shown on hovering).` : ".");
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => {
    if (location.hash === written) return;
    readHash();
    select({});
  });
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => select({}), 80);
  });
  views.push(drawControls);
}

function reveal() { // once there is something to draw, and before it is drawn: what is hidden has no size
  byId("loading").hidden = true;
  byId("shell").hidden = false;
}

async function start() {
  await loadMeta();
  const steps = kinds("step"), whole = kinds("attention");
  if (steps.length > 1) Object.assign(state, { source: steps.at(-1), other: steps[0] });
  else if (whole.length > 1) state.other = whole[1];
  if (matchMedia("(prefers-color-scheme: dark)").matches) state.theme = "dark";
  Object.assign(state, meta.start);
  const revealed = new URLSearchParams(location.hash.slice(1)).has("reveal"); // `select` writes the link anew
  readHash();
  views.push(reveal);
  startControls();
  startOverview();
  startMatrix();
  startTokens();
  startDetails();
  startLens();
  await select({});
  if (!revealed) ask(meta.question);
  // For lessons and tests: read the selection, change it, ask for numbers.
  window.explorer = { state, select, meta, cellCentre, cellNumbers, headJson, ready: true };
}

start().catch(stop);
