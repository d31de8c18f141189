"""Where a concept lives on every floor, as path:line: C++, kernels, ops, layers, models, lessons, tests.

One word names a concept on all floors, so files of that name come first, then what is defined under it elsewhere.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from .. import locate
from .screen import new_console, shown

SUFFIXES = frozenset((".py", ".cpp", ".hpp", ".cu", ".cuh", ".h"))
# floor -> the folders below the root that belong to it, the most particular first
FLOORS = (
    ("csrc", "C++"),
    ("minitransformer/kernels", "kernels"),
    ("minitransformer/ops", "ops"),
    ("minitransformer/nn", "layers"),
    ("minitransformer/optim", "optimisers"),
    ("minitransformer/models", "models"),
    ("minitransformer", "package"),
    ("lessons", "lessons"),
    ("tests", "tests"),
)
# A C++ definition: a type, or a function whose line ends in "{" or in an open parameter list.
_TYPE = re.compile(r"^\s*(?:template\s*<[^;{]*>\s*)?(?:struct|class)\s+(\w+)\s*(?::[^;]*)?\{?\s*$")
_FUNCTION = re.compile(
    r"^(?!\s*(?:return|else|if|for|while|switch|using|typedef|#))[\w:<>,&*\s\[\]]+?[\s*&](\w+)\s*\([^;]*$"
)


@dataclass(frozen=True)
class Place:
    """One find: file, line, the name defined there (the file's own stem for the file itself), and a word about it."""

    path: Path
    line: int
    name: str
    about: str


def configure(parser):
    parser.add_argument("name", metavar="NAME", help="a concept or a definition: attention, softmax, AdamW, Tensor, …")


def run(args):
    root = locate.checkout()
    sources = list(source_files(root))
    found = {floor: [] for _, floor in FLOORS}
    names = set()
    for floor, path in sources:
        places = list(definitions(path))
        names |= {concept(path)} | {place.name for place in places}
        found[floor] += matches(args.name, path, places)
    if not any(found.values()):
        close = difflib.get_close_matches(args.name, sorted(names), 3, 0.6)
        raise ValueError(
            f"nothing is named {args.name!r} on any floor" + (f"; close: {', '.join(close)}" if close else "")
        )
    show(new_console(), found)


def show(console, found) -> None:
    width = max(len(f"{shown(place.path)}:{place.line}") for places in found.values() for place in places)
    for floor, places in found.items():
        if places:
            cuda = any(place.path.suffix in (".cu", ".cuh") for place in places)
            console.print(Text(f"{floor} and CUDA" if cuda else floor, "head"))
        for place in places:
            text = Text(f"  {shown(place.path)}:{place.line}".ljust(width + 4))
            text.append(place.name, "bold").append(f"  {place.about}" if place.about else "", "quiet")
            if console.is_terminal and text.cell_len > console.width:
                text.truncate(console.width, overflow="ellipsis")
            console.print(text, soft_wrap=True)


# ---------------------------------------------------------------- finding


def source_files(root: Path | None):
    """(floor, file) for every source; without a checkout, those that the wheel carries."""
    base = {"csrc": locate.csrc(), "lessons": locate.lessons()} if root is None else {}
    package = Path(__file__).resolve().parents[1]
    taken = set()
    for folder, floor in FLOORS:
        first, _, rest = folder.partition("/")
        top = base.get(first) or (package / rest if first == "minitransformer" else (root or package) / folder)
        for path in sorted(top.rglob("*")) if top.is_dir() else ():
            if path.suffix in SUFFIXES and path not in taken and "_files" not in path.relative_to(top).parts:
                taken.add(path)
                yield floor, path


def concept(path: Path) -> str:
    """The concept that a file is named after: 02_attention.py, test_attention.py and attention.cpp are "attention"."""
    stem = path.parent.name if path.stem == "__init__" else path.stem
    return re.sub(r"^(\d+_|test_)", "", stem)


def matches(name: str, path: Path, places: list[Place]) -> list[Place]:
    """What of a file answers to a name: the file if it is named so, and the definitions of exactly that name.

    In a file that is named so, every definition whose name holds it (attention: attention_forward, MultiHeadAttention);
    in the kernel contract, the routines whose name begins with it.
    """
    wanted, found = plain(name), []
    named_so, contract = plain(concept(path)) == wanted, path.name == "contract.py"
    if named_so:
        found.append(Place(path, 1, concept(path), about_file(path)))
    for place in places:
        last = place.name.rpartition(".")[2]
        own, private = plain(last), last.startswith("_") and not name.startswith("_")
        related = (named_so and wanted in own and floor_shows_parts(path)) or (contract and own.startswith(wanted))
        if not private and (own == wanted or related):
            found.append(place)
    return found


def floor_shows_parts(path: Path) -> bool:
    """A test file stands for its tests, a lesson for its functions: the file alone is listed."""
    return not re.match(r"test_|\d", path.name)


def plain(name: str) -> str:
    return name.rpartition(".")[2].replace("_", "").replace("-", "").lower()


def definitions(path: Path):
    """Every class, function, method and C++ definition of a file."""
    text = path.read_text(encoding="utf-8")
    yield from _python(path, text) if path.suffix == ".py" else _cpp(path, text)


def _python(path, text):
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    waiting = [("", node) for node in tree.body]
    while waiting:
        prefix, node = waiting.pop(0)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield Place(path, node.lineno, prefix + node.name, first_line(ast.get_docstring(node)))
        if isinstance(node, ast.ClassDef):
            waiting = [(f"{prefix}{node.name}.", child) for child in node.body] + waiting


def _cpp(path, text):
    seen = set()
    for number, line in enumerate(text.splitlines(), 1):
        match = _TYPE.match(line) or _FUNCTION.match(line)
        if match and match[1] not in seen:
            seen.add(match[1])
            yield Place(path, number, match[1], "")


def about_file(path: Path) -> str:
    """The first sentence of a file's docstring or opening comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        title = re.search(r"^# +#+ +(.+)$", text, re.MULTILINE)  # a lesson's heading
        if title and re.match(r"\d", path.name):
            return title[1].strip()
        try:
            return first_line(ast.get_docstring(ast.parse(text)))
        except SyntaxError:
            return ""
    comment = re.match(r"\s*(?://|/\*)\s*(.+)", text)
    return comment[1].strip() if comment else ""


def first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]
