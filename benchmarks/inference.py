"""SmolLM2-135M from its shipped file, one stream: decoding and reading a prompt; against llama.cpp."""

from __future__ import annotations

import pydoc_data.topics

import numpy as np

from .harness import THREADS, arguments, interleaved, ratio, report, shown_ratio

PAST, WRITTEN, PROMPT = 16, 16, 512
MODES = {"int8 activations": "int8", "exact": "float"}
TARGETS = {"decode": 1 / 1.5, "prefill": 1 / 5}  # our time over llama.cpp's on the same file


def _model(inputs):
    import minitransformer as mt

    model, tokenizer = mt.load("smollm2", inputs=inputs)
    return model, tokenizer.encode(pydoc_data.topics.topics["assignment"])[:PROMPT]


def decode(inputs):
    """WRITTEN greedy tokens behind PAST others."""
    from minitransformer.inference import generate

    model, ids = _model(inputs)
    cache = model.new_cache(capacity=PAST + WRITTEN + 1)

    def job():
        cache.truncate()
        return list(generate(model, ids[:PAST], WRITTEN, temperature=0.0, cache=cache))

    return job


def prefill(inputs):
    """The logits after PROMPT tokens, from nothing."""
    model, ids = _model(inputs)
    cache, ids = model.new_cache(capacity=PROMPT), np.array([ids])

    def job():
        cache.truncate()
        with model.evaluating():
            return model(ids, cache, last_only=True).numpy()

    return job


def _llama_cpp():
    import llama_cpp

    from minitransformer.weights import obtain

    model = llama_cpp.Llama(str(obtain("smollm2")), n_ctx=1024, n_batch=PROMPT, n_ubatch=PROMPT, n_threads=THREADS,
                            n_threads_batch=THREADS, verbose=False)  # fmt: skip

    def likeliest():
        pointer = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return int(np.ctypeslib.as_array(pointer, (model.n_vocab(),)).argmax())

    return model, likeliest


def llama_cpp_decode():
    model, likeliest = _llama_cpp()
    _, ids = _model("float")

    def job():
        model.n_tokens = 0
        model.eval(ids[:PAST])
        written = [likeliest()]
        while len(written) < WRITTEN:
            model.eval(written[-1:])
            written.append(likeliest())
        return written

    return job


def llama_cpp_prefill():
    model, likeliest = _llama_cpp()
    _, ids = _model("float")

    def job():
        model.n_tokens = 0
        model.eval(ids)
        return likeliest()

    return job


def rows(kind, tokens, args):
    """kind: "decode" or "prefill", of so many tokens. The job of decoding reads PAST tokens first, on both sides."""
    setups = {mode: (f"benchmarks.inference:{kind}", inputs) for mode, inputs in MODES.items()}
    found = interleaved({**setups, "llama.cpp": (f"benchmarks.inference:llama_cpp_{kind}",)}, args.rounds)
    for mode in MODES:
        row = {"job": f"{kind}, {mode}", "tokens/s": f"{tokens / found[mode].seconds:.0f}"}
        row["MB"] = f"{found[mode].memory:.0f}"
        if "llama.cpp" not in found:
            row |= {"beside": "llama.cpp: not installed"}
        else:
            peer = found["llama.cpp"]
            row |= {"beside": f"llama.cpp {tokens / peer.seconds:.0f} tokens/s, {peer.memory:.0f} MB"}
            row |= {"time ratio": shown_ratio(ratio(found[mode], peer))}
            if mode != "exact":
                met = found[mode].seconds <= TARGETS[kind] * peer.seconds
                row |= {"target": f"{TARGETS[kind]:.2f}", "met": "yes" if met else "no"}
        yield row


def main():
    args = arguments(__doc__)
    found = [*rows("decode", WRITTEN, args), *rows("prefill", PROMPT, args)]
    report("inference", "SmolLM2-135M, Q4_1, one stream", found, args)


if __name__ == "__main__":
    main()
