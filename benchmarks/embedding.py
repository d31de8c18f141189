"""MiniLM from its shipped file: tokens to sentence vectors (mean over the tokens, length 1); against transformers."""

from __future__ import annotations

import numpy as np

from .harness import THREADS, arguments, interleaved, ratio, report, shown_ratio

# (sentences, tokens of each), and the most of our time over PyTorch's
JOBS = {"one sentence": (1, 12, 0.5), "64 sentences": (64, 31, 1 / 1.3)}


def _ids(rows, tokens):
    return np.random.default_rng(0).integers(1000, 30000, (rows, tokens))


def ours(rows, tokens):
    import minitransformer as mt

    model, _ = mt.load("minilm")
    ids = _ids(rows, tokens)

    def job():
        with mt.no_grad():
            x = model(ids).numpy().mean(axis=1)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    return job


def transformers(rows, tokens):
    import torch
    import transformers

    from minitransformer.weights import obtain

    torch.set_num_threads(THREADS)
    model = transformers.BertModel.from_pretrained(obtain("minilm").parent).eval()
    ids = torch.tensor(_ids(rows, tokens))

    def job():
        with torch.inference_mode():
            return torch.nn.functional.normalize(model(ids).last_hidden_state.mean(1)).numpy()

    return job


def main():
    args = arguments(__doc__)
    rows = []
    for name, (sentences, tokens, most) in JOBS.items():
        if args.only and name not in args.only:
            continue
        setups = {label: (f"benchmarks.embedding:{label}", sentences, tokens) for label in ("ours", "transformers")}
        found = interleaved(setups, args.rounds)
        mine = found["ours"]
        row = {"job": f"{name} of {tokens} tokens", "ours": f"{1000 * mine.seconds:.2f} ms",
               "sentences/s": round(sentences / mine.seconds), "ours MB": round(mine.memory)}  # fmt: skip
        if "transformers" in found:
            theirs = found["transformers"]
            against = ratio(mine, theirs)
            row |= {"transformers": f"{1000 * theirs.seconds:.2f} ms", "transformers MB": round(theirs.memory),
                    "ratio": shown_ratio(against), "target": f"{most:.2f}",
                    "met": "yes" if against["ratio"] <= most else "no"}  # fmt: skip
        rows.append(row)
    report("embedding", "Sentence vectors of MiniLM (transformers is PyTorch, float32)", rows, args)


if __name__ == "__main__":
    main()
