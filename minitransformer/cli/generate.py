"""Let a trained model write, token by token as it is chosen."""

from __future__ import annotations

import codecs
import sys

from .. import kernels
from .options import load_kernels, non_negative, number, positive, probability, seed
from .screen import printable


def configure(parser):
    parser.add_argument(
        "--model",
        "--checkpoint",
        dest="model",
        metavar="PATH",
        help="a run's folder or a checkpoint file (the last trained)",
    )
    parser.add_argument("--prompt", help="the text to continue (a line break, where the tokenizer has one)")
    parser.add_argument("--tokens", type=non_negative, default=300, metavar="N", help="how many to write (300)")
    parser.add_argument(
        "--temperature",
        type=number,
        default=0.8,
        metavar="X",
        help="0: always the likeliest; 1: as the model says (0.8)",
    )
    parser.add_argument("--top-k", type=positive, metavar="K", help="choose among the K likeliest only")
    parser.add_argument(
        "--top-p", type=probability, metavar="P", help="choose among the likeliest that make up P of the probability"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="the same seed writes the same text (0)")
    parser.add_argument("--kernels", metavar="NAME", help="numpy, native, or FILE.py with kernels of yours")


def run(args):
    from ..inference import generate
    from ..random import Generator
    from ..training import last_run, load_model

    with kernels.use(load_kernels(args.kernels) if args.kernels else kernels.current()):
        model, tokenizer, _ = load_model(args.model or last_run())
        ids = prompt_ids(tokenizer, args.prompt)
        tokens = generate(model, ids, args.tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
                          generator=Generator(args.seed))  # fmt: skip
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a character may be spread over tokens
        clean = printable if sys.stdout.isatty() else str
        sys.stdout.write(args.prompt or "")
        for token in tokens:
            sys.stdout.write(clean(decode(tokenizer.token_bytes(token))))
            sys.stdout.flush()
        sys.stdout.write(clean(decode(b"", final=True)) + "\n")


def prompt_ids(tokenizer, prompt: str | None) -> list[int]:
    """The ids of a prompt. Raises ValueError for an empty one and for characters that the tokenizer lacks."""
    if prompt is None:
        try:
            return tokenizer.encode("\n")
        except ValueError:
            return [0]
    if not prompt:
        raise ValueError("--prompt is empty: give at least one character, or leave it out")
    return tokenizer.encode(prompt)
