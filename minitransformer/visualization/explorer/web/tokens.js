// The axes as what they are: words tinted by weight, or a picture whose patches glow. A click selects.

const axisViews = []; // { axis, paint(weights, selected) }

function wordsView(axis, place) {
  const box = document.createElement("div");
  box.className = "words";
  const spaced = labels(axis).some((text) => /^␣./.test(text)); // then spaces are drawn, and text reads as text
  box.classList.toggle("apart", !spaced);
  const spans = labels(axis).map((text, i) => {
    const span = document.createElement("span");
    span.textContent = text.replace(/^␣(?=.)/, "");
    span.classList.toggle("spaced", span.textContent !== text);
    span.dir = "auto";
    span.title = `${i}: ${(meta[axis] || meta.query).full[i] || text}`;
    span.onclick = () => pick(axis, i);
    return span;
  });
  box.append(...spans);
  place.append(box);
  return (weights, selected) => {
    const [more, less] = shown.signed ? [css("--more"), css("--less")] : [css("--hue"), css("--hue")];
    spans.forEach((span, i) => {
      const tint = weights && !Number.isNaN(weights[i]) ? SCALES[state.scale](Math.min(1, Math.abs(weights[i]) / shown.top)) : 0;
      const colour = weights && weights[i] < 0 ? less : more;
      span.style.backgroundColor = `rgba(${colour}, ${(0.95 * tint).toFixed(3)})`;
      span.classList.toggle("strong", tint > 0.6);
      span.classList.toggle("selected", i === selected);
      span.style.opacity = weights && Number.isNaN(weights[i]) ? 0.45 : 1;
    });
    const chosen = spans[selected];
    if (!chosen) return;
    const above = chosen.offsetTop - box.offsetTop; // scroll the box, never the page
    if (above < box.scrollTop || above + chosen.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = above - box.clientHeight / 2;
  };
}

function pictureView(axis, place) {
  const picture = (meta[axis] || meta.query).picture;
  const prefix = document.createElement("div");
  prefix.className = "words";
  const spans = labels(axis).slice(0, picture.offset).map((text, i) => {
    const span = document.createElement("span");
    span.textContent = text;
    span.onclick = () => pick(axis, i);
    return span;
  });
  prefix.append(...spans);
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${axis} picture of ${picture.rows} × ${picture.columns} parts`);
  place.append(prefix, canvas);
  const image = new Image();
  let last = null;
  const paint = (weights, selected) => {
    last = [weights, selected];
    const width = Math.min(place.clientWidth, picture.rows === 1 ? 1200 : 520), height = Math.max(60, Math.min(520, (width * picture.height) / picture.width));
    canvas.style.width = `${width}px`;
    const context = sized(canvas, width, height);
    context.imageSmoothingEnabled = picture.width > width;
    if (image.complete && image.naturalWidth) context.drawImage(image, 0, 0, width, height);
    const w = width / picture.columns, h = height / picture.rows;
    for (let i = 0; i < picture.rows * picture.columns; i++) {
      const x = (i % picture.columns) * w, y = Math.floor(i / picture.columns) * h;
      if (weights) { // strong parts stay clear, weak ones sink into the page
        const strength = SCALES[state.scale](Math.min(1, Math.abs(weights[picture.offset + i] || 0) / (largest(weights) || 1)));
        context.fillStyle = css("--card");
        context.globalAlpha = 0.86 * (1 - strength);
        context.fillRect(x, y, w + 0.5, h + 0.5);
        context.globalAlpha = 1;
      }
      if (picture.offset + i === selected) {
        context.strokeStyle = css("--mark");
        context.lineWidth = 2.5;
        context.strokeRect(x + 1.2, y + 1.2, w - 2.4, h - 2.4);
      }
    }
    spans.forEach((span, i) => span.classList.toggle("selected", i === selected));
  };
  image.onload = () => last && paint(...last);
  image.src = picture.url;
  canvas.onclick = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * picture.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * picture.rows);
    pick(axis, picture.offset + row * picture.columns + column);
  };
  return paint;
}

function pick(axis, i) {
  if (sameAxis()) select(state.direction === "by" ? { key: i } : { token: i, key: null });
  else if (axis === "query") select({ token: i, direction: "to" });
  else select({ key: i, direction: "by" });
}

function drawTokens() {
  const by = state.direction === "by";
  const key = state.key ?? strongest(state.token);
  const weights = by ? shownColumn(key) : shownRow(state.token);
  byId("text-title").textContent = by
    ? `Who looks at key ${key}, “${labels("key")[key]}”?`
    : `What does query ${state.token}, “${labels("query")[state.token]}”, look at?`;
  for (const { axis, paint } of axisViews) {
    if (sameAxis()) paint(weights, by ? key : state.token);
    else if (axis === "query") paint(by ? weights : null, by ? null : state.token);
    else paint(by ? null : weights, by ? key : null);
  }
}

function startTokens() {
  const box = byId("axes"), axes = sameAxis() ? ["query"] : ["query", "key"];
  const strip = axes.some((axis) => (meta[axis] || meta.query).picture?.rows === 1); // sound wants the whole width
  box.classList.toggle("two", axes.length === 2 && !strip);
  for (const axis of axes) {
    const place = document.createElement("div");
    place.className = "axis";
    if (axes.length === 2) {
      const title = document.createElement("h3");
      title.textContent = axis === "query" ? "queries (look)" : "keys (looked at)";
      place.append(title);
    }
    box.append(place);
    axisViews.push({ axis, paint: ((meta[axis] || meta.query).picture ? pictureView : wordsView)(axis, place) });
  }
  views.push(drawTokens);
}
