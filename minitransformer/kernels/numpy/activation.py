"""GELU (Hendrycks & Gimpel 2016) and SiLU, x times a smooth step; and the erfc that NumPy lacks."""

import numpy as np

from .precision import computed_in_float32

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969): numerators and
# denominators, highest power first, for erf(x)/x in x² below 0.46875, and for exp(x²) erfc(x) in x up to 4 and in 1/x² beyond.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1, 2.98635138197400131e2)
    + (8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3)
    + (3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)
_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1)
    + (1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346047e0, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3),
)


def _ratio(coefficients, t):
    """Numerator / denominator at t, both by Horner's rule."""
    top, bottom = (np.full_like(t, c[0]) for c in coefficients)
    for a, b in zip(*(c[1:] for c in coefficients), strict=True):
        top *= t
        top += a
        bottom *= t
        bottom += b
    return top / bottom


def _erfc(x):
    """1 - erf(x), to a relative 1e-15 in float64 wherever the result is not subnormal. One-dimensional x."""
    a = np.abs(x)
    y = np.full_like(x, np.nan)
    near, far = a < 0.46875, a > 4
    middle = ~(near | far | np.isnan(a))
    y[near] = 1 - x[near] * _ratio(_NEAR, np.square(x[near]))
    for region in (middle, far):
        t = np.minimum(a[region], 30)  # erfc(30) is 0 in float64
        coarse = np.trunc(16 * t) / 16  # t² = coarse² + (t - coarse)(t + coarse), whose first term is exact
        decay = np.exp(-coarse * coarse) * np.exp((coarse - t) * (coarse + t))
        if region is far:
            s = 1 / (t * t)
            scaled = (np.pi**-0.5 - s * _ratio(_FAR, s)) / t
        else:
            scaled = _ratio(_MIDDLE, t)
        y[region] = np.where(x[region] < 0, 2 - decay * scaled, decay * scaled)
    return y


def _normal_cdf(x):
    """Φ(x) = (1 + erf(x/√2))/2 = erfc(-x/√2)/2; the second form keeps its digits where Φ is small."""
    flat, block = x.reshape(-1), 1 << 14  # blocks, so that the many temporaries stay in the cache
    y = np.empty_like(flat)
    for i in range(0, flat.size, block):
        y[i : i + block] = _erfc(flat[i : i + block] * -(0.5**0.5)) / 2
    return y.reshape(x.shape)


def _sigmoid(x):
    """σ(x) = 1/(1 + exp(-x)) and 1 - σ(x) = σ(-x), both to the last digits and without overflow."""
    e = np.exp(-np.abs(x))
    large, small = 1 / (1 + e), e / (1 + e)
    return np.where(x < 0, small, large), np.where(x < 0, large, small)


def _tanh_argument(x):
    """2u = 2√(2/π) (x + 0.044715 x³) and its derivative: the tanh form is x σ(2u), because (1 + tanh u)/2 = σ(2u)."""
    slope, cubic = 2 * (2 / np.pi) ** 0.5, 0.044715
    return slope * x * (1 + cubic * x * x), slope * (1 + 3 * cubic * x * x)


@computed_in_float32
def gelu(x, approximate):
    """"none": y = x Φ(x).   "tanh": y = x (1 + tanh(√(2/π)(x + 0.044715 x³)))/2."""
    if approximate == "none":
        return x * _normal_cdf(x)
    return x * _sigmoid(_tanh_argument(x)[0])[0]


@computed_in_float32
def gelu_backward(dy, x, approximate):
    """"none": dx = dy (Φ(x) + x φ(x)), φ(x) = exp(-x²/2)/√(2π).   "tanh": dx = dy (s + x s (1-s) d(2u)/dx), s = σ(2u)."""
    if approximate == "none":
        return dy * (_normal_cdf(x) + x * np.exp(-x * x / 2) * (2 * np.pi) ** -0.5)
    argument, slope = _tanh_argument(x)
    s, rest = _sigmoid(argument)
    return dy * (s + x * s * rest * slope)


@computed_in_float32
def silu(x):
    """y = x σ(x).   Source: Elfwing et al. 2017."""
    return x * _sigmoid(x)[0]


@computed_in_float32
def silu_backward(dy, x):
    """dx = dy σ(x) (1 + x (1 - σ(x)))."""
    s, rest = _sigmoid(x)
    return dy * s * (1 + x * rest)
