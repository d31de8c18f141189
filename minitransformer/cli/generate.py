"""Let a trained model write, token by token as it is chosen."""

from __future__ import annotations

import codecs
import sys

from rich.text import Text

from .options import (
    add_device,
    add_model,
    model_path,
    non_negative,
    number,
    open_device,
    positive,
    probability,
    seed,
    using,
)
from .screen import new_console, printable, shown


def configure(parser):
    add_model(parser)
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
    parser.add_argument(
        "--kernels", metavar="NAME", help="numpy, native, cuda, cuda-emulated, or FILE.py with kernels of yours"
    )
    add_device(parser)


def run(args):
    from ..inference import generate
    from ..random import Generator
    from ..training import load_model

    with using(args.kernels):
        where = open_device(args.device, args.kernels)  # complains before anything is read
        model, tokenizer, checkpoint = load_model(model_path(args.model))
        model.to(where)
        ids = prompt_ids(tokenizer, args.prompt)
        source = f"model {shown(checkpoint.path)}, step {checkpoint.info['step']:,}"
        new_console(stderr=True).print(Text(source, "quiet"), soft_wrap=True)  # stdout holds the text alone
        tokens = generate(model, ids, args.tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
                          generator=Generator(args.seed))  # fmt: skip
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a character may be spread over tokens
        clean = printable if sys.stdout.isatty() else str
        sys.stdout.write(args.prompt or "")
        try:
            for token in tokens:
                sys.stdout.write(clean(decode(tokenizer.token_bytes(token))))
                sys.stdout.flush()
        except KeyboardInterrupt:
            print(flush=True)  # what is said next begins a line
            raise
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
