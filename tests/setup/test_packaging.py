"""What the project promises about itself: versions, the wheel's files, floors, UTF-8."""

import ast
import tomllib
from pathlib import Path

import pytest

import minitransformer
from minitransformer import locate

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(
    path
    for part in ("minitransformer", "tests", "lessons", "benchmarks", "start.py")
    for path in ([ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*.py"))
)


def test_one_version():
    assert minitransformer.__version__ == PYPROJECT["project"]["version"]


def test_wheel_puts_files_where_locate_looks(tmp_path, monkeypatch):
    """The same names in a checkout, beside the package, and in a wheel, inside it."""
    assert locate.checkout() == ROOT and locate.csrc() == ROOT / "csrc" and locate.lessons() == ROOT / "lessons"
    packages = PYPROJECT["tool"]["scikit-build"]["wheel"]["packages"]
    for destination, source in packages.items():
        assert (ROOT / source).is_dir()
        (tmp_path / destination).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(locate, "_PACKAGE", tmp_path / "minitransformer")
    assert locate.checkout() is None
    for name in ("csrc", "lessons"):
        found = getattr(locate, name)()
        assert packages[found.relative_to(tmp_path).as_posix()] == name
        found.rmdir()
        with pytest.raises(FileNotFoundError, match="install minitransformer again"):
            getattr(locate, name)()


def test_every_module_has_a_floor():
    """Imports go down only; a package that no floor names could import anything (`make lint` checks the imports)."""
    floors = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip("() ") for floor in floors for name in floor.replace("|", ":").split(":")}
    package = ROOT / "minitransformer"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert modules - {"__init__"} <= named


def encoding_is_missing(call):
    """A call that opens a text file without saying how its letters are written."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    method = isinstance(call.func, ast.Attribute)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("read_text", "write_text") and method:
        return (
            "encoding" not in keywords and None not in keywords and len(call.args) < (1 if name == "read_text" else 2)
        )
    if name != "open" or (
        method and getattr(call.func.value, "id", "") in ("os", "Image", "webbrowser", "tarfile", "zipfile")
    ):
        return False
    mode = keywords.get("mode") or next(iter(call.args[0 if method else 1 :]), None)
    binary = mode is not None and "b" in getattr(mode, "value", "b")
    return not binary and "encoding" not in keywords and None not in keywords


def test_encoding_check_sees_what_is_missing():
    wrong = ["open('x')", "open('x', 'w')", "p.open()", "p.read_text()", "p.write_text(t)"]
    right = [
        "open('x', 'rb')",
        "open('x', encoding='utf-8')",
        "p.open('wb')",
        "p.read_text(encoding='utf-8')",
        "os.open(p, 0)",
    ]
    for text, expected in [(text, True) for text in wrong] + [(text, False) for text in right]:
        assert encoding_is_missing(ast.parse(text).body[0].value) is expected, text


def test_text_files_are_opened_as_utf8():
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and encoding_is_missing(node)
    ]
    assert missing == []
