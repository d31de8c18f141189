"""What sentences mean, as numbers, and how alike they are: the cosine of each pair, 1 for the same meaning, about 0
for none in common. Without sentences, the lines of stdin.

--out writes the vectors, a row a sentence, as a NumPy file; --json writes sentences and vectors to stdout."""

from __future__ import annotations

import json
import sys

from rich.text import Text

from .options import positive, using, writing
from .screen import files, new_console, printable, table


def configure(parser):
    parser.add_argument("sentence", nargs="*", metavar="SENTENCE", help="what to embed")
    parser.add_argument("--model", default="minilm", metavar="NAME",
                        help="a name of `minitransformer models`, or a folder with a BERT (minilm)")  # fmt: skip
    parser.add_argument("--tokens", type=positive, default=256, metavar="N", help="the most tokens of a sentence (256)")
    parser.add_argument("--out", metavar="FILE.npy", help="write the vectors there")
    parser.add_argument("--json", action="store_true", help="sentences, vectors and cosines as JSON")
    parser.add_argument("--kernels", metavar="NAME", help="numpy, native, or FILE.py with kernels of yours")


def run(args):
    import numpy as np

    from ..inference import embed
    from ..models import BERT
    from ..weights import load

    sentences = args.sentence
    if not sentences and not sys.stdin.isatty():
        sentences = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not sentences:
        raise ValueError('nothing to embed: give sentences, `minitransformer embed "a sentence" "another"`')
    if args.out and not args.out.endswith(".npy"):
        raise ValueError(f"--out must name a .npy file, got {args.out!r}")
    with using(args.kernels):
        model, tokenizer = load(args.model)
        if not isinstance(model, BERT) or not hasattr(tokenizer, "sequence"):
            raise ValueError(f"{args.model} is no BERT with its tokenizer; `embed` needs one, such as minilm")
        vectors = embed(model, tokenizer, sentences, args.tokens)
    cosines = vectors @ vectors.T
    if args.out:
        with writing(args.out):
            np.save(args.out, vectors)
    if args.json:
        found = {"model": args.model, "sentences": sentences, "vectors": vectors.tolist(), "cosines": cosines.tolist()}
        return print(json.dumps(found, ensure_ascii=False))
    console = new_console()
    _show(console, sentences, cosines)
    if args.out:
        files(console, [(args.out, f"{len(sentences)} vectors of {vectors.shape[1]} numbers")])


def _show(console, sentences, cosines):
    """The table of cosines; of many sentences, for which it would be too wide, the most alike of each."""
    n = len(sentences)
    if n <= 12:
        rows = table("", "sentence", *[(str(j + 1), {"justify": "right"}) for j in range(n)])
        for i, sentence in enumerate(sentences):
            rows.add_row(str(i + 1), Text(printable(sentence)), *[f"{cosine:.2f}" for cosine in cosines[i]])
    else:
        rows = table("", "sentence", "most like it", ("cosine", {"justify": "right"}))
        for i, sentence in enumerate(sentences):
            j = max((j for j in range(n) if j != i), key=lambda j: cosines[i, j])
            rows.add_row(str(i + 1), Text(printable(sentence)), Text(printable(sentences[j])), f"{cosines[i, j]:.2f}")
    console.print(rows)
