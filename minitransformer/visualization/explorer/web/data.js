// The data blocks: base64 -> deflate -> codes -> weights. Layers are unpacked when they are first looked at.

const byId = (id) => document.getElementById(id);

function stop(error) {
  byId("loading").hidden = true;
  byId("failure").hidden = false;
  byId("failure").textContent = `The explorer cannot go on: ${error.message}`;
}

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflated(id) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack the data; Chrome 80, Firefox 113, Safari 16.4 and later can");
  }
  const stream = new Blob([bytesOf(byId(id).textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error(`the file is damaged (block ${id}); make it again`);
  }
}

// The `size` most recently used results of an asynchronous function of a string key.
function remember(size, make) {
  const kept = new Map();
  return (key) => {
    const found = kept.get(key) || make(key);
    kept.delete(key);
    kept.set(key, found);
    if (kept.size > size) kept.delete(kept.keys().next().value);
    return found;
  };
}

let meta = null; // what `explore` wrote, plus thumbnails and the mask
let mask = null; // Uint8Array (queries × keys) for a custom mask

async function loadMeta() {
  meta = JSON.parse(new TextDecoder().decode(await inflated("meta")));
  if (meta.visible === "custom") mask = await inflated("visible");
  const cells = meta.thumbnail[0] * meta.thumbnail[1];
  for (const [s, source] of meta.sources.entries()) {
    const all = await inflated(`thumbnails-${s}`);
    let at = 0;
    source.thumbnails = source.heads.map((heads) =>
      Array.from({ length: heads }, () => all.subarray(at, (at += cells))));
  }
}

function isVisible(query, key) {
  if (meta.visible === "all") return true;
  if (meta.visible === "causal") return key <= query + meta.keys - meta.queries;
  return mask[query * meta.keys + key] === 1;
}

const layerBytes = remember(24, (key) => inflated(`layer-${key}`));

// One head's weights: values Float32Array (queries × keys) with NaN where masked, and the mass each row dropped, or null.
const loadHead = remember(8, async (key) => {
  const [s, l, h] = key.split("-").map(Number);
  const bytes = await layerBytes(`${s}-${l}`);
  const { queries, keys, topK } = meta;
  const source = meta.sources[s];
  const table = Float64Array.from({ length: 256 }, (_, code) => (code / 255) ** 2 * source.scale);
  const values = new Float32Array(queries * keys);
  let dropped = null;
  if (topK === null) {
    const codes = bytes.subarray(h * queries * keys, (h + 1) * queries * keys);
    for (let i = 0; i < codes.length; i++) values[i] = table[codes[i]];
  } else {
    const k = Math.min(topK, keys), plane = queries * k, first = h * (3 * plane + queries);
    dropped = new Float32Array(queries);
    for (let q = 0; q < queries; q++) {
      const row = first + q * k;
      for (let i = 0, at = 0; i < k; i++) {
        at += bytes[row + i] + 256 * bytes[plane + row + i];
        const code = bytes[2 * plane + row + i];
        if (code) values[q * keys + at] = table[code];
      }
      dropped[q] = (bytes[first + 3 * plane + q] / 255) ** 2;
    }
  }
  for (let q = 0; q < queries; q++) {
    const row = values.subarray(q * keys, (q + 1) * keys);
    if (source.kind !== "map") {
      let sum = 0;
      for (const value of row) sum += value;
      const target = 1 - (dropped ? dropped[q] : 0);
      if (sum > 0) for (let k = 0; k < keys; k++) row[k] *= target / sum;
    }
    for (let k = 0; k < keys; k++) if (!isVisible(q, k)) row[k] = NaN;
  }
  return { values, dropped };
});

// Halvings of a matrix for drawing it small: each cell keeps the value of largest magnitude of its 2 × 2; NaN is masked.
function pyramid(values, rows, columns) {
  const levels = [{ values, rows, columns }];
  while (rows > 64 || columns > 64) {
    const below = levels.at(-1);
    const height = Math.ceil(rows / 2), width = Math.ceil(columns / 2);
    const pooled = new Float32Array(height * width).fill(NaN);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const value = below.values[r * columns + c];
        const at = (r >> 1) * width + (c >> 1);
        if (!Number.isNaN(value) && !(Math.abs(pooled[at]) >= Math.abs(value))) pooled[at] = value;
      }
    }
    levels.push({ values: pooled, rows: height, columns: width });
    rows = height;
    columns = width;
  }
  return levels;
}

// Jensen-Shannon divergence of two rows, in bits; masked and dropped weights count as 0.
function jensenShannon(a, b) {
  let bits = 0;
  for (let i = 0; i < a.length; i++) {
    const p = a[i] || 0, q = b[i] || 0, m = (p + q) / 2;
    if (p > 0) bits += 0.5 * p * Math.log2(p / m);
    if (q > 0) bits += 0.5 * q * Math.log2(q / m);
  }
  return Math.min(1, Math.max(0, bits));
}
