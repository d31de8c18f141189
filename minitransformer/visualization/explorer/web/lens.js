// The logit lens: for each layer (last on top) and position, the token it would predict, coloured by its probability.

const lens = { first: 0, count: 0, cell: 0, left: 0, row: 22 };

function drawLens() {
  const canvas = byId("lens"), { names, tokens, probabilities } = meta.lens;
  const width = canvas.parentElement.clientWidth - 28;
  const probe = canvas.getContext("2d");
  probe.font = "11.5px system-ui, sans-serif";
  lens.left = 10 + Math.max(...names.map((name) => probe.measureText(name).width));
  lens.count = Math.min(meta.queries, Math.max(1, Math.floor((width - lens.left) / 66)));
  lens.cell = Math.min(110, (width - lens.left) / lens.count);
  lens.first = Math.max(0, Math.min(meta.queries - lens.count, state.token - (lens.count >> 1)));
  const height = (names.length + 1) * lens.row + 4;
  const context = sized(canvas, width, height), colour = colourOf(1, false);
  context.textBaseline = "middle";
  names.forEach((name, r) => {
    const y = (names.length - 1 - r) * lens.row;
    context.textAlign = "right";
    context.fillStyle = css("--muted");
    context.fillText(name, lens.left - 6, y + lens.row / 2);
    context.textAlign = "center";
    for (let i = 0; i < lens.count; i++) {
      const word = colour(probabilities[r][lens.first + i][0]), x = lens.left + i * lens.cell;
      context.fillStyle = cssOf(word);
      context.fillRect(x, y, lens.cell - 1, lens.row - 1);
      context.fillStyle = isDark(word) ? "#fff" : "#1f2328";
      context.fillText(fitted(context, tokens[r][lens.first + i][0], lens.cell - 6), x + lens.cell / 2, y + lens.row / 2);
    }
  });
  for (let i = 0; i < lens.count; i++) {
    const at = lens.first + i;
    context.fillStyle = css(at === state.token ? "--mark" : "--ink");
    context.fillText(fitted(context, labels("query")[at], lens.cell - 4), lens.left + (i + 0.5) * lens.cell, height - lens.row / 2);
  }
  context.strokeStyle = css("--mark");
  context.lineWidth = 2;
  context.strokeRect(lens.left + (state.token - lens.first) * lens.cell - 0.5, 1, lens.cell, height - 3);
  canvas.setAttribute("aria-label", `predictions of ${names.length} layers at positions ${lens.first} to ${lens.first + lens.count - 1}`);
  describeLens(names.length - 1, state.token);
}

function describeLens(r, query) {
  const { names, tokens, probabilities } = meta.lens;
  const list = tokens[r][query].map((token, i) => `${token} ${numberText(probabilities[r][query][i], 3)}`);
  byId("lens-note").textContent = `${names[r]}, after query ${query} “${labels("query")[query]}”: ${list.join(", ")}`;
}

function lensCell(event) {
  const box = byId("lens").getBoundingClientRect();
  const i = Math.floor((event.clientX - box.left - lens.left) / lens.cell);
  const r = meta.lens.names.length - 1 - Math.floor((event.clientY - box.top) / lens.row);
  return i >= 0 && i < lens.count ? { r: Math.max(0, r), query: lens.first + i } : null;
}

function startLens() {
  if (!meta.lens) return;
  byId("lens-card").hidden = false;
  byId("lens").addEventListener("pointermove", (event) => {
    const at = lensCell(event);
    if (at) describeLens(at.r, at.query);
  });
  byId("lens").addEventListener("click", (event) => {
    const at = lensCell(event);
    if (at) select({ token: at.query, key: null });
  });
  views.push(drawLens);
}
