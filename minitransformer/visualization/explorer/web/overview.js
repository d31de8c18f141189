// Every head at once: thumbnails, or one number a head as colour. A click selects.

const overview = { side: 0, tall: 0, left: 26, top: 18, gap: 3, small: new Map() };

const DESCRIPTIONS = {
  entropy: "0: looks at one key; 1: at all visible keys alike",
  "effective keys": "exp(entropy): how many keys a row spreads over",
  "mean distance": "tokens between a query and the keys it looks at",
  "first token": "weight on the first key, the attention sink",
  diagonal: "weight on the query's own position",
  "previous token": "weight on the position just before",
  induction: "weight on what followed earlier occurrences of the query's token",
  "strongest weight": "the largest weight of a row, on average; rows that see one key only are left out",
  "JS divergence": "how far the rows are from the other model's or the first step's, in bits: 0 same, 1 disjoint",
  "largest difference": "the largest change of one weight against the other model or the first step",
};

function drawOverview() {
  const canvas = byId("overview"), source = meta.sources[state.source];
  const columns = Math.max(...source.heads), rows = source.heads.length;
  const room = canvas.parentElement.clientWidth - overview.left - 2;
  const { gap, left, top } = overview;
  const side = Math.max(16, Math.min(92, room / columns - gap));
  const tall = Math.max(12, side * Math.max(0.4, Math.min(1.6, meta.queries / meta.keys)));
  Object.assign(overview, { side, tall });
  const width = left + columns * (side + gap) + 2, height = top + rows * (tall + gap) + 2;
  canvas.style.width = `${width}px`;
  const context = sized(canvas, width, height);
  context.fillStyle = css("--muted");
  context.textBaseline = "middle";
  context.textAlign = "center";
  const every = Math.ceil(22 / (side + gap));
  for (let h = 0; h < columns; h += every) context.fillText(h, left + h * (side + gap) + side / 2, top / 2);
  context.textAlign = "right";
  const numbers = state.colour === "maps" ? null : source.statistics[state.colour];
  const [low, high] = numbers ? bounds(numbers) : [0, 1];
  for (let l = 0; l < rows; l++) {
    context.fillStyle = css("--muted");
    context.textAlign = "right";
    context.fillText(l, left - 8, top + l * (tall + gap) + tall / 2);
    for (let h = 0; h < source.heads[l]; h++) {
      const x = left + h * (side + gap), y = top + l * (tall + gap);
      if (numbers) {
        const value = numbers[l][h];
        const word = value === null ? wordOf(css("--masked")) : RAMPS.weight[Math.round((255 * (value - low)) / (high - low || 1))];
        context.fillStyle = cssOf(word);
        context.fillRect(x, y, side, tall);
        if (side > 34 && value !== null) {
          context.fillStyle = isDark(word) ? "#fff" : "#1f2328";
          context.textAlign = "center";
          context.fillText(numberText(value, 2), x + side / 2, y + tall / 2);
        }
      } else {
        context.imageSmoothingEnabled = side < meta.thumbnail[1];
        context.drawImage(thumbnail(state.source, l, h), x, y, side, tall);
      }
    }
  }
  context.lineWidth = 2.5;
  for (const [key, colour] of [[otherHead(), "--accent"], [`${state.source}-${state.layer}-${state.head}`, "--mark"]]) {
    if (!key) continue;
    const [s, l, h] = key.split("-").map(Number);
    if (s !== state.source) continue;
    context.strokeStyle = css(colour);
    context.strokeRect(left + h * (side + gap) - 1, top + l * (tall + gap) - 1, side + 2, tall + 2);
  }
  canvas.setAttribute("aria-label", `${rows} layers, ${columns} heads; selected ${nameOf(`${state.source}-${state.layer}-${state.head}`)}`);
  byId("overview-note").textContent = numbers
    ? `${DESCRIPTIONS[state.colour]} (${low <= high ? `here ${numberText(low, 2)} to ${numberText(high, 2)}` : "not defined here"})`
    : "layers down, heads across; each picture has queries down, keys across";
  drawBest(numbers);
}

function bounds(numbers) {
  const all = numbers.flat().filter((v) => v !== null);
  return [Math.min(...all), Math.max(...all)];
}

function drawBest(numbers) {
  const all = [];
  if (numbers) numbers.forEach((row, l) => row.forEach((value, h) => value !== null && all.push({ l, h, value })));
  all.sort((a, b) => b.value - a.value);
  byId("best").replaceChildren(...all.slice(0, 5).map(({ l, h, value }) => {
    const button = document.createElement("button");
    button.textContent = `layer ${l} head ${h}: ${numberText(value, 2)}`;
    button.onclick = () => select({ layer: l, head: h });
    return button;
  }));
}

function thumbnail(s, l, h) {
  const key = [s, l, h, state.scale, state.theme].join();
  if (!overview.small.has(key)) {
    if (overview.small.size > 4000) overview.small.clear();
    const colour = colourOf(1, false);
    const codes = meta.sources[s].thumbnails[l][h];
    const values = Float32Array.from(codes, (code) => (code === 255 ? NaN : (code / 254) ** 2));
    overview.small.set(key, pixels(values, meta.thumbnail[0], meta.thumbnail[1], colour));
  }
  return overview.small.get(key);
}

function headAt(event) {
  const box = byId("overview").getBoundingClientRect();
  const { left, top, side, tall, gap } = overview;
  const head = Math.floor((event.clientX - box.left - left) / (side + gap));
  const layer = Math.floor((event.clientY - box.top - top) / (tall + gap));
  const heads = meta.sources[state.source].heads;
  return layer >= 0 && layer < heads.length && head >= 0 && head < heads[layer] ? { layer, head } : null;
}

function startOverview() {
  const canvas = byId("overview");
  canvas.addEventListener("click", (event) => headAt(event) && select(headAt(event)));
  canvas.addEventListener("pointermove", (event) => {
    const at = headAt(event);
    canvas.title = at ? nameOf(`${state.source}-${at.layer}-${at.head}`) : "";
  });
  views.push(drawOverview);
}
