"""Weights in few bits: the formats, their bytes, and the ways there and back.

    weight = QuantizedWeight.quantize(w, "int4", group=64)         # float (N, K) -> bytes
    weight = QuantizedWeight.from_gguf(memory_map, "q4_1", (N, K))  # a file's blocks as they are, nothing is copied
    kernels.quantized_gemm(x, weight)                              # x weightᵀ
    weight.dequantize()                                            # the numbers that it stands for

Each row of a weight is cut into groups of neighbours along K which share a scale, and a code of 8 or 4 bits stands for

    w = scale · (code - zero)      or      w = scale · code + minimum

    format     code          zero            group       scale    bits a weight at K = 4096
    int8       -128..127     0               the row     float32  8.01
    int4       0..15         8               32 64 128   float16  4.50  4.25  4.13
    int4_zero  0..15         one a group     32 64 128   float16  4.75  4.38  4.19
    q8_0       -128..127     0               32          float16  8.50
    q4_0       0..15         8               32          float16  4.50
    q4_1       0..15         0, and minimum  32          float16  5.00
    float16    the number itself                                  16
    bfloat16   the number itself                                  16

The q formats are GGUF's, byte for byte; int4 with group 32 has the bytes of q4_0. In every 16 bytes of 4-bit codes the
low halves are 16 weights and the high halves the 16 after them.

The bytes lie in one of two layouts. "rows": block after block, row after row, as in a file. "panels": 16 rows side by
side, so that one 64-byte register holds 4 neighbours of each of 16 rows, which is what one dot-product instruction
takes; the same size but for padding (N to a multiple of 16, the K of int8 to one of 32). `panels()` and `rows()`
convert, and lose nothing. Both are described by a NumPy dtype (`_block`), which is their definition.
Source: document D1 §4.1a; ggml's block formats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from .devices import fetch
from .precision import FLOATS

__all__ = ["FORMATS", "QuantizedWeight"]

GROUPS = (32, 64, 128)
FORMATS = {  # format -> (bits, groups, offset of the stored codes)
    "int8": (8, None, 0),
    "int4": (4, GROUPS, 8),
    "int4_zero": (4, GROUPS, 0),
    "q8_0": (8, (32,), 0),
    "q4_0": (4, (32,), 8),
    "q4_1": (4, (32,), 0),
    "float16": (16, None, 0),
    "bfloat16": (16, None, 0),
}
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PANEL = 16


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedWeight:
    """A weight (N, K) in one of FORMATS: `data` is all its bytes, one axis of uint8 in `layout` "rows" or "panels".

    group: how many weights share a scale (K where a row has only one). Raises TypeError or ValueError where the
    format is unknown, the group does not divide K, or `data` has not exactly the bytes that shape and format need;
    nothing is read before that.
    """

    format: str
    shape: tuple[int, int]
    data: np.ndarray
    group: int | None = None
    layout: str = "rows"

    def __post_init__(self):
        N, K = _shape(self.shape)
        object.__setattr__(self, "shape", (N, K))
        object.__setattr__(self, "group", _group(self.format, K, self.group))
        if self.layout not in ("rows", "panels"):
            raise ValueError(f'QuantizedWeight: layout must be "rows" or "panels", got {self.layout!r}')
        data = self.data
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 1:
            found = f"{data.dtype}{list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
            raise TypeError(f"QuantizedWeight: data must be an array of uint8 with one axis, got {found}")
        if not data.flags.c_contiguous:
            raise ValueError("QuantizedWeight: data must be contiguous; np.ascontiguousarray copies it")
        blocks, size = self._blocks()
        needed = math.prod(blocks) * size
        if data.size != needed:
            raise ValueError(
                f"QuantizedWeight: data must have {needed} bytes for {self.format} {self.shape} in {self.layout}, "
                f"got {data.size}"
            )
        if self.format == "int4_zero" and self.view()["zero"].max(initial=0) > 15:
            raise ValueError("QuantizedWeight: data holds a zero-point above 15, so it is no int4_zero weight")

    def __repr__(self):
        group = f", group={self.group}" if (FORMATS[self.format][1] or ()) else ""
        return f"QuantizedWeight({self.format!r}, {self.shape}{group}, {self.data.size} bytes in {self.layout})"

    def _blocks(self):
        """How many blocks there are along each axis, and the bytes of one. A block is one group of one row, or of one
        panel of 16 rows."""
        (N, K), padded = self.shape, self._padded_group()
        groups = -(-K // self.group) if self.group else 1
        bits, rows = FORMATS[self.format][0], PANEL if self.layout == "panels" else 1
        size = rows * (padded * bits // 8 + _SIDE_BYTES[self.format])
        return (-(-N // rows), groups), size

    def _padded_group(self):
        pad = self.format == "int8" and self.layout == "panels"
        return -(-self.group // 32) * 32 if pad else self.group

    def view(self) -> np.ndarray:
        """The bytes as an array (rows or panels, groups) of blocks: a structured array, a view of `data`."""
        blocks, _ = self._blocks()
        return np.ndarray(blocks, _block(self.format, self._padded_group(), self.layout), self.data)

    # ------------------------------------------------------------ float and back

    @classmethod
    def quantize(cls, weight, format: str, group: int | None = None) -> QuantizedWeight:
        """The nearest codes to a float weight (N, K). The scales follow the largest |w| of a group, in int4_zero and
        q4_1 the distance from its smallest to its largest w.

        The codes are found on the CPU, where the bytes then lie: a weight on a device is waited for and copied here.
        Raises ValueError for NaN or infinity, and where a scale (or a number of 16 bits) is too large for its dtype.
        """
        weight = np.asarray(fetch(weight))
        if weight.ndim != 2 or weight.dtype not in FLOATS:
            raise TypeError(f"quantize: weight must be a float array (N, K), got {weight.dtype}{list(weight.shape)}")
        group = _group(format, weight.shape[1], group)
        if not np.isfinite(weight).all():
            raise ValueError("quantize: weight has entries that are NaN or infinite")
        empty = np.zeros(math.prod(_row_blocks(format, weight.shape, group)), np.uint8)
        made = cls(format, weight.shape, empty, group)
        blocks = made.view()
        with np.errstate(over="ignore", invalid="ignore"):
            weight = np.ascontiguousarray(weight, np.float32)
            if format in HALVES:
                blocks["values"][:, 0] = weight.astype(HALVES[format]).view(np.uint16)
                finite = np.isfinite(made.dequantize()).all()
            else:
                _fill(blocks, weight.reshape(*blocks.shape, group), format)
                stored = {"scale", "minimum"} & set(blocks.dtype.names)
                finite = all(np.isfinite(blocks[name]).all() for name in stored)
        if not finite:
            dtype = np.dtype(np.float32) if format == "int8" else HALVES.get(format, HALVES["float16"])
            what = f"{'numbers' if format in HALVES else 'scales'} end at {float(ml_dtypes.finfo(dtype).max):.5g}"
            raise ValueError(f"quantize: weight is too large for {format}, whose {what} ({dtype})")
        return made

    @classmethod
    def from_gguf(cls, data, format: str, shape: tuple[int, int]) -> QuantizedWeight:
        """The blocks of a GGUF tensor (bytes, a memory map, any buffer) as they are: no copy, no conversion.

        format: q8_0, q4_0, q4_1, float16 or bfloat16; shape (N, K), which GGUF writes as (K, N).
        """
        if format not in ("q8_0", "q4_0", "q4_1", *HALVES):
            raise ValueError(f"from_gguf: format must be q8_0, q4_0, q4_1, float16 or bfloat16, got {format!r}")
        try:
            data = np.frombuffer(data, np.uint8)
        except (TypeError, ValueError, BufferError) as error:
            raise TypeError(f"from_gguf: data must be contiguous bytes ({error})") from None
        return cls(format, shape, data)

    def decode(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """integers int8 (N, groups, group), scales float32 (N, groups), minima likewise or None, of an integer format:

        w = scale · integer + minimum, with the zero taken off the integer already.
        """
        if self.format in HALVES:
            raise ValueError(f"decode: {self.format} has no integer codes; dequantize() gives its numbers")
        blocks = self.rows().view()
        codes = blocks["codes"]
        if FORMATS[self.format][0] == 4:
            halves = codes.reshape(*codes.shape[:2], self.group // 32, 16)
            codes = np.concatenate([halves & 15, halves >> 4], -1).reshape(*codes.shape[:2], self.group)
        integers = codes.astype(np.int8) - np.int8(FORMATS[self.format][2])
        if self.format == "int4_zero":
            integers -= blocks["zero"].astype(np.int8)[..., None]
        minima = blocks["minimum"].astype(np.float32) if self.format == "q4_1" else None
        return integers, blocks["scale"].astype(np.float32), minima

    def dequantize(self, dtype=np.float32) -> np.ndarray:
        """The numbers (N, K), worked out in float32 at least. Scales that are NaN or infinite give NaN."""
        if self.format in HALVES:
            return self.rows().view()["values"].view(HALVES[self.format]).reshape(self.shape).astype(dtype)
        integers, scales, minima = self.decode()
        wide = np.float64 if dtype == np.float64 else np.float32
        with np.errstate(invalid="ignore", over="ignore"):
            w = integers.astype(wide) * scales.astype(wide)[..., None]
            if minima is not None:
                w += minima.astype(wide)[..., None]
            return w.reshape(self.shape).astype(dtype)

    def take(self, rows) -> QuantizedWeight:
        """Some rows (n,) as a weight (n, K) of their own, in rows; a table is looked up so."""
        of = self.rows()
        bytes_of_rows = of.data.reshape(self.shape[0], -1)[rows]
        return QuantizedWeight(self.format, bytes_of_rows.shape[:1] + self.shape[1:], bytes_of_rows.ravel(), self.group)

    @classmethod
    def stack(cls, weights) -> QuantizedWeight:
        """Weights (N_i, K) of one format as one (Σ N_i, K), in rows: products with the same x made in one."""
        first = weights[0]
        for weight in weights:
            if (weight.format, weight.group, weight.shape[1]) != (first.format, first.group, first.shape[1]):
                raise ValueError(f"stack: weights must be of one format and width, got {first} and {weight}")
        data = np.concatenate([weight.rows().data for weight in weights])
        return cls(first.format, (sum(weight.shape[0] for weight in weights), first.shape[1]), data, first.group)

    # ------------------------------------------------------------ layouts

    def panels(self) -> QuantizedWeight:
        """The same weight with its bytes in panels, which the C++ kernels stream fastest; rows are copied."""
        if self.layout == "panels":
            return self
        count, groups = -(-self.shape[0] // PANEL), self._blocks()[0][1]
        padded = -(-self.group // 32) * 32 if self.format == "int8" else self.group
        size = count * groups * _block(self.format, padded, "panels").itemsize
        made = QuantizedWeight(self.format, self.shape, np.zeros(size, np.uint8), self.group, "panels")
        rows, panels = self.view(), made.view()
        for name in rows.dtype.names:
            source = np.zeros((count * PANEL, *rows[name].shape[1:]), rows[name].dtype)
            source[: len(rows)] = rows[name]
            source = source.reshape(count, PANEL, groups, *source.shape[2:]).swapaxes(1, 2)
            if name == "values":
                panels[name] = source.swapaxes(-1, -2)
            elif name == "codes":
                if FORMATS[self.format][0] == 8:  # stored as code + 128: the instruction wants one side unsigned
                    source = source.view(np.uint8) ^ 128
                    source = np.pad(source, [(0, 0)] * 3 + [(0, padded - self.group)])
                panels[name] = source.reshape(*source.shape[:3], source.shape[3] // 4, 4).swapaxes(-3, -2)
            else:
                panels[name] = source
        return made

    def rows(self) -> QuantizedWeight:
        """The same weight with its bytes in rows: what `panels()` did, undone."""
        if self.layout == "rows":
            return self
        N, _ = self.shape
        size = math.prod(_row_blocks(self.format, self.shape, self.group))
        made = QuantizedWeight(self.format, self.shape, np.zeros(size, np.uint8), self.group)
        panels, rows = self.view(), made.view()
        for name in rows.dtype.names:
            source = panels[name]
            if name == "values":
                source = source.swapaxes(-1, -2)
            elif name == "codes":
                source = source.swapaxes(-3, -2)
                source = source.reshape(*source.shape[:3], 4 * source.shape[3])
                if FORMATS[self.format][0] == 8:
                    source = (source[..., : self.group] ^ 128).view(np.int8)
            source = source.swapaxes(1, 2)
            rows[name] = source.reshape(PANEL * len(panels), *source.shape[2:])[:N]
        return made


# ---------------------------------------------------------------- parts


_SIDE_BYTES = {  # beside a row's codes in each block: its scale, and what else the format has
    "int8": 4, "int4": 2, "int4_zero": 3, "q8_0": 2, "q4_0": 2, "q4_1": 4, "float16": 0, "bfloat16": 0,
}  # fmt: skip


def _block(format: str, group: int, layout: str) -> np.dtype:
    """One group of one row, or of 16 rows beside each other, as it lies in memory."""
    bits, many = FORMATS[format][0], layout == "panels"
    side = (PANEL,) if many else ()
    if bits == 16:
        return np.dtype([("values", "<u2", (group, *side))])
    scale = ("scale", "<f4" if format == "int8" else "<f2", side)
    extra = {"int4_zero": [("zero", "u1", side)], "q4_1": [("minimum", "<f2", side)]}.get(format, [])
    if many:  # the codes first, so that they are aligned
        return np.dtype([("codes", "u1", (group * bits // 32, PANEL, 4)), scale, *extra])
    return np.dtype([scale, *extra, ("codes", "i1" if bits == 8 else "u1", (group * bits // 8,))])


def _row_blocks(format, shape, group):
    """Rows, groups in a row, bytes in a group."""
    N, K = shape
    return N, K // group if group else 1, group * FORMATS[format][0] // 8 + _SIDE_BYTES[format]


def _shape(shape):
    try:
        N, K = (int(n.__index__()) for n in shape)
    except (TypeError, ValueError, AttributeError):
        raise TypeError(f"QuantizedWeight: shape must be two integers (N, K), got {shape!r}") from None
    if N < 0 or K < 0:
        raise ValueError(f"QuantizedWeight: shape must not be negative, got {(N, K)}")
    return N, K


def _group(format, K, group):
    """The group that is meant, if format and K allow it."""
    if format not in tuple(FORMATS):
        raise ValueError(f"QuantizedWeight: format must be one of {', '.join(FORMATS)}, got {format!r}")
    if group is not None and not isinstance(group, (int, np.integer)):
        raise TypeError(f"QuantizedWeight: group must be an integer, got {group!r}")
    allowed = FORMATS[format][1]
    if allowed is None:
        if group not in (None, K):
            raise ValueError(f"QuantizedWeight: {format} has one group a row, so group must be None, got {group!r}")
        return K
    group = allowed[0] if group is None else group
    if group not in allowed:
        raise ValueError(f"QuantizedWeight: group of {format} must be one of {allowed}, got {group!r}")
    if K % group:
        raise ValueError(f"QuantizedWeight: group {group} does not divide K = {K}")
    return int(group)


def _fill(blocks, w, format):
    """Scales and codes of w (N, groups, group), into the blocks. Codes are found with the scale as it is stored."""

    def divided(x, by):
        by = by.astype(np.float32)[..., None]
        return np.divide(x, by, out=np.zeros_like(x), where=by != 0)

    if format in ("int4_zero", "q4_1"):
        # Zero counts as one of the weights of int4_zero, since its zero-point is a code.
        low = w.min(-1, initial=0) if format == "int4_zero" else w.min(-1)
        high = w.max(-1, initial=0) if format == "int4_zero" else w.max(-1)
        blocks["scale"] = high / 15 - low / 15
        if format == "q4_1":
            blocks["minimum"] = low
            codes = np.rint(divided(w - blocks["minimum"].astype(np.float32)[..., None], blocks["scale"]))
        else:
            blocks["zero"] = np.rint(divided(-low[..., None], blocks["scale"])[..., 0]).clip(0, 15)
            codes = np.rint(divided(w, blocks["scale"])) + blocks["zero"][..., None]
        codes = codes.clip(0, 15)
    elif FORMATS[format][0] == 8:
        blocks["scale"] = np.abs(w).max(-1, initial=0) / 127
        blocks["codes"] = np.rint(divided(w, blocks["scale"])).clip(-127, 127)
        return
    else:
        # The number of largest magnitude, sign and all, becomes code 0, which is -8: there is no +8 (ggml's choice).
        at = np.abs(w).argmax(-1)[..., None] if w.shape[-1] and w.size else np.zeros((*w.shape[:2], 1), int)
        blocks["scale"] = np.take_along_axis(w, at, -1)[..., 0] / -8 if w.size else 0
        codes = np.rint(divided(w, blocks["scale"]) + 8).clip(0, 15)
    pairs = codes.astype(np.uint8).reshape(*codes.shape[:2], codes.shape[2] // 32, 2, 16)
    blocks["codes"] = (pairs[..., 0, :] | pairs[..., 1, :] << 4).reshape(blocks["codes"].shape)
