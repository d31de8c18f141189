"""Runs a lesson as the script it is and keeps what it prints: python -m minitransformer.cli.transcript LESSON KEPT

The lesson still sees the terminal: it asks for predictions and draws progress bars. The text is written when the lesson
ends, in one go, so two runs at once do not mix, and an interrupted one leaves the text of the last that ended.
"""

from __future__ import annotations

import io
import os
import re
import runpy
import sys
import traceback
from pathlib import Path

ERASED = re.compile(r"[^\n]*\n[^\n]*?\x1b\[1A\r?\x1b\[2K")  # up a line and away with it: a bar that is done
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")  # colours, cursor moves; links


class Tee(io.TextIOBase):
    """The terminal, and a copy of everything that goes there."""

    def __init__(self, terminal, copy):
        self.terminal, self.copy = terminal, copy

    def write(self, text):
        self.copy.write(text)
        return self.terminal.write(text)

    def flush(self):
        self.terminal.flush()

    def isatty(self):
        return self.terminal.isatty()

    def fileno(self):
        return self.terminal.fileno()

    @property
    def encoding(self):
        return self.terminal.encoding


def plain(text: str) -> str:
    """What was left on the screen: no control codes, of a line that was drawn again only the last drawing."""
    text = text.replace("\r\n", "\n")
    while ERASED.search(text):
        text = ERASED.sub("", text, count=1)
    lines = CONTROL.sub("", text).split("\n")
    return "\n".join([line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines])


def main(lesson: str, kept: str) -> int:
    copy, code = io.StringIO(), 0
    terminal = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Tee(sys.stdout, copy), Tee(sys.stderr, copy)
    sys.path.insert(0, str(Path(lesson).parent))
    try:
        runpy.run_path(lesson, run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        code = 1
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != lesson:
            trace = trace.tb_next  # the lesson's frames, not those that brought it here
        traceback.print_exception(error.with_traceback(trace or error.__traceback__))
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = terminal
    keep(Path(kept), plain(copy.getvalue()))
    return code


def keep(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
