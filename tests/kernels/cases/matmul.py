import numpy as np

from . import Case, cases, layouts, normal, wide

# (M, K, N): empty sides, single rows and columns, both sides of every tile and slab border, several blocks
SIZES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (1, 7, 1), (7, 7, 7), (1, 600, 300), (300, 600, 1), (2, 40, 65)]
SIZES += [(12, 512, 32), (13, 513, 33), (5, 257, 17), (25, 1100, 65), (129, 257, 131), (200, 64, 700)]
BATCHES = [((3, 4, 5), (5, 6)), ((2, 3, 4, 5), (2, 3, 5, 6)), ((2, 1, 4, 5), (3, 5, 6)), ((4, 5), (7, 5, 6))]
BATCHES += [((1, 4, 5), (7, 5, 6)), ((0, 4, 5), (5, 6)), ((2, 0, 4, 5), (1, 1, 5, 6)), ((24, 33, 32), (24, 32, 33))]
BATCHES += [((1, 1, 9), (3, 1, 9, 2))]


def _product(a, b):
    """The condition of a product: Σ|a||b|."""
    return np.matmul(*(np.abs(w) for w in wide(a, b)))


def _case(a, b):
    return Case((a, b), terms=max(1, a.shape[-1]), condition=_product(a, b))


@cases("matmul")
def matmul(rng, dtype):
    for M, K, N in SIZES:
        yield _case(normal(rng, (M, K), dtype), normal(rng, (K, N), dtype))
    for a, b in BATCHES:
        yield _case(normal(rng, a, dtype), normal(rng, b, dtype))
    for a in layouts(rng, (17, 40), dtype):
        for b in layouts(rng, (40, 35), dtype):
            yield _case(a, b)
    for a in layouts(rng, (2, 3, 5, 8), dtype):
        yield _case(a, normal(rng, (8, 4), dtype))
        yield _case(a, a.swapaxes(-1, -2))
    # q, k, v as attention cuts them from one array
    heads = normal(rng, (2, 9, 3, 4, 8), dtype).transpose(2, 0, 3, 1, 4)
    yield _case(heads[0], heads[1].swapaxes(-1, -2))
    large = 1e4 if dtype.itemsize > 2 else 30  # float16 ends at 65504
    yield _case(normal(rng, (6, 11), dtype, large), normal(rng, (11, 5), dtype, large))
    poisoned = normal(rng, (20, 50), dtype)
    poisoned[3, 7] = np.nan
    clean = normal(rng, (50, 40), dtype)
    yield Case((poisoned, clean), terms=50, condition=np.nan_to_num(_product(poisoned, clean)))


def _linear(x, weight, bias=None, *activation):
    condition = _product(x, weight.T) + (0 if bias is None else np.abs(wide(bias)))
    return Case((x, weight, bias, *activation), terms=max(1, x.shape[-1]), condition=condition)


@cases("linear")
def linear(rng, dtype):
    for M, K, N in SIZES:
        yield _linear(normal(rng, (M, K), dtype), normal(rng, (N, K), dtype), normal(rng, (N,), dtype))
    for shape in ((6,), (2, 3, 6), (2, 0, 6)):
        yield _linear(normal(rng, shape, dtype), normal(rng, (5, 6), dtype))
    for x in layouts(rng, (3, 5, 37), dtype):
        for weight in layouts(rng, (21, 37), dtype):
            yield _linear(x, weight, normal(rng, (42,), dtype)[::-2])
    for activation in ("relu", "gelu", "gelu_tanh", "silu"):
        for M, K, N in ((1, 70, 83), (2, 40, 65), (25, 1100, 65), (129, 257, 131), (5, 0, 3), (0, 7, 5)):
            x, weight = normal(rng, (M, K), dtype), normal(rng, (N, K), dtype, max(K, 1) ** -0.5)
            yield _linear(x, weight, normal(rng, (N,), dtype), activation)
            yield _linear(x, np.asfortranarray(weight), None, activation)
        poisoned = normal(rng, (14, 30), dtype)
        poisoned[2, 3] = np.nan
        weight = normal(rng, (40, 30), dtype)
        condition = np.nan_to_num(_product(poisoned, weight.T))
        yield Case((poisoned, weight, None, activation), terms=30, condition=condition)


def _linear_backward(dy, x, weight, needs=(True, True, True)):
    (N, K), rows = weight.shape, int(np.prod(x.shape[:-1]))
    flat_dy, flat_x = wide(dy).reshape(rows, N), wide(x).reshape(rows, K)
    conditions = _product(dy, weight), _product(flat_dy.T, flat_x), np.abs(flat_dy).sum(0)
    wanted = tuple(c if need else None for c, need in zip(conditions, needs))
    return Case((dy, x, weight, needs), terms=max(1, rows, N), condition=wanted)


@cases("linear_backward")
def linear_backward(rng, dtype):
    for M, K, N in SIZES:
        yield _linear_backward(normal(rng, (M, N), dtype), normal(rng, (M, K), dtype), normal(rng, (N, K), dtype))
    for leading in ((), (2, 3), (2, 0)):
        dy, x = normal(rng, (*leading, 5), dtype), normal(rng, (*leading, 6), dtype)
        yield _linear_backward(dy, x, normal(rng, (5, 6), dtype))
    for i in range(8):
        needs = (i & 1 > 0, i & 2 > 0, i & 4 > 0)
        dy, x, weight = (normal(rng, shape, dtype) for shape in ((9, 5), (9, 6), (5, 6)))
        yield _linear_backward(dy, x, weight, needs)
    for dy in layouts(rng, (3, 5, 21), dtype):
        for x in layouts(rng, (3, 5, 37), dtype):
            yield _linear_backward(dy, x, normal(rng, (37, 21), dtype).T)
