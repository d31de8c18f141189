import numpy as np

from . import Case, cases, layouts, normal, wide

HYPER = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}


def _case(parameter, gradient, m, v, **hyper):
    """The condition follows the update: every term with its absolute value."""
    θ, g, a, b = (np.abs(wide(t)) for t in (parameter, gradient, m, v))
    β1, β2, step = hyper["beta1"], hyper["beta2"], hyper["step"]
    first, second = β1 * a + (1 - β1) * g, β2 * b + (1 - β2) * g * g
    update = hyper["lr"] / (1 - β1**step) * first / (np.sqrt(second / (1 - β2**step)) + hyper["eps"])
    return Case((parameter, gradient, m, v), hyper, condition=(θ + update, first, second))


@cases("adamw_step")
def adamw_step(rng, dtype):
    for step, gradient in enumerate(layouts(rng, (3, 5, 7), dtype), start=1):
        parameter, m, v = (normal(rng, gradient.shape, dtype) for _ in range(3))
        yield _case(parameter, gradient, m, np.asarray(v * v), step=step, **HYPER)
    for shape in ((), (0,), (1,), (16,), (33,), (1031,), (70_001,)):
        parameter, gradient, m, v = (normal(rng, shape, dtype) for _ in range(4))
        yield _case(parameter, gradient, np.zeros_like(m), np.zeros_like(v), step=1, **HYPER)
        yield _case(parameter, gradient, m, np.asarray(v * v), step=100_000, **HYPER | {"weight_decay": 0.0})
    parameter, gradient = normal(rng, (2, 40), dtype), normal(rng, (2, 40), dtype, 1e-3)
    gradient[0] = 0  # 0 / (0 + eps)
    yield _case(parameter, gradient, np.zeros_like(gradient), np.zeros_like(gradient), step=1, **HYPER)
    frozen = HYPER | {"beta1": 0.0, "beta2": 0.999, "lr": 0.0}
    yield _case(parameter, gradient, gradient, np.abs(gradient), step=7, **frozen)


@cases("squared_norm")
def squared_norm(rng, dtype):
    for x in layouts(rng, (3, 5, 7), dtype):
        yield Case((x,), terms=x.size)
    for shape in ((), (0,), (3, 0), (1,), (33,), (5000,)):
        x = normal(rng, shape, dtype)
        yield Case((x,), terms=max(x.size, 1))
    yield Case((normal(rng, (70_000,), dtype, 1e4).clip(-6e4, 6e4).astype(dtype),), terms=70_000)
    if dtype == np.float32:
        yield Case((np.full(1000, 1e30, dtype),), terms=1000)  # the squares overflow float32
