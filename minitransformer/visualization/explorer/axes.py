"""What stands along an axis of an attention map: tokens, the patches of an image, or the frames of a sound."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

from ..checks import axis_labels
from ..token_text import token_label


@dataclass(frozen=True)
class ImagePatches:
    """An axis of rows × columns patches of an image, in reading order, after `prefix` tokens such as "[CLS]".

    image: (height, width) or (height, width, 3), uint8 or float in 0..1. Raises ValueError for other shapes or values.
    """

    image: np.ndarray
    rows: int
    columns: int
    prefix: tuple = ()

    def describe(self, axis, length):
        labels = [f"patch {r},{c}" for r in range(self.rows) for c in range(self.columns)]
        return _picture(axis, length, self.prefix, labels, _pixels(self.image), self.rows, self.columns)


@dataclass(frozen=True)
class AudioFrames:
    """An axis of `count` frames in time over a spectrogram (frequencies, times), low frequencies first.

    seconds: length of one frame, for the labels. prefix: tokens before the first frame.
    """

    spectrogram: np.ndarray
    count: int
    seconds: float
    prefix: tuple = ()

    def describe(self, axis, length):
        values = np.asarray(self.spectrogram, dtype=np.float64)
        if values.ndim != 2 or not values.size or not np.isfinite(values).all():
            raise ValueError(
                f"explore: the spectrogram of the {axis} axis must be a finite (frequencies, times) array, "
                f"got shape {values.shape}"
            )
        spread = np.ptp(values) or 1.0
        labels = [f"{i * self.seconds:.2f} s" for i in range(self.count)]
        return _picture(
            axis, length, self.prefix, labels, _pixels((values[::-1] - values.min()) / spread), 1, self.count
        )


@dataclass(frozen=True)
class Axis:
    """An axis as the page gets it: a label for each position, whole tokens for hovering, and perhaps a picture."""

    labels: list
    full: dict = field(default_factory=dict)  # position -> longer text, where the label is elided
    picture: dict | None = None

    def packed(self):
        return {"labels": self.labels, "full": self.full, "picture": self.picture}


def describe_axis(labels, axis, length):
    """Tokens, `ImagePatches`, `AudioFrames` or None (positions) -> Axis. Raises ValueError for a wrong number."""
    if isinstance(labels, ImagePatches | AudioFrames):
        return labels.describe(axis, length)
    tokens = axis_labels("explore", labels, axis, length)
    shown = [token_label(token, 24) for token in tokens]
    whole = [token_label(token, 400) for token in tokens]
    return Axis(shown, {i: text for i, text in enumerate(whole) if text != shown[i]})


def _picture(axis, length, prefix, labels, pixels, rows, columns):
    if len(prefix) + len(labels) != length:
        raise ValueError(
            f"explore: the {axis} axis has length {length} but there are {len(prefix)} prefix tokens "
            f"and {rows} × {columns} parts of the picture"
        )
    picture = {"url": png_url(pixels), "rows": rows, "columns": columns, "offset": len(prefix)}
    picture |= {"height": pixels.shape[0], "width": pixels.shape[1]}
    return Axis([*(token_label(token, 24) for token in prefix), *labels], {}, picture)


def _pixels(image):
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"explore: an image must have shape (height, width) or (height, width, 3), got {image.shape}")
    if image.dtype != np.uint8:
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ValueError("explore: an image must be uint8, or float with values in 0..1")
        image = np.rint(image * 255).astype(np.uint8)
    return image


def png_url(pixels):
    """uint8 pixels (height, width[, 3]) as a data: URL with a PNG in it (RFC 2083: one IDAT chunk, no row filters)."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
