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

import ml_dtypes
import numpy as np

from .devices import DEVICES, device_of, same_device

__all__ = ["ROUTINES", "FLOATS", "Unsupported"]

FLOATS = frozenset(np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
ROUTINES = {}  # name -> its contract, in the order of this file


class Unsupported(Exception):
    """Raised by an implementation that cannot serve this call (a dtype, a layout); the message says why.

    The dispatcher then takes the next implementation, or raises under `strict=True`.
    """


def routine(contract):
    ROUTINES[contract.__name__] = contract
    return contract


# ---------------------------------------------------------------- the checks


def _floats(routine_name, **arrays):
    """All are arrays of one float dtype; None is passed over."""
    first = kind = None
    for name, array in arrays.items():
        if array is None:
            continue
        dtype = getattr(array, "dtype", None)
        if dtype not in FLOATS:
            raise TypeError(f"{routine_name}: {name} must be a float array, got {dtype or type(array).__name__}")
        if first is None:
            first = (name, dtype)
        elif dtype != first[1]:
            raise TypeError(f"{routine_name}: {name} is {dtype} but {first[0]} is {first[1]}; convert one with .to()")
        if kind is None:
            kind = type(array)
        elif type(array) is not kind:
            same_device(routine_name, *arrays.values())


def _integers(routine_name, **arrays):
    for name, array in arrays.items():
        if getattr(getattr(array, "dtype", None), "kind", "") not in "iu":
            kind = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"{routine_name}: {name} must be an integer array, got {kind}")


def _shape(routine_name, name, array, expected):
    if tuple(array.shape) != tuple(expected):
        raise ValueError(f"{routine_name}: {name} must have shape {tuple(expected)}, got {tuple(array.shape)}")


def _rank(routine_name, name, array, least, most=None):
    if array.ndim < least or (most is not None and array.ndim > most):
        wanted = f"{least}" if most == least else f"at least {least}"
        raise ValueError(f"{routine_name}: {name} must have {wanted} axes, got shape {tuple(array.shape)}")


def _axis(routine_name, x, axis):
    _rank(routine_name, "x", x, 1)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{routine_name}: axis {axis} is out of range for shape {tuple(x.shape)}")


def _within(routine_name, name, values, low, high, except_for=None):
    """Every integer lies in [low, high), as far as can be seen; the error shows the first that does not, and where."""
    if device_of(values) != "cpu":
        return
    bad = (values < low) | (values >= high)
    if except_for is not None:
        bad &= values != except_for
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(
            f"{routine_name}: {name}{list(where)} is {int(values[where])}, allowed are {low} to {high - 1}"
        )


# ---------------------------------------------------------------- matrix products


@routine
def matmul(a, b):
    """Matrix product over the last two axes; leading axes broadcast.

    a (..., M, K), b (..., K, N) float -> c (..., M, N).   c_mn = Σ_k a_mk b_kn
    Raises ValueError where K differs or the leading axes do not broadcast.
    """
    _floats("matmul", a=a, b=b)
    _rank("matmul", "a", a, 2)
    _rank("matmul", "b", b, 2)
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
def linear(x, weight, bias=None):
    """y = x weightᵀ + bias, the layout of a weight on disk.

    x (..., K), weight (N, K), bias (N,) or None, float -> y (..., N).
    """
    _floats("linear", x=x, weight=weight, bias=bias)
    _rank("linear", "x", x, 1)
    _rank("linear", "weight", weight, 2, 2)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x {tuple(x.shape)} is {x.shape[-1]} wide but weight {tuple(weight.shape)} takes {weight.shape[1]}"
        )
    if bias is not None:
        _shape("linear", "bias", bias, weight.shape[:1])


@routine
def linear_backward(dy, x, weight, needs=(True, True, True)):
    """Gradients of `linear`; an entry is None where `needs` (dx, dweight, dbias) says that nobody wants it.

    dy (..., N), x (..., K), weight (N, K) -> dx (..., K), dweight (N, K), dbias (N,).
        dx = dy weight,   dweight = dyᵀ x,   dbias = Σ_rows dy
    """
    _floats("linear_backward", dy=dy, x=x, weight=weight)
    _rank("linear_backward", "weight", weight, 2, 2)
    _shape("linear_backward", "x", x, (*x.shape[:-1], weight.shape[1]))
    _shape("linear_backward", "dy", dy, (*x.shape[:-1], weight.shape[0]))


# ---------------------------------------------------------------- attention


def _attention(name, q, k, v, mask):
    _floats(name, q=q, k=k, v=v, mask=mask)
    for label, array in (("q", q), ("k", k)) + ((("v", v),) if v is not None else ()):
        if array.ndim != 4:
            raise ValueError(f"{name}: {label} must be (B, H, T, d), got shape {tuple(array.shape)}")
    B, H, Tq, d = q.shape
    _shape(name, "k", k, (B, H, k.shape[2], d))
    if v is not None:
        _shape(name, "v", v, (B, H, k.shape[2], v.shape[3]))
    if mask is not None:
        scores = (B, H, Tq, k.shape[2])
        if mask.ndim > 4 or any(m not in (1, s) for m, s in zip(mask.shape[::-1], scores[::-1])):
            raise ValueError(f"{name}: mask {tuple(mask.shape)} does not broadcast to the scores {scores}")


@routine
def attention_forward(q, k, v, *, scale, causal=False, mask=None):
    """Scaled dot-product attention without a (Tq, Tk) matrix in memory.

        s_ij = scale q_i·k_j + mask_ij,   p_ij = exp(s_ij - lse_i),   o_i = Σ_j p_ij v_j

    q (B, H, Tq, d), k (B, H, Tk, d), v (B, H, Tk, dv), mask additive and broadcastable to (B, H, Tq, Tk) or None
    -> o (B, H, Tq, dv), lse (B, H, Tq) = log Σ_j exp(s_ij).
    `causal`: query i sees keys j <= i + Tk - Tq, so that a decoded token at the end sees the whole cache.
    A row that sees no key gives o = 0 and lse = -inf. Memory beyond the outputs grows with T, never with T².
    Source: Vaswani et al. 2017, eq. 1; Dao et al. 2022 (FlashAttention).
    """
    _attention("attention_forward", q, k, v, mask)


@routine
def attention_backward(do, q, k, v, o, lse, *, scale, causal=False, mask=None):
    """Gradients of `attention_forward`; the probabilities are recomputed from lse.

        delta_i = do_i·o_i,   ds_ij = p_ij (do_i·v_j - delta_i)
        dq_i = scale Σ_j ds_ij k_j,   dk_j = scale Σ_i ds_ij q_i,   dv_j = Σ_i p_ij do_i

    do like o -> dq, dk, dv like q, k, v. The mask is a constant. Rows that saw no key give zeros.
    """
    _attention("attention_backward", q, k, v, mask)
    _floats("attention_backward", q=q, do=do, o=o, lse=lse)
    _shape("attention_backward", "o", o, (*q.shape[:3], v.shape[3]))
    _shape("attention_backward", "do", do, o.shape)
    _shape("attention_backward", "lse", lse, q.shape[:3])


@routine
def attention_probabilities(q, k, lse, *, scale, causal=False, mask=None):
    """The probabilities that `attention_forward` used, from its own lse: p (B, H, Tq, Tk). For looking, not speed."""
    _attention("attention_probabilities", q, k, None, mask)
    _floats("attention_probabilities", q=q, lse=lse)
    _shape("attention_probabilities", "lse", lse, q.shape[:3])


# ---------------------------------------------------------------- softmax


@routine
def softmax(x, axis):
    """y_i = exp(x_i - max x) / Σ_j exp(x_j - max x) along `axis`; NaN if a row is all -inf. x (..., n) -> y alike."""
    _floats("softmax", x=x)
    _axis("softmax", x, axis)


@routine
def softmax_backward(dy, y, axis):
    """dx_i = y_i (dy_i - Σ_j dy_j y_j), y the output of `softmax`."""
    _floats("softmax_backward", dy=dy, y=y)
    _axis("softmax_backward", y, axis)
    _shape("softmax_backward", "dy", dy, y.shape)


@routine
def log_softmax(x, axis):
    """y_i = x_i - max x - log Σ_j exp(x_j - max x) along `axis`. x (..., n) -> y alike."""
    _floats("log_softmax", x=x)
    _axis("log_softmax", x, axis)


@routine
def log_softmax_backward(dy, y, axis):
    """dx_i = dy_i - exp(y_i) Σ_j dy_j, y the output of `log_softmax`."""
    _floats("log_softmax_backward", dy=dy, y=y)
    _axis("log_softmax_backward", y, axis)
    _shape("log_softmax_backward", "dy", dy, y.shape)


# ---------------------------------------------------------------- normalisation


def _norm(name, x, weight, bias=None):
    if weight is None:
        raise TypeError(f"{name}: weight must be a float array, got None")
    _rank(name, "x", x, 1)
    for label, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            _shape(name, label, array, x.shape[-1:])


@routine
def layer_norm_forward(x, weight, bias, eps):
    """y = (x - mean) rstd weight + bias over the last axis, rstd = 1/√(var + eps), var with 1/D.

    x (..., D), weight (D,), bias (D,) or None -> y (..., D), mean (...), rstd (...).   Source: Ba et al. 2016.
    """
    _floats("layer_norm_forward", x=x, weight=weight, bias=bias)
    _norm("layer_norm_forward", x, weight, bias)


@routine
def layer_norm_backward(dy, x, weight, mean, rstd):
    """With h = (x - mean) rstd and g = dy weight:
        dx = rstd (g - mean_D(g) - h mean_D(g h)),   dweight = Σ_rows dy h,   dbias = Σ_rows dy
    -> dx (..., D), dweight (D,), dbias (D,).
    """
    _floats("layer_norm_backward", dy=dy, x=x, weight=weight, mean=mean, rstd=rstd)
    _norm("layer_norm_backward", x, weight)
    _shape("layer_norm_backward", "dy", dy, x.shape)
    _shape("layer_norm_backward", "mean", mean, x.shape[:-1])
    _shape("layer_norm_backward", "rstd", rstd, x.shape[:-1])


@routine
def rms_norm_forward(x, weight, eps):
    """y = x rstd weight, rstd = 1/√(mean_D(x²) + eps). x (..., D), weight (D,) -> y (..., D), rstd (...).

    Source: Zhang & Sennrich 2019.
    """
    _floats("rms_norm_forward", x=x, weight=weight)
    _norm("rms_norm_forward", x, weight)


@routine
def rms_norm_backward(dy, x, weight, rstd):
    """With h = x rstd and g = dy weight: dx = rstd (g - h mean_D(g h)), dweight = Σ_rows dy h.

    -> dx (..., D), dweight (D,).
    """
    _floats("rms_norm_backward", dy=dy, x=x, weight=weight, rstd=rstd)
    _norm("rms_norm_backward", x, weight)
    _shape("rms_norm_backward", "dy", dy, x.shape)
    _shape("rms_norm_backward", "rstd", rstd, x.shape[:-1])


# ---------------------------------------------------------------- activations


def _gelu(name, approximate):
    if approximate not in ("none", "tanh"):
        raise ValueError(f'{name}: approximate must be "none" or "tanh", got {approximate!r}')


@routine
def gelu(x, approximate):
    """ "none": y = x Φ(x), Φ(x) = (1 + erf(x/√2))/2.   "tanh": y = x (1 + tanh(√(2/π)(x + 0.044715 x³)))/2.

    x any shape -> y alike.   Source: Hendrycks & Gimpel 2016.
    """
    _floats("gelu", x=x)
    _gelu("gelu", approximate)


@routine
def gelu_backward(dy, x, approximate):
    """ "none": dx = dy (Φ(x) + x φ(x)), φ(x) = exp(-x²/2)/√(2π); "tanh": the derivative of that formula."""
    _floats("gelu_backward", dy=dy, x=x)
    _gelu("gelu_backward", approximate)
    _shape("gelu_backward", "dy", dy, x.shape)


@routine
def silu(x):
    """y = x σ(x), σ(x) = 1/(1 + exp(-x)); no overflow at any x. x any shape -> y alike."""
    _floats("silu", x=x)


@routine
def silu_backward(dy, x):
    """dx = dy σ(x) (1 + x (1 - σ(x)))."""
    _floats("silu_backward", dy=dy, x=x)
    _shape("silu_backward", "dy", dy, x.shape)


# ---------------------------------------------------------------- loss


def _cross_entropy(name, logits, targets, ignore_index, label_smoothing):
    _floats(name, logits=logits)
    _rank(name, "logits", logits, 2, 2)
    _integers(name, targets=targets)
    same_device(name, logits, targets)
    _shape(name, "targets", targets, logits.shape[:1])
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    _within(name, "targets", targets, 0, logits.shape[1], except_for=ignore_index)


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
    _floats("cross_entropy_backward", logits=logits, dlosses=dlosses, lse=lse)
    _shape("cross_entropy_backward", "dlosses", dlosses, logits.shape[:1])
    _shape("cross_entropy_backward", "lse", lse, logits.shape[:1])


# ---------------------------------------------------------------- embedding, dropout, random bits


@routine
def embedding_backward(dy, indices, rows):
    """dweight_r = Σ dy_i over all i with indices_i = r: repeated tokens add up, in the order of i.

    dy (..., D) float, indices (...) integer in 0..rows-1 -> dweight (rows, D).
    """
    _floats("embedding_backward", dy=dy)
    _integers("embedding_backward", indices=indices)
    same_device("embedding_backward", dy, indices)
    _rank("embedding_backward", "dy", dy, 1)
    _shape("embedding_backward", "dy", dy, (*indices.shape, dy.shape[-1]))
    _within("embedding_backward", "indices", indices, 0, rows)


@routine
def dropout(x, p, key, offset):
    """y_i = x_i / (1 - p) where bits_i >= p 2³², else 0, with bits = random_bits(key, offset, x.size) in C order.

    Linear in x, hence its own backward with the same key and offset. x any shape -> y alike; 0 <= p < 1.
    """
    _floats("dropout", x=x)
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
    _floats("adamw_step", parameter=parameter, gradient=gradient, m=m, v=v)
    for name, array in (("gradient", gradient), ("m", m), ("v", v)):
        _shape("adamw_step", name, array, parameter.shape)
    for name, array in (("parameter", parameter), ("m", m), ("v", v)):
        if not (array.flags.c_contiguous and getattr(array.flags, "writeable", True)):
            raise ValueError(f"adamw_step: {name} is updated in place and must be C-contiguous and writeable")
    if step < 1:
        raise ValueError(f"adamw_step: step counts from 1, got {step}")


@routine
def squared_norm(x):
    """Σ x_i² summed in float64: a Python float, or on a GPU an array () there, which nobody waits for. x any shape."""
    _floats("squared_norm", x=x)
