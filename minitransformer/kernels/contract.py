"""What every kernel promises: signature, shapes, dtypes and the error for bad input, stated once.

A function below is the contract of one routine. Its docstring is the promise; its body holds the checks that run
before any implementation does, so an implementation may take valid input for granted and every kernel set raises the
same error for the same mistake. `kernels/numpy/` defines what is correct; `kernels/native/` (C++) answers to the same
names, and so may a module of yours: see `minitransformer.kernels.use`.

Letters: B batch, H heads, T sequence length (Tq queries, Tk keys), d head width, D model width, V vocabulary,
N rows, K and M the sides of a matrix. "Float" is float16, bfloat16, float32 or float64; outputs have the dtype of the
inputs unless said. Inputs may be any strided view; outputs are new arrays that nobody else holds. Empty arrays are
allowed everywhere. NaN goes in, NaN comes out. All arrays of a call live on one device, and so do its results. To
look at values on a GPU is to wait for it, so indices are checked on the CPU only: elsewhere one that is out of range is
never followed, and what depends on it is NaN, or is left out of a sum.
"""

from __future__ import annotations

import math

import numpy as np

from . import checks as check
from .devices import DEVICES, device_of, same_device
from .precision import FLOATS
from .quantized_weight import QuantizedWeight

__all__ = ["ROUTINES", "FLOATS", "Unsupported"]

ROUTINES = {}  # name -> its contract, in the order of this file


class Unsupported(Exception):
    """Raised by an implementation that cannot serve this call (a dtype, a layout); the message says why.

    The dispatcher then takes the next implementation, or raises under `strict=True`.
    """


def routine(contract):
    ROUTINES[contract.__name__] = contract
    return contract


# ---------------------------------------------------------------- matrix products


@routine
def matmul(a, b):
    """Matrix product over the last two axes; leading axes broadcast.

    a (..., M, K), b (..., K, N) float -> c (..., M, N).   c_mn = Σ_k a_mk b_kn
    Raises ValueError where K differs or the leading axes do not broadcast.
    """
    check.floats("matmul", a=a, b=b)
    check.rank("matmul", "a", a, 2)
    check.rank("matmul", "b", b, 2)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: a {tuple(a.shape)} has {a.shape[-1]} columns but b {tuple(b.shape)} has {b.shape[-2]} rows"
        )
    if a.ndim > 2 and b.ndim > 2 and a.shape[:-2] != b.shape[:-2]:
        try:
            np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            raise ValueError(
                f"matmul: leading axes of {tuple(a.shape)} and {tuple(b.shape)} do not broadcast"
            ) from None


@routine
def linear(x, weight, bias=None, activation=None):
    """y = f(x weightᵀ + bias), the layout of a weight on disk; f None, "relu", "gelu", "gelu_tanh" or "silu".

    x (..., K), weight (N, K), bias (N,) or None, float -> y (..., N).
    """
    check.floats("linear", x=x, weight=weight, bias=bias)
    check.rank("linear", "x", x, 1)
    check.rank("linear", "weight", weight, 2, 2)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x {tuple(x.shape)} is {x.shape[-1]} wide but weight {tuple(weight.shape)} takes {weight.shape[1]}"
        )
    if bias is not None:
        check.shape("linear", "bias", bias, weight.shape[:1])
    _activation("linear", activation)


def _activation(routine_name, activation):
    if activation not in (None, "relu", "gelu", "gelu_tanh", "silu"):
        raise ValueError(
            f'{routine_name}: activation must be None, "relu", "gelu", "gelu_tanh" or "silu", got {activation!r}'
        )


@routine
def linear_backward(dy, x, weight, needs=(True, True, True)):
    """Gradients of `linear`, activation None; an entry is None where `needs` (dx, dweight, dbias) says nobody wants it.

    dy (..., N), x (..., K), weight (N, K) -> dx (..., K), dweight (N, K), dbias (N,).
        dx = dy weight,   dweight = dyᵀ x,   dbias = Σ_rows dy
    """
    check.floats("linear_backward", dy=dy, x=x, weight=weight)
    check.rank("linear_backward", "weight", weight, 2, 2)
    check.shape("linear_backward", "x", x, (*x.shape[:-1], weight.shape[1]))
    check.shape("linear_backward", "dy", dy, (*x.shape[:-1], weight.shape[0]))


# ---------------------------------------------------------------- quantised and low-precision products


@routine
def quantize_rows(x, scale=None):
    """x (..., K) float -> codes int8 (..., K), scales float32 (...):  codes = round(x (1/scale)), so x ≈ scale · codes.

    scale = max |x| / 127 of each row or, where given, that one number for all ("static"), beyond ±127 of which x is
    clipped. Ties go to the even code. Always worked out in float32. A row with a NaN or an infinity has codes 0 and
    scale NaN, so that what is computed from it is NaN; a row of zeros, or of numbers so small that the scale would lie
    below 2⁻¹²⁶, has scale 0.
    Raises ValueError for a scale that is not finite or lies below 2⁻¹²⁶.
    """
    check.floats("quantize_rows", x=x)
    check.rank("quantize_rows", "x", x, 1)
    check.positive("quantize_rows", "scale", scale)


@routine
def quantized_gemm(x, weight, bias=None, activation=None, inputs="float", input_scale=None):
    """y = f(x Wᵀ + bias), W the numbers that a `QuantizedWeight` stands for, f as in `linear`.

    x (..., K) float, weight (N, K), bias (N,) of x's dtype or None -> y (..., N) of x's dtype, summed in float32,
    or in float64 where that is x's dtype.
    inputs="float": x as it is. inputs="int8": x rounded by `quantize_rows` (with `input_scale`, if given), the products
    of codes added up exactly as integers within each group of the weight; such sums are the same in every
    implementation. float16 and bfloat16 weights take inputs="float" only.
    Source: Jacob et al. 2018; document D1 §4.1a.
    """
    name = "quantized_gemm"
    check.floats(name, x=x, bias=bias)
    check.rank(name, "x", x, 1)
    if not isinstance(weight, QuantizedWeight):
        raise TypeError(f"{name}: weight must be a QuantizedWeight, got {type(weight).__name__}")
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{name}: x {tuple(x.shape)} is {x.shape[-1]} wide but weight {weight.shape} takes "
                         f"{weight.shape[1]}")  # fmt: skip
    if bias is not None:
        check.shape(name, "bias", bias, weight.shape[:1])
    _activation(name, activation)
    if inputs not in ("float", "int8"):
        raise ValueError(f'{name}: inputs must be "float" or "int8", got {inputs!r}')
    if inputs == "int8" and weight.format in ("float16", "bfloat16"):
        raise ValueError(f'{name}: a weight in {weight.format} takes inputs="float"')
    if input_scale is not None and inputs == "float":
        raise ValueError(f'{name}: input_scale is for inputs="int8"')
    check.positive(name, "input_scale", input_scale)


@routine
def matmul_bfloat16(a, b):
    """`matmul` of a and b rounded to bfloat16, added up in float32: half the bytes, and on processors that have the
    instruction twice the products. a (..., M, K), b (..., K, N) float -> c (..., M, N) of their dtype.

    The order and the rounding of the additions are the processor's own, so the last bits differ between processors;
    numbers below 2⁻¹²⁶ may count as 0.
    """
    matmul(a, b)


# ---------------------------------------------------------------- attention


def _attention(name, q, k, v, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None):
    check.floats(name, q=q, k=k, v=v, mask=mask, slopes=slopes)
    for label, array in (("q", q), ("k", k)) + ((("v", v),) if v is not None else ()):
        if array.ndim != 4:
            raise ValueError(f"{name}: {label} must be (B, H, T, d), got shape {tuple(array.shape)}")
    B, H, Tq, d = q.shape
    G, Tk = k.shape[1:3]
    check.shape(name, "k", k, (B, G, Tk, d))
    _groups(name, H, G)
    if v is not None:
        check.shape(name, "v", v, (B, G, Tk, v.shape[3]))
    if mask is not None:
        scores = (B, H, Tq, Tk)
        if mask.ndim > 4 or any(m not in (1, s) for m, s in zip(mask.shape[::-1], scores[::-1])):
            raise ValueError(f"{name}: mask {tuple(mask.shape)} does not broadcast to the scores {scores}")
    _scale(name, scale)
    if not isinstance(causal, (bool, np.bool_)):
        raise TypeError(f"{name}: causal must be True or False, got {causal!r}")
    _window(name, window)
    if offset is not None:
        check.whole(name, "offset", offset, -(2**31), 2**31)
    if slopes is not None:
        check.shape(name, "slopes", slopes, (H,))
    if spans is not None:
        if getattr(spans, "dtype", None) != np.int64:
            raise TypeError(
                f"{name}: spans must be an int64 array, got {getattr(spans, 'dtype', type(spans).__name__)}"
            )
        if spans.ndim != 3 or spans.shape[0] not in (1, B) or spans.shape[1:] != (Tq, 2):
            raise ValueError(f"{name}: spans must have shape (1 or {B}, {Tq}, 2), got {tuple(spans.shape)}")
        same_device(name, q, spans)
        if device_of(spans) == "cpu" and bool((spans[:, 1:] < spans[:, :-1]).any()):
            raise ValueError(f"{name}: spans must not decrease from one query to the next")


def _groups(name, heads, groups):
    if heads % groups if groups else heads:
        raise ValueError(f"{name}: {groups} key/value heads do not divide {heads} query heads")


def _scale(name, scale):
    check.number(name, "scale", scale)
    if not math.isfinite(scale):
        raise ValueError(f"{name}: scale must be finite, got {scale}")


def _window(name, window):
    if window is not None:
        check.whole(name, "window", window, 1, 2**31)


@routine
def attention_forward(
    q, k, v, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None
):  # fmt: skip
    """Scaled dot-product attention without a (Tq, Tk) matrix in memory.

        s_ij = scale q_i·k_j + mask_ij - slope |t_i - j|,   p_ij = exp(s_ij - lse_i),   o_i = Σ_j p_ij v_j

    q (B, H, Tq, d), k (B, G, Tk, d), v (B, G, Tk, dv) -> o (B, H, Tq, dv), lse (B, H, Tq) = log Σ_j exp(s_ij).
    G divides H: query head h reads the key/value head h // (H/G).

    Query i stands at position t_i = offset + i among the keys; offset is Tk - Tq unless given, so that a decoded token
    at the end sees the whole cache. Query i sees an interval of keys, whose ends do not decrease with i; what lies
    outside is not computed:

        causal: j <= t_i        window w: |t_i - j| < w        spans: spans[b, i, 0] <= j < spans[b, i, 1]

    spans (B or 1, Tq, 2) int64: sequences packed one after the other, or the lengths of padded keys. mask: additive and
    broadcastable to (B, H, Tq, Tk). slopes (H,): ALiBi, one slope for each head.

    A row that sees no key gives o = 0 and lse = -inf. What a query may not see does not matter to it: a hidden key or
    value, also one hidden by a mask of -inf, may hold inf and NaN. Memory beyond the outputs grows with T, never with
    T².
    Source: Vaswani et al. 2017, eq. 1; Dao et al. 2022 (FlashAttention); Press et al. 2022 (ALiBi); Ainslie et al. 2023
    (grouped heads); Beltagy et al. 2020 (sliding window).
    """
    _attention(
        "attention_forward",
        q, k, v, scale=scale, causal=causal, window=window, offset=offset, mask=mask, slopes=slopes, spans=spans,
    )  # fmt: skip


@routine
def attention_backward(
    do, q, k, v, o, lse, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None
):  # fmt: skip
    """Gradients of `attention_forward`, whose options it takes; the probabilities are recomputed from lse.

        delta_i = do_i·o_i,   ds_ij = p_ij (do_i·v_j - delta_i)
        dq_i = scale Σ_j ds_ij k_j,   dk_j = scale Σ_i ds_ij q_i,   dv_j = Σ_i p_ij do_i

    do like o -> dq, dk, dv like q, k, v; dk and dv are summed over the query heads of the group. Mask and slopes are
    constants. Rows that saw no key give zeros, and a hidden pair contributes nothing whatever its rows hold.
    """
    _attention(
        "attention_backward",
        q, k, v, scale=scale, causal=causal, window=window, offset=offset, mask=mask, slopes=slopes, spans=spans,
    )  # fmt: skip
    check.floats("attention_backward", q=q, do=do, o=o, lse=lse)
    check.shape("attention_backward", "o", o, (*q.shape[:3], v.shape[3]))
    check.shape("attention_backward", "do", do, o.shape)
    check.shape("attention_backward", "lse", lse, q.shape[:3])


@routine
def attention_probabilities(
    q, k, lse, *, scale, causal=False, window=None, offset=None, mask=None, slopes=None, spans=None,
    heads=None, rows=None,
):  # fmt: skip
    """The probabilities that `attention_forward` used, from its own lse. For looking, not speed.

    heads (h,), rows (r,): the query heads and the queries wanted, integers, all unless given; no others are computed
    -> p (B, h, r, Tk), or (B, H, Tq, Tk).
    """
    name = "attention_probabilities"
    _attention(
        name,
        q, k, None, scale=scale, causal=causal, window=window, offset=offset, mask=mask, slopes=slopes, spans=spans,
    )  # fmt: skip
    check.floats(name, q=q, lse=lse)
    check.shape(name, "lse", lse, q.shape[:3])
    for label, chosen, limit in (("heads", heads, q.shape[1]), ("rows", rows, q.shape[2])):
        if chosen is not None:
            check.integers(name, **{label: chosen})
            same_device(name, q, chosen)
            check.rank(name, label, chosen, 1, 1)
            check.within(name, label, chosen, 0, limit)


@routine
def paged_attention_forward(q, keys, values, table, lengths, *, scale, window=None, slopes=None):
    """Causal attention to keys and values that lie in pages: row b's token j is in page table[b, j // n], place j % n.

    q (B, H, Tq, d), keys (P, G, n, d), values (P, G, n, dv), table (B, m) and lengths (B,) integers, with
    0 <= lengths <= m n -> o (B, H, Tq, dv), lse (B, H, Tq).
    The queries are row b's last tokens: query i stands at lengths[b] - Tq + i. The pages are read where they lie. What
    the table holds beyond a row's length does not matter. The rest is as in `attention_forward`.
    Source: Kwon et al. 2023 (PagedAttention).
    """
    name = "paged_attention_forward"
    check.floats(name, q=q, keys=keys, values=values, slopes=slopes)
    check.integers(name, table=table, lengths=lengths)
    same_device(name, q, table, lengths)
    for label, array in (("q", q), ("keys", keys), ("values", values)):
        check.rank(name, label, array, 4, 4)
    check.rank(name, "table", table, 2, 2)
    P, G, page = keys.shape[:3]
    B, H = q.shape[:2]
    check.shape(name, "keys", keys, (P, G, page, q.shape[3]))
    check.shape(name, "values", values, (P, G, page, values.shape[3]))
    _groups(name, H, G)
    check.shape(name, "table", table, (B, table.shape[1]))
    check.shape(name, "lengths", lengths, (B,))
    if page == 0:
        raise ValueError(f"{name}: a page must hold at least one token, got keys of shape {tuple(keys.shape)}")
    check.within(name, "lengths", lengths, 0, table.shape[1] * page + 1)
    if device_of(table) == "cpu":
        used = np.arange(table.shape[1]) * page < np.asarray(lengths)[:, None]
        check.within(name, "table", np.where(used, np.asarray(table), 0), 0, max(P, 1))
        if P == 0 and used.any():
            raise IndexError(f"{name}: table names pages but there are none")
    _scale(name, scale)
    _window(name, window)
    if slopes is not None:
        check.shape(name, "slopes", slopes, (H,))


# ---------------------------------------------------------------- softmax


@routine
def softmax(x, axis):
    """y_i = exp(x_i - max x) / Σ_j exp(x_j - max x) along `axis`; NaN if a row is all -inf. x (..., n) -> y alike."""
    check.floats("softmax", x=x)
    check.axis("softmax", x, axis)


@routine
def softmax_backward(dy, y, axis):
    """dx_i = y_i (dy_i - Σ_j dy_j y_j), y the output of `softmax`."""
    check.floats("softmax_backward", dy=dy, y=y)
    check.axis("softmax_backward", y, axis)
    check.shape("softmax_backward", "dy", dy, y.shape)


@routine
def log_softmax(x, axis):
    """y_i = x_i - max x - log Σ_j exp(x_j - max x) along `axis`. x (..., n) -> y alike."""
    check.floats("log_softmax", x=x)
    check.axis("log_softmax", x, axis)


@routine
def log_softmax_backward(dy, y, axis):
    """dx_i = dy_i - exp(y_i) Σ_j dy_j, y the output of `log_softmax`."""
    check.floats("log_softmax_backward", dy=dy, y=y)
    check.axis("log_softmax_backward", y, axis)
    check.shape("log_softmax_backward", "dy", dy, y.shape)


# ---------------------------------------------------------------- normalisation


def _norm(name, x, weight, bias=None):
    if weight is None:
        raise TypeError(f"{name}: weight must be a float array, got None")
    check.rank(name, "x", x, 1)
    for label, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            check.shape(name, label, array, x.shape[-1:])


@routine
def layer_norm_forward(x, weight, bias, eps):
    """y = (x - mean) rstd weight + bias over the last axis, rstd = 1/√(var + eps), var with 1/D.

    x (..., D), weight (D,), bias (D,) or None -> y (..., D), mean (...), rstd (...).   Source: Ba et al. 2016.
    """
    check.floats("layer_norm_forward", x=x, weight=weight, bias=bias)
    _norm("layer_norm_forward", x, weight, bias)


@routine
def layer_norm_backward(dy, x, weight, mean, rstd):
    """With h = (x - mean) rstd and g = dy weight:
        dx = rstd (g - mean_D(g) - h mean_D(g h)),   dweight = Σ_rows dy h,   dbias = Σ_rows dy
    -> dx (..., D), dweight (D,), dbias (D,).
    """
    check.floats("layer_norm_backward", dy=dy, x=x, weight=weight, mean=mean, rstd=rstd)
    _norm("layer_norm_backward", x, weight)
    check.shape("layer_norm_backward", "dy", dy, x.shape)
    check.shape("layer_norm_backward", "mean", mean, x.shape[:-1])
    check.shape("layer_norm_backward", "rstd", rstd, x.shape[:-1])


@routine
def rms_norm_forward(x, weight, eps):
    """y = x rstd weight, rstd = 1/√(mean_D(x²) + eps). x (..., D), weight (D,) -> y (..., D), rstd (...).

    Source: Zhang & Sennrich 2019.
    """
    check.floats("rms_norm_forward", x=x, weight=weight)
    _norm("rms_norm_forward", x, weight)


@routine
def rms_norm_backward(dy, x, weight, rstd):
    """With h = x rstd and g = dy weight: dx = rstd (g - h mean_D(g h)), dweight = Σ_rows dy h.

    -> dx (..., D), dweight (D,).
    """
    check.floats("rms_norm_backward", dy=dy, x=x, weight=weight, rstd=rstd)
    _norm("rms_norm_backward", x, weight)
    check.shape("rms_norm_backward", "dy", dy, x.shape)
    check.shape("rms_norm_backward", "rstd", rstd, x.shape[:-1])


# ---------------------------------------------------------------- activations


def _gelu(name, approximate):
    if approximate not in ("none", "tanh"):
        raise ValueError(f'{name}: approximate must be "none" or "tanh", got {approximate!r}')


@routine
def gelu(x, approximate):
    """ "none": y = x Φ(x), Φ(x) = (1 + erf(x/√2))/2.   "tanh": y = x (1 + tanh(√(2/π)(x + 0.044715 x³)))/2.

    x any shape -> y alike.   Source: Hendrycks & Gimpel 2016.
    """
    check.floats("gelu", x=x)
    _gelu("gelu", approximate)


@routine
def gelu_backward(dy, x, approximate):
    """ "none": dx = dy (Φ(x) + x φ(x)), φ(x) = exp(-x²/2)/√(2π); "tanh": the derivative of that formula."""
    check.floats("gelu_backward", dy=dy, x=x)
    _gelu("gelu_backward", approximate)
    check.shape("gelu_backward", "dy", dy, x.shape)


@routine
def silu(x):
    """y = x σ(x), σ(x) = 1/(1 + exp(-x)); no overflow at any x. x any shape -> y alike."""
    check.floats("silu", x=x)


@routine
def silu_backward(dy, x):
    """dx = dy σ(x) (1 + x (1 - σ(x)))."""
    check.floats("silu_backward", dy=dy, x=x)
    check.shape("silu_backward", "dy", dy, x.shape)


# ---------------------------------------------------------------- top-k sparse activation


@routine
def topk_activation(x, k, by="value"):
    """y_i = x_i where x_i is one of the k largest of its row (the last axis), else 0.

    x (..., n), 1 <= k <= n -> y (..., n), indices (..., k) int32: where they lie, ascending. by="magnitude" compares
    |x_i|. Of equal ones the first are kept; -0 equals 0; NaN counts as larger than all.
    Source: Makhzani & Frey 2013 (k-sparse); document D1 §4.1.
    """
    check.floats("topk_activation", x=x)
    check.rank("topk_activation", "x", x, 1)
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(f"topk_activation: k must be an integer, got {k!r}")
    if not 1 <= k <= x.shape[-1]:
        raise ValueError(f"topk_activation: k must lie in 1..{x.shape[-1]}, the length of a row, got {k}")
    if by not in ("value", "magnitude"):
        raise ValueError(f'topk_activation: by must be "value" or "magnitude", got {by!r}')


def _gathered(name, weight, indices, **left):
    ((label, array),) = left.items()
    check.floats(name, **left, weight=weight)
    check.integers(name, indices=indices)
    same_device(name, array, indices)
    for which, matrix in ((label, array), ("weight", weight), ("indices", indices)):
        check.rank(name, which, matrix, 2, 2)
    if indices.shape[0] != 1:
        check.shape(name, "indices", indices, (array.shape[0], indices.shape[1]))
    check.within(name, "indices", indices, 0, weight.shape[0])


@routine
def gathered_linear(x, weight, indices):
    """y_nj = x_n · weight[indices_nj]: of the up-projection, the chosen neurons only; no other row is read.

    x (N, K), weight (M, K), indices (N, k) integer in 0..M-1, or (1, k) for all tokens alike -> y (N, k). Ascending
    indices are the fastest.
    """
    _gathered("gathered_linear", weight, indices, x=x)
    check.shape("gathered_linear", "x", x, (x.shape[0], weight.shape[1]))


@routine
def gathered_sum(a, weight, indices):
    """y_n = Σ_j a_nj weight[indices_nj]: of the down-projection, whose row m is what neuron m writes.

    a (N, k), weight (M, D), indices (N, k) or (1, k) integer in 0..M-1 -> y (N, D).
    """
    _gathered("gathered_sum", weight, indices, a=a)
    check.shape("gathered_sum", "a", a, (a.shape[0], indices.shape[1]))


# ---------------------------------------------------------------- loss


def _cross_entropy(name, logits, targets, ignore_index, label_smoothing):
    check.floats(name, logits=logits)
    check.rank(name, "logits", logits, 2, 2)
    check.integers(name, targets=targets)
    same_device(name, logits, targets)
    check.shape(name, "targets", targets, logits.shape[:1])
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    check.within(name, "targets", targets, 0, logits.shape[1], except_for=ignore_index)


@routine
def cross_entropy_forward(logits, targets, ignore_index=-100, label_smoothing=0.0):
    """One loss a row, with ε = label_smoothing:  loss = lse - (1-ε) x_target - ε mean_V(x).

    logits (N, V) float, targets (N,) integer -> losses (N,), lse (N,) = log Σ_v exp(x_v). A row whose target is
    `ignore_index` has loss 0. Raises IndexError for a target outside 0..V-1 that is not `ignore_index`.
    """
    _cross_entropy("cross_entropy_forward", logits, targets, ignore_index, label_smoothing)


@routine
def cross_entropy_backward(dlosses, logits, targets, lse, ignore_index=-100, label_smoothing=0.0):
    """dx_v = dloss (exp(x_v - lse) - (1-ε)[v = target] - ε/V); 0 in ignored rows.

    dlosses (N,), logits (N, V), targets (N,), lse (N,) -> dlogits (N, V).
    """
    _cross_entropy("cross_entropy_backward", logits, targets, ignore_index, label_smoothing)
    check.floats("cross_entropy_backward", logits=logits, dlosses=dlosses, lse=lse)
    check.shape("cross_entropy_backward", "dlosses", dlosses, logits.shape[:1])
    check.shape("cross_entropy_backward", "lse", lse, logits.shape[:1])


# ---------------------------------------------------------------- embedding, dropout, random bits


@routine
def embedding_backward(dy, indices, rows):
    """dweight_r = Σ dy_i over all i with indices_i = r: repeated tokens add up, in the order of i.

    dy (..., D) float, indices (...) integer in 0..rows-1 -> dweight (rows, D).
    """
    check.floats("embedding_backward", dy=dy)
    check.integers("embedding_backward", indices=indices)
    same_device("embedding_backward", dy, indices)
    check.rank("embedding_backward", "dy", dy, 1)
    check.shape("embedding_backward", "dy", dy, (*indices.shape, dy.shape[-1]))
    check.within("embedding_backward", "indices", indices, 0, rows)


@routine
def dropout(x, p, key, offset):
    """y_i = x_i / (1 - p) where bits_i >= p 2³², else 0, with bits = random_bits(key, offset, x.size) in C order.

    Linear in x, hence its own backward with the same key and offset. x any shape -> y alike; 0 <= p < 1.
    """
    check.floats("dropout", x=x)
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout: p must lie in [0, 1), got {p}")


@routine
def random_bits(key, offset, count, device="cpu"):
    """Philox 4×32-10 (Salmon et al. 2011): `count` uint32 words, word i being lane i % 4 of counter offset + i // 4.

    key and offset are integers in 0..2⁶⁴-1; the counter is (offset low, offset high, 0, 0), the key (key low, key
    high). device: where the words are made; they are the same everywhere.
    """
    if device not in DEVICES:
        raise ValueError(f"random_bits: no device named {device!r}; known are {', '.join(DEVICES)}")
    if not (0 <= key < 2**64 and 0 <= offset < 2**64):
        raise ValueError(f"random_bits: key and offset must lie in 0..2**64-1, got {key} and {offset}")
    if count < 0:
        raise ValueError(f"random_bits: count must not be negative, got {count}")


# ---------------------------------------------------------------- optimiser


@routine
def adamw_step(parameter, gradient, m, v, *, step, lr, beta1, beta2, eps, weight_decay):
    """One AdamW update, in place on parameter, m and v (C-contiguous, one shape); returns None.

        m <- β1 m + (1-β1) g,   v <- β2 v + (1-β2) g²
        θ <- θ (1 - lr λ) - lr m̂ / (√v̂ + eps),   m̂ = m/(1-β1^step),   v̂ = v/(1-β2^step)

    step counts from 1.   Source: Loshchilov & Hutter 2019.
    """
    check.floats("adamw_step", parameter=parameter, gradient=gradient, m=m, v=v)
    for name, array in (("gradient", gradient), ("m", m), ("v", v)):
        check.shape("adamw_step", name, array, parameter.shape)
    for name, array in (("parameter", parameter), ("m", m), ("v", v)):
        if not (array.flags.c_contiguous and getattr(array.flags, "writeable", True)):
            raise ValueError(f"adamw_step: {name} is updated in place and must be C-contiguous and writeable")
    if step < 1:
        raise ValueError(f"adamw_step: step counts from 1, got {step}")


@routine
def squared_norm(x):
    """Σ x_i² summed in float64: a Python float, or on a GPU an array () there, which nobody waits for. x any shape."""
    check.floats("squared_norm", x=x)
