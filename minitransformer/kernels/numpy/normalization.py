"""Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) over the last axis."""

from ..devices import xp
from ..precision import computed_in_float32


def _mean(x):
    """Mean over the last axis, which stays as length 1; 0 where that axis is empty."""
    return x.sum(axis=-1, keepdims=True) / max(x.shape[-1], 1)


def _sum_rows(x):
    """(..., D) -> (D,)."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0) if x.size else xp(x).zeros(x.shape[-1:], x.dtype)


@computed_in_float32
def layer_norm_forward(x, weight, bias, eps):
    """y = (x - mean) rstd weight + bias,   rstd = 1/√(var + eps),   var = mean_D((x - mean)²).

    The two-pass variance: mean(x²) - mean² would cancel where |mean| is large beside the spread.
    """
    mean = _mean(x)
    centred = x - mean
    rstd = 1 / xp(x).sqrt(_mean(centred * centred) + float(eps))
    y = centred * rstd * weight
    if bias is not None:
        y += bias
    return y, mean[..., 0], rstd[..., 0]


@computed_in_float32
def layer_norm_backward(dy, x, weight, mean, rstd):
    """With h = (x - mean) rstd and g = dy weight:
        dx = rstd (g - mean_D(g) - h mean_D(g h)),   dweight = Σ_rows dy h,   dbias = Σ_rows dy.

    The two subtracted means are what the gradient loses because h keeps mean 0 and variance 1 whatever x does.
    """
    rstd = rstd[..., None]
    h = (x - mean[..., None]) * rstd
    g = dy * weight
    dx = rstd * (g - _mean(g) - h * _mean(g * h))
    return dx, _sum_rows(dy * h), _sum_rows(dy)


@computed_in_float32
def rms_norm_forward(x, weight, eps):
    """y = x rstd weight,   rstd = 1/√(mean_D(x²) + eps)."""
    rstd = 1 / xp(x).sqrt(_mean(x * x) + float(eps))
    return x * rstd * weight, rstd[..., 0]


@computed_in_float32
def rms_norm_backward(dy, x, weight, rstd):
    """With h = x rstd and g = dy weight:   dx = rstd (g - h mean_D(g h)),   dweight = Σ_rows dy h."""
    rstd = rstd[..., None]
    h = x * rstd
    g = dy * weight
    return rstd * (g - h * _mean(g * h)), _sum_rows(dy * h)
