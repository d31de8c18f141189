"""Every kernel in C++ beside its NumPy form, at the sizes of training job (b): 2,048 rows, width 384."""

from __future__ import annotations

import numpy as np

from .harness import arguments, interleaved, ratio, report, shown_ratio

ROWS, WIDTH, HIDDEN, VOCABULARY = 2048, 384, 1536, 1024


def jobs():
    """Routine -> a call of it on float32 arrays. Made in the process that measures."""
    from minitransformer import kernels
    from minitransformer.random import Generator

    generator = Generator(0)

    def draw(*shape):
        return generator.normal(shape)

    x, dy, w, b = draw(ROWS, WIDTH), draw(ROWS, WIDTH), draw(WIDTH), draw(WIDTH)
    up, hidden, dhidden = draw(HIDDEN, WIDTH), draw(ROWS, HIDDEN), draw(ROWS, HIDDEN)
    logits, targets = draw(ROWS, VOCABULARY), generator.integers(0, VOCABULARY, ROWS)
    q, k, v, do = (draw(8, 6, 256, 64) for _ in range(4))
    o, lse = kernels.attention_forward(q, k, v, scale=0.125, causal=True)
    _, mean, rstd = kernels.layer_norm_forward(x, w, b, 1e-5)
    _, rms = kernels.rms_norm_forward(x, w, 1e-5)
    y = kernels.softmax(x, -1)
    _, logits_lse = kernels.cross_entropy_forward(logits, targets)
    quantized = kernels.quantized_weight.QuantizedWeight.quantize(up, "int8").panels()
    each = np.full(ROWS, 1 / ROWS, np.float32)
    p, g, m, s = (draw(1_000_000) for _ in range(4))
    s **= 2
    adamw = {"step": 9, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    return {
        "matmul": lambda: kernels.matmul(x, up.T),
        "linear": lambda: kernels.linear(x, up),
        "matmul_bfloat16": lambda: kernels.matmul_bfloat16(x, up.T),
        "quantize_rows": lambda: kernels.quantize_rows(x),
        "quantized_gemm, int8": lambda: kernels.quantized_gemm(x, quantized, inputs="int8"),
        "linear_backward": lambda: kernels.linear_backward(dhidden, x, up),
        "attention_forward": lambda: kernels.attention_forward(q, k, v, scale=0.125, causal=True),
        "attention_backward": lambda: kernels.attention_backward(do, q, k, v, o, lse, scale=0.125, causal=True),
        "softmax": lambda: kernels.softmax(x, -1),
        "softmax_backward": lambda: kernels.softmax_backward(dy, y, -1),
        "log_softmax": lambda: kernels.log_softmax(x, -1),
        "layer_norm_forward": lambda: kernels.layer_norm_forward(x, w, b, 1e-5),
        "layer_norm_backward": lambda: kernels.layer_norm_backward(dy, x, w, mean, rstd),
        "rms_norm_forward": lambda: kernels.rms_norm_forward(x, w, 1e-5),
        "rms_norm_backward": lambda: kernels.rms_norm_backward(dy, x, w, rms),
        "gelu": lambda: kernels.gelu(hidden, "none"),
        "gelu, tanh": lambda: kernels.gelu(hidden, "tanh"),
        "gelu_backward, tanh": lambda: kernels.gelu_backward(dhidden, hidden, "tanh"),
        "silu": lambda: kernels.silu(hidden),
        "silu_backward": lambda: kernels.silu_backward(dhidden, hidden),
        "cross_entropy_forward": lambda: kernels.cross_entropy_forward(logits, targets),
        "cross_entropy_backward": lambda: kernels.cross_entropy_backward(each, logits, targets, logits_lse),
        "embedding_backward": lambda: kernels.embedding_backward(dy, targets, VOCABULARY),
        "dropout": lambda: kernels.dropout(hidden, 0.1, 1, 0),
        "random_bits": lambda: kernels.random_bits(1, 0, hidden.size),
        "adamw_step": lambda: kernels.adamw_step(p, g, m, s, **adamw),
        "squared_norm": lambda: kernels.squared_norm(hidden),
    }


def main():
    args = arguments(__doc__)
    rows = []
    for name in jobs():
        if args.only and name not in args.only:
            continue
        found = interleaved(
            {"C++": ("benchmarks.ours:kernel", name, "native"), "NumPy": ("benchmarks.ours:kernel", name, "numpy")},
            min(args.rounds, 7),
            slice_seconds=0.05,
        )
        native, plain = found["C++"], found["NumPy"]
        rows.append(
            {
                "routine": name,
                "C++ µs": f"{native.seconds * 1e6:,.0f}",
                "NumPy µs": f"{plain.seconds * 1e6:,.0f}",
                "time ratio": shown_ratio(ratio(native, plain)),
                "faster": "yes" if native.seconds < plain.seconds else "no",
            }
        )
    report("kernels", "Kernels, C++ beside NumPy", rows, args)


if __name__ == "__main__":
    main()
