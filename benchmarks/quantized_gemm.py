"""Products with weights in few bits, and through bfloat16, beside ONNX Runtime and PyTorch.

Weights of 4096 × 4096. "cold": eight weights take turns, so that each comes from memory and not from a cache. Ours are
laid out once, before the clock starts, as the peers' are.
"""

from __future__ import annotations

import numpy as np

from .harness import THREADS, arguments, interleaved, ratio, report, shown_ratio

N = K = 4096
COLD = 8
# job -> (format, rows, weights, target: their time over ours)
JOBS = {
    "int8-64": ("int8", 64, 1, 1.15),
    "int8-512": ("int8", 512, 1, 1.15),
    "int8-2048": ("int8", 2048, 1, 1.15),
    "int8-cold": ("int8", 1, COLD, 1.3),
    "int4-cold": ("int4", 1, COLD, 1.3),
    "int4-64": ("int4", 64, 1, 2.2),
    "int4-512": ("int4", 512, 1, 2.2),
}
BFLOAT16 = {"bfloat16-512": (768, 128, 512), "bfloat16-1024": (1024, 1024, 1024), "bfloat16-2048": (2048, 2048, 2048)}


# ---------------------------------------------------------------- the jobs, each built in a process of its own


def ours(format, rows, weights):
    from minitransformer import kernels
    from minitransformer.kernels import native
    from minitransformer.kernels.quantized_weight import QuantizedWeight

    native.set_thread_count(THREADS)
    x = _drawn(rows)
    made = [QuantizedWeight.quantize(w, format).panels() for w in _weights(weights)]

    def job():
        for weight in made:
            kernels.quantized_gemm(x, weight, inputs="int8")

    return job


def product(bfloat16, M, inner, columns):
    from minitransformer import kernels
    from minitransformer.kernels import native

    native.set_thread_count(THREADS)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, np.float32) for shape in ((M, inner), (inner, columns)))
    multiply = kernels.matmul_bfloat16 if bfloat16 else kernels.matmul
    return lambda: multiply(a, b)


def onnx_runtime(format, rows, weights):
    """DynamicQuantizeMatMul, or MatMulNBits with blocks of 32 and 8-bit inputs (accuracy_level 4)."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    for i, w in enumerate(_weights(weights)):
        if format == "int8":
            scale = np.abs(w).max(1) / 127
            codes = np.rint(w / scale[:, None]).astype(np.int8)
            arrays = {"w": np.ascontiguousarray(codes.T), "s": scale, "z": np.zeros(N, np.int8)}
            inputs, options = ["x", f"w{i}", f"s{i}", f"z{i}"], {}
            operator = "DynamicQuantizeMatMul"
        else:
            blocks = w.reshape(N, K // 32, 32)
            scale = np.abs(blocks).max(-1) / 7
            codes = (np.rint(blocks / scale[..., None]) + 8).astype(np.uint8)
            arrays = {"w": codes[..., ::2] | codes[..., 1::2] << 4, "s": scale.reshape(-1)}
            inputs, operator = ["x", f"w{i}", f"s{i}"], "MatMulNBits"
            options = {"K": K, "N": N, "bits": 4, "block_size": 32, "accuracy_level": 4}
        constants += [numpy_helper.from_array(a, f"{name}{i}") for name, a in arrays.items()]
        nodes.append(helper.make_node(operator, inputs, [f"y{i}"], domain="com.microsoft", **options))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (rows, K))
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, (rows, N)) for i in range(weights)]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "products", [x], outputs, constants)
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"x": _drawn(rows)}
    return lambda: session.run(None, given)


def pytorch(format, rows, weights):
    """nn.Linear through quantize_dynamic."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    layers = []
    for w in _weights(weights):
        linear = torch.nn.Sequential(torch.nn.Linear(K, N, bias=False))
        linear[0].weight.data = torch.from_numpy(w)
        layers.append(torch.ao.quantization.quantize_dynamic(linear, {torch.nn.Linear}, torch.qint8))
    x = torch.from_numpy(_drawn(rows))

    def job():
        with torch.inference_mode():
            for layer in layers:
                layer(x)

    return job


def _drawn(rows):
    return np.random.default_rng(1).standard_normal((rows, K), np.float32)


def _weights(count):
    for i in range(count):
        yield np.random.default_rng(i + 2).standard_normal((N, K), np.float32)


# ---------------------------------------------------------------- the table


def row(name, found, work, unit, target, peers):
    mine = found["minitransformer"]
    shown = {
        "job": name,
        "ms": f"{mine.seconds * 1e3:.2f} (best {mine.best * 1e3:.2f})",
        "speed": f"{work / mine.seconds / 1e9:.0f} {unit}",
    }
    for peer in peers:
        theirs = found.get(peer)
        spent = theirs and f"{theirs.seconds * 1e3:.2f} (best {theirs.best * 1e3:.2f})"
        shown[f"{peer} ms"] = spent or "not installed"
    there = [found[peer] for peer in peers if peer in found]
    if there:
        best = min(there, key=lambda measured: measured.seconds)
        faster = best.seconds / mine.seconds
        shown |= {"time ratio": shown_ratio(ratio(mine, best)), "times as fast": f"{faster:.2f}"}
        shown |= {"target": f"{target:.2f}", "met": "yes" if faster >= target else "no"}
    return shown


def main():
    args = arguments(__doc__)
    rows = []
    for name, (format, M, weights, target) in JOBS.items():
        if args.only and name not in args.only:
            continue
        setups = {"minitransformer": ("benchmarks.quantized_gemm:ours", format, M, weights),
                  "ONNX Runtime": ("benchmarks.quantized_gemm:onnx_runtime", format, M, weights)}  # fmt: skip
        if format == "int8":
            setups["PyTorch"] = ("benchmarks.quantized_gemm:pytorch", format, M, weights)
        found = interleaved(setups, args.rounds)
        title = f"{format} GEMM, M = {M}" if M > 1 else f"{format} GEMV, weights cold, {weights} of them"
        bits = 8 if format == "int8" else 4.5
        work, unit = (2 * M * N * K * weights, "GOP/s") if M > 1 else (N * K * bits / 8 * weights, "GB/s")
        rows.append(row(title, found, work, unit, target, list(setups)[1:]))
    for name, (M, inner, columns) in BFLOAT16.items():
        if args.only and name not in args.only:
            continue
        found = interleaved({"minitransformer": ("benchmarks.quantized_gemm:product", True, M, inner, columns),
                             "our float32": ("benchmarks.quantized_gemm:product", False, M, inner, columns)},
                            args.rounds)  # fmt: skip
        title = f"bfloat16 product of float32 arrays, {M} × {inner} × {columns}"
        rows.append(row(title, found, 2 * M * inner * columns, "GFLOP/s", 1.85, ["our float32"]))
    report("quantized_gemm", "Quantised GEMM", rows, args)


if __name__ == "__main__":
    main()
