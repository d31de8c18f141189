// Colour: viridis for weights, a two-sided map for differences, one tint for words; all safe for colour-blind readers.

const VIRIDIS = "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725";
const PURPLE_ORANGE =
  "2d004b 451871 5f3a91 7b6aa8 9990bf b7b1d5 cfcfe5 e4e5f0 f7f7f6 fce8cd fed59f fdbc6b ee9b39 d97b12 bd6109 9e4c07 7f3b08";
const PURPLE_ORANGE_DARK = "d9ccff b9a3f5 9a7fe0 7a5fc0 5c469a 443673 312a52 242337 1c1f26 33271b 533716 774912 9c5d12 c17519 e29233 f8b262 ffd29c";

// 256 packed RGBA words (little-endian) between equally spaced stops.
function ramp(stops) {
  const rgb = stops.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (rgb.length - 1), low = Math.min(Math.floor(at), rgb.length - 2), f = at - low;
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(rgb[low][c] * (1 - f) + rgb[low + 1][c] * f));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

const RAMPS = { weight: ramp(VIRIDIS), light: ramp(PURPLE_ORANGE), dark: ramp(PURPLE_ORANGE_DARK) };
const SCALES = {
  linear: (x) => x,
  sqrt: (x) => Math.sqrt(x),
  log: (x) => (x <= 1e-4 ? 0 : 1 + Math.log10(x) / 4),
};

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const wordOf = (hex) => {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
};
const cssOf = (word) => `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
const isDark = (word) => 0.299 * (word & 255) + 0.587 * ((word >> 8) & 255) + 0.114 * ((word >> 16) & 255) < 140;

// value -> packed colour, for values in 0..top, or -top..top when signed; NaN is masked.
function colourOf(top, signed) {
  const scale = SCALES[state.scale], masked = wordOf(css("--masked"));
  const words = signed ? RAMPS[state.theme] : RAMPS.weight;
  return (value) => {
    if (Number.isNaN(value)) return masked;
    const size = scale(Math.min(1, Math.abs(value) / top));
    return words[signed ? Math.round(127.5 + 127.5 * Math.sign(value) * size) : Math.round(255 * size)];
  };
}

function numberText(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toExponential(1).replace("-", "−");
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : digits).replace("-", "−");
}

// A canvas of this size in CSS pixels, sharp on any screen -> its 2D context.
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11.5px system-ui, sans-serif";
  return context;
}

// Values (rows × columns) as a small canvas, one pixel a cell.
function pixels(values, rows, columns, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = colour(values[i]);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Text cut to a width with "…" in the middle, so that both ends of a token show.
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  const parts = Array.from(text);
  for (let keep = parts.length - 1; keep > 1; keep--) {
    const cut = parts.slice(0, Math.ceil(keep / 2)).join("") + "…" + parts.slice(parts.length - Math.floor(keep / 2)).join("");
    if (context.measureText(cut).width <= width) return cut;
  }
  return "…";
}
