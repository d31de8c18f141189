"""GELU (Hendrycks & Gimpel 2016) and SiLU, x times a smooth step; and the erfc that NumPy lacks."""

import functools
import math

import numpy

from ..devices import device_of, is_array, xp
from ..precision import computed_in_float32

# (1 + 2x) exp(x²) erfc(x) for x >= 0 as a Chebyshev series in t = (x - 3.75)/(x + 3.75), which runs over [-1, 1).
# Source: Shepherd & Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 <= x < ∞", Math. Comp. 1981.
_SERIES = [
    1.1775789345674017, -0.004590054580646478, -0.08424913336651792, 0.05920993999819189, -0.026658668435305753,
    0.009074997670705265, -0.002413163540417608, 0.0004907758365258086, -6.916973302501202e-05,
    4.139027986073072e-06, 7.740383066199228e-07, -2.1886401049226326e-07, 1.076499946575279e-08,
    4.521959811295483e-09, -7.754400208161412e-10, -6.318088335685348e-11, 2.8687950142646113e-11,
    1.9455869777837063e-13, -9.654696843713995e-13, 3.2525450847083794e-14, 3.347807000030017e-14,
    -1.8646276025294e-15, -1.2508703182071658e-15,
]  # fmt: skip


def _erfc(x):
    """1 - erf(x), to a few units in the last place wherever the result is not subnormal."""
    np = xp(x)
    a = np.minimum(np.abs(x), 30)  # erfc(30) is 0 in float64
    t = (a - 3.75) / (a + 3.75)
    series = [c for c in _SERIES if abs(c) > numpy.finfo(x.dtype).eps / 16]
    b1 = b2 = np.zeros_like(t)
    for c in series[:0:-1]:  # Clenshaw's recurrence
        b1, b2 = 2 * t * b1 - b2 + c, b1
    coarse = np.trunc(16 * a) / 16  # a² = coarse² + (a - coarse)(a + coarse), whose first term is exact
    decay = np.exp(-coarse * coarse) * np.exp((coarse - a) * (coarse + a))
    y = decay * (t * b1 - b2 + series[0]) / (1 + 2 * a)
    return np.where(x < 0, 2 - y, y)


def _normal_cdf(x):
    """Φ(x) = (1 + erf(x/√2))/2 = erfc(-x/√2)/2; the second form keeps its digits where Φ is small."""
    return _erfc(x * -(0.5**0.5)) / 2


def blockwise(routine):
    """Let an element-wise routine work on blocks that fit into the cache, so that its temporaries never leave it.

    A GPU has no such cache, and would only be started more often.
    """

    @functools.wraps(routine)
    def call(*args):
        arrays = [a.reshape(-1) for a in args if is_array(a)]
        options, block = [a for a in args if not is_array(a)], 1 << 14
        if device_of(arrays[0]) != "cpu":
            return routine(*args)
        y = numpy.empty_like(arrays[0])
        for i in range(0, y.size, block):
            y[i : i + block] = routine(*[a[i : i + block] for a in arrays], *options)
        return y.reshape(args[0].shape)

    return call


def _sigmoid(x):
    """σ(x) = 1/(1 + exp(-x)) and 1 - σ(x) = σ(-x), both to the last digits and without overflow."""
    np = xp(x)
    e = np.exp(-np.abs(x))
    large, small = 1 / (1 + e), e / (1 + e)
    return np.where(x < 0, small, large), np.where(x < 0, large, small)


def _tanh_argument(x):
    """2u = 2√(2/π) (x + 0.044715 x³) and its derivative: the tanh form is x σ(2u), because (1 + tanh u)/2 = σ(2u)."""
    slope, cubic = 2 * (2 / math.pi) ** 0.5, 0.044715
    return slope * x * (1 + cubic * x * x), slope * (1 + 3 * cubic * x * x)


@computed_in_float32
@blockwise
def gelu(x, approximate):
    """ "none": y = x Φ(x).   "tanh": y = x (1 + tanh(√(2/π)(x + 0.044715 x³)))/2."""
    if approximate == "none":
        return x * _normal_cdf(x)
    return x * _sigmoid(_tanh_argument(x)[0])[0]


@computed_in_float32
@blockwise
def gelu_backward(dy, x, approximate):
    """ "none": dx = dy (Φ(x) + x φ(x)), φ(x) = exp(-x²/2)/√(2π).
    "tanh": dx = dy (s + x s (1-s) d(2u)/dx), s = σ(2u).
    """
    if approximate == "none":
        return dy * (_normal_cdf(x) + x * xp(x).exp(-x * x / 2) * (2 * math.pi) ** -0.5)
    argument, slope = _tanh_argument(x)
    s, rest = _sigmoid(argument)
    return dy * (s + x * s * rest * slope)


@computed_in_float32
@blockwise
def silu(x):
    """y = x σ(x).   Source: Elfwing et al. 2017."""
    return x * _sigmoid(x)[0]


@computed_in_float32
@blockwise
def silu_backward(dy, x):
    """dx = dy σ(x) (1 + x (1 - σ(x)))."""
    s, rest = _sigmoid(x)
    return dy * s * (1 + x * rest)


def activated(x, activation):
    """What a product may end with, by its name in the contract; x itself for None."""
    if activation == "relu":
        return xp(x).maximum(x, x.dtype.type(0))
    if activation == "silu":
        return silu(x)
    return gelu(x, {"gelu": "none", "gelu_tanh": "tanh"}[activation]) if activation else x
