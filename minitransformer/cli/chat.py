"""Talk with a real model. Ctrl-C stops an answer, Ctrl-D or /bye ends the dialogue, /new begins another.

Lines from a pipe are said one after the other; then stdout holds the answers alone."""

from __future__ import annotations

import sys

from rich.text import Text

from .options import number, positive, probability, seed, using
from .screen import new_console, printable


def configure(parser):
    parser.add_argument("text", nargs="*", metavar="TEXT", help="say this, print the answer and end")
    parser.add_argument(
        "--model",
        default="smollm2",
        metavar="NAME",
        help="a name of `minitransformer models`, or a GGUF file (smollm2)",
    )
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first, in place of its own text")
    parser.add_argument("--exact", action="store_true",
                        help="the exact numbers of the weights: without it activations are rounded to 8 bits, which is "
                        "several times faster")  # fmt: skip
    parser.add_argument(
        "--tokens", type=positive, default=1024, metavar="N", help="the most tokens of an answer (1024)"
    )
    parser.add_argument(
        "--temperature", type=number, default=0.2, metavar="X", help="0: always the likeliest token (0.2)"
    )
    parser.add_argument("--top-k", type=positive, metavar="K", help="choose among the K likeliest only")
    parser.add_argument(
        "--top-p", type=probability, default=0.9, metavar="P", help="among the likeliest that make up P (0.9)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="the same seed gives the same answers (0)")
    parser.add_argument("--stats", action="store_true", help="after each answer, how fast it was (to stderr)")
    parser.add_argument("--kernels", metavar="NAME", help="numpy, native, or FILE.py with kernels of yours")


def run(args):
    from ..inference import Chat
    from ..random import Generator
    from ..weights import load

    with using(args.kernels):
        model, tokenizer = load(args.model, inputs="float" if args.exact else "int8")
        chat = Chat(model, tokenizer, args.system, max_new_tokens=args.tokens, generator=Generator(args.seed),
                    temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)  # fmt: skip
        quiet = new_console(stderr=True)
        if args.text:
            return _answer(chat, " ".join(args.text), args.stats, quiet)
        if not sys.stdin.isatty():
            for line in sys.stdin:
                if line.strip():
                    _answer(chat, line.rstrip("\n"), args.stats, quiet)
            return
        _converse(chat, args, quiet)


def _converse(chat, args, quiet):
    precision = "exact" if args.exact else "activations in 8 bits"
    quiet.print(Text(f"{args.model}, {precision}. /new begins anew, /bye or Ctrl-D ends.", "quiet"))
    while True:
        try:
            text = input("\n> ").strip()
        except EOFError:
            return print()
        if text == "/bye":
            return
        if text == "/new":
            chat.clear()
        elif text:
            try:
                _answer(chat, text, args.stats, quiet)
            except KeyboardInterrupt:
                quiet.print(Text("stopped", "quiet"))
            except ValueError as error:  # the dialogue is too long
                quiet.print(Text(str(error), "bad"))


def _answer(chat, text, stats, quiet):
    """Say a text and write the answer as it comes."""
    clean = printable if sys.stdout.isatty() else str
    answer = chat.say(text)
    try:
        for piece in answer:
            sys.stdout.write(clean(piece))
            sys.stdout.flush()
    finally:
        answer.close()
        print(flush=True)
    if stats:
        turn = chat.last
        quiet.print(Text(f"{turn.read} tokens read, first after {turn.first:.2f} s; {turn.written} written, "
                         f"{turn.tokens_per_second:.0f} a second", "quiet"))  # fmt: skip
