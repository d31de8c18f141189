import numpy as np

from minitransformer.kernels.numpy.quantized_gemm import quantize_rows as definition
from minitransformer.kernels.quantized_weight import FORMATS, HALVES, QuantizedWeight

from . import Case, cases, layouts, normal, wide
from .matmul import matmul


@cases("quantize_rows")
def quantize_rows(rng, dtype):
    for shape in ((0, 4), (4, 0), (1,), (7,), (3, 31), (2, 3, 33), (5, 512), (70, 1030)):
        yield Case((normal(rng, shape, dtype, 3),))
        yield Case((normal(rng, shape, dtype, 3), 0.02))
    for x in layouts(rng, (3, 5, 37), dtype):
        yield Case((x,))
    sizes = [1, 1e-3, 0, 30, 1e-7] if dtype.itemsize == 2 else [1, 1e-30, 0, 1e30, 1e-43]
    yield Case((normal(rng, (5, 70), dtype) * np.array(sizes, dtype)[:, None],))
    halfway = (np.arange(-127, 127) + 0.5).astype(dtype)  # every tie
    yield Case((np.append(halfway, [dtype.type(127), dtype.type(0)]),))
    for number in (np.nan, np.inf, -np.inf):
        x = normal(rng, (4, 50), dtype)
        x[2, 13] = number
        yield Case((x,))
        yield Case((x, 0.5))


def _case(x, weight, bias=None, activation=None, inputs="float", input_scale=None):
    """The condition: Σ|x||w| of what is multiplied, plus |bias|."""
    w, multiplied = np.abs(weight.dequantize(np.float64)), np.abs(wide(x))
    if inputs == "int8":
        codes, scales = definition(x, input_scale)
        multiplied = np.abs(codes * np.float64(scales)[..., None])
    if weight.format == "q4_1":  # two terms, which may cancel
        integers, scales, minima = (np.abs(np.float64(part)) for part in weight.decode())
        w = (integers * scales[..., None] + minima[..., None]).reshape(weight.shape)
    with np.errstate(invalid="ignore"):
        condition = np.nan_to_num(multiplied @ w.T) + (0 if bias is None else np.abs(wide(bias)))
    options = {"activation": activation, "inputs": inputs, "input_scale": input_scale}
    return Case((x, weight, bias), options, max(1, x.shape[-1]), condition)


def _weight(rng, N, K, format, group=None):
    return QuantizedWeight.quantize(normal(rng, (N, K), np.float32, 0.3, 0.05), format, group)


@cases("quantized_gemm")
def quantized_gemm(rng, dtype):
    for format, (_, groups, _) in FORMATS.items():
        kinds = ("float",) if format in HALVES else ("float", "int8")
        for group in groups or (None,):
            sizes = [(1, 128, 40), (3, 256, 33), (13, 384, 50), (21, 128, 16)]  # both sides of every tile and of FEW
            if groups is None:
                sizes += [(5, 7, 3), (2, 0, 3), (17, 77, 35)]
            for number, (M, K, N) in enumerate(sizes):
                weight = _weight(rng, N, K, format, group)
                for inputs in kinds:
                    x, bias = normal(rng, (M, K), dtype), normal(rng, (N,), dtype)
                    yield _case(x, weight if number % 2 else weight.panels(), bias, inputs=inputs)
        weight = _weight(rng, 37, 128, format)
        for shape in ((0, 128), (128,), (2, 3, 128), (2, 0, 128)):
            yield _case(normal(rng, shape, dtype), weight, inputs=kinds[-1])
        yield _case(normal(rng, (4, 128), dtype), _weight(rng, 0, 128, format), inputs=kinds[-1])
        poisoned = normal(rng, (20, 128), dtype)
        poisoned[3, 7], poisoned[5, 1] = np.nan, np.inf
        yield _case(poisoned, weight, inputs=kinds[-1])
    nothing = QuantizedWeight("int8", (20, 0), np.ones(20, np.float32).view(np.uint8))  # scales that would let it show
    for weight in (nothing, nothing.panels()):
        yield _case(normal(rng, (70, 0), dtype), weight, normal(rng, (20,), dtype), inputs="int8", input_scale=0.5)
    weight = _weight(rng, 21, 64, "int4_zero")
    for activation in ("relu", "gelu", "gelu_tanh", "silu"):
        for inputs in ("float", "int8"):
            yield _case(normal(rng, (9, 64), dtype), weight, normal(rng, (42,), dtype)[::-2], activation, inputs)
    for scale in (0.01, 0.1):  # the first clips
        yield _case(normal(rng, (9, 64), dtype), weight, None, None, "int8", scale)
    for x in layouts(rng, (3, 5, 64), dtype):
        for inputs in ("float", "int8"):
            yield _case(x, weight, inputs=inputs)
    for format in ("int8", "q4_1"):  # several blocks and chunks of work
        weight = _weight(rng, 700, 512, format).panels()
        for M in (1, 250):
            yield _case(normal(rng, (M, 512), dtype), weight, normal(rng, (700,), dtype), inputs="int8")


@cases("matmul_bfloat16")
def matmul_bfloat16(rng, dtype):
    for case in matmul(rng, dtype):
        if case.args[1].ndim == 2:  # the native kernel leaves several b to the definition
            yield case
    for M, K, N in ((25, 1100, 70), (100, 2100, 100)):  # several slabs
        for a in (normal(rng, (M, K), dtype), normal(rng, (K, M), dtype).T):
            for b in (normal(rng, (K, N), dtype), normal(rng, (N, K), dtype).T):
                yield Case((a, b), terms=K, condition=np.abs(wide(a)) @ np.abs(wide(b)))
