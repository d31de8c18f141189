"""The command line: `minitransformer COMMAND …`, one module a command, imported when it is called.

A command module has `configure(parser)`, which adds its arguments, and `run(args)`, which returns the exit code (None
is 0). What a person got wrong is raised as ValueError, TypeError, IndexError, RuntimeError or OSError, anywhere below,
and becomes one line and exit code 2 here. Ctrl-C is 130. `--debug` shows the traceback instead.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import logging
import os
import sys
import warnings

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "tour": "two minutes: gradients checked, a GPT learns English, what it attends to",
    "learn": "the map of the lessons; with a number, that lesson",
    "train": "train a GPT on a text of yours (or on Python's language reference)",
    "generate": "let a trained model write",
    "chat": "talk with a real model: SmolLM2, on this computer",
    "embed": "what sentences mean, as numbers, and how alike they are: MiniLM, a BERT",
    "models": "real models: which can be had, and getting them",
    "attention": "where every head looks in a text: an interactive page, and figures",
    "gradcheck": "check every backward against finite differences, on any kernel set",
    "practice": "write parts of it yourself: exercises, checks, hints",
    "ladder": "a kernel from the naive loop to the shipped one, timed rung by rung",
    "where": "where a concept lives on every floor: path:line",
    "doctor": "versions, kernel sets, what is missing and the command that adds it",
}
EXIT_WRONG, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 2, 130, 141


class Parser(argparse.ArgumentParser):
    """argparse, with its errors raised as ValueError: one line, by the way all errors go."""

    def error(self, message):
        raise ValueError(f"{message}; see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0, 1 (a check failed), 2 (something is wrong), 130 (Ctrl-C)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?", not a traceback
    with _warnings_in_one_line():
        try:
            return _command(argv) or 0
        except SystemExit as stop:  # argparse's --help
            return stop.code or 0
        except KeyboardInterrupt as stop:
            if "--debug" in argv:
                raise
            _say("interrupted", str(stop) or "nothing was lost that had been saved")
            return EXIT_INTERRUPTED
        except BrokenPipeError:  # `minitransformer generate | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_CLOSED_PIPE
        except (ValueError, TypeError, IndexError, RuntimeError, OSError, ImportError, MemoryError) as error:
            if "--debug" in argv:
                raise
            _say("error", _one_line(error))
            return EXIT_WRONG


def _command(argv):
    from .. import __version__

    name = next((word for word in argv if not word.startswith("-")), None)
    if name is None:
        if "--version" in argv:
            return print(f"minitransformer {__version__}")
        unknown = [word for word in argv if word not in ("-h", "--help", "--debug")]
        if unknown:
            raise ValueError(f"unknown option {unknown[0]}; see `minitransformer --help`")
        return print(_help(__version__))
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(COMMANDS)}"
        raise ValueError(f"there is no command {name!r}; {hint}")
    rest = argv[:]
    rest.remove(name)
    module = importlib.import_module(f".{name}", __name__)
    parser = Parser(prog=f"minitransformer {name}", description=module.__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    module.configure(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return module.run(parser.parse_args(rest))


def _help(version):
    lines = [f"minitransformer {version}: the large-language-model stack, written by hand", ""]
    lines += ["usage: minitransformer COMMAND [options]", ""]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    lines += ["", "minitransformer COMMAND --help shows a command's options.", "New here? minitransformer tour"]
    return "\n".join(lines)


# ---------------------------------------------------------------- what goes to stderr, in one line each


def _one_line(error):
    if isinstance(error, MemoryError):
        return "not enough memory: a smaller --batch, --context, --width or --layers needs less"
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, ImportError):
        text = f"{text}; `minitransformer doctor` shows what is missing"
    return " ".join(text.split()) or type(error).__name__


def _say(kind, message):
    colour = {"error": "31", "interrupted": "33", "warning": "33"}[kind]
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        kind = f"\033[1;{colour}m{kind}\033[0m"
    print(f"{kind}: {message}", file=sys.stderr, flush=True)


class _Handler(logging.Handler):
    def emit(self, record):
        _say("warning", " ".join(record.getMessage().split()))


@contextlib.contextmanager
def _warnings_in_one_line():
    """Warnings of `warnings` and of the package's loggers as one line each, while a command runs."""
    logger, handler = logging.getLogger("minitransformer"), _Handler(logging.WARNING)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say("warning", " ".join(str(message).split()))
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate
