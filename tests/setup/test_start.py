"""start.py: what it understands of failures, of interpreters and of what is already there."""

import ast
import importlib.util
import io
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="shell scripts stand in for programs")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start.py as a module, its places moved to a folder with a space in its name."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a place"
    root.mkdir()
    (root / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    for name, path in {
        "ROOT": root,
        "VENV": root / ".venv",
        "PYTHON": root / ".venv" / "bin" / "python",
        "STAMP": root / ".venv" / "minitransformer.json",
        "LOG": root / "build" / "set-up.log",
    }.items():
        monkeypatch.setattr(module, name, str(path))
    monkeypatch.setattr(module, "sources_digest", lambda root=str(root), digest=module.sources_digest: digest(root))
    return module


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)
    return path


# ---------------------------------------------------------------- the file itself


def test_parses_on_an_old_python():
    ast.parse((ROOT / "start.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_needs_the_standard_library_only():
    tree = ast.parse((ROOT / "start.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "subprocess" in names
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_make_and_help_offer_every_command(start):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()) == {"help", *start.COMMANDS}
    assert set(re.findall(r"^    python3 start\.py (\w+)", start.__doc__, re.MULTILINE)) == set(start.COMMANDS)


def test_unknown_command_is_one_line_and_two(start, capsys):
    assert start.main(["tset"]) == 2
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "tset" in out and "learn" in out


def test_gpu_without_a_driver_is_one_line_and_installs_nothing(start, capsys, monkeypatch):
    monkeypatch.setattr(start, "SetUp", None)
    monkeypatch.setattr(start.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert start.main(["gpu"]) == 2
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "no NVIDIA driver" in out and "--device cuda-emulated" in out
    monkeypatch.setattr(start.ctypes, "CDLL", lambda name: None)
    assert start.gpu_problem() == ""


# ---------------------------------------------------------------- failures in few words

SPACED = "/home/a b"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "[3/9] Building CXX object\n  FAILED: x.o\n"
            f"  {SPACED}/csrc/softmax.cpp:12:23: error: 'foo' was not declared in this scope\n"
            "     12 |   return foo;\n        |          ^~~\n  csrc/softmax.cpp:15:1: error: another\n",
            [
                "csrc/softmax.cpp:12:23: error: 'foo' was not declared in this scope",
                "   12 |   return foo;",
                "      |          ^~~",
            ],
        ),
        (
            f"{SPACED}/csrc/a.cpp:3:10: fatal error: 'no.hpp' file not found\n",
            ["csrc/a.cpp:3:10: fatal error: 'no.hpp' file not found"],
        ),
        (f"{SPACED}/csrc/a.cpp(7,3): error C2065: 'y'\n", ["csrc/a.cpp(7,3): error C2065: 'y'"]),
        (
            "  CMake Error at CMakeLists.txt:20 (add_library):\n    Cannot find source file:\n\n      csrc/no.cpp\n",
            ["CMake Error at CMakeLists.txt:20 (add_library):", "  Cannot find source file:", "    csrc/no.cpp"],
        ),
        (
            "  CMake Warning at CMakeLists.txt:13 (message):\n"
            "    The native kernels are not built, the NumPy kernels will run:\n    no C++\n    compiler; add one\n"
            "  Call Stack (most recent call first):\n    CMakeLists.txt:24 (without_native)\n",
            ["no C++ compiler; add one"],
        ),
        ("  warning: error-prone code\n  Successfully installed minitransformer-0.1.0\n", []),
    ],
    ids=["gcc", "clang", "msvc", "cmake", "cmake's own word", "all went well"],
)
def test_first_build_problem(start, output, expected):
    assert start.build_problem(output, SPACED) == expected


@pytest.mark.parametrize(
    ("output", "word"),
    [
        (
            "WARNING: Retrying: NewConnectionError('...')\nERROR: No matching distribution found for numpy>=2",
            "no network",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("  ERROR: wheel.packages is odd\n  error: subprocess-exited-with-error\n", "wheel.packages is odd"),
        ("Killed\n", "no reason given"),
    ],
)
def test_pip_problem_is_one_line(start, output, word):
    assert word in start.pip_problem(output) and "\n" not in start.pip_problem(output)


def test_gradient_summary(start):
    row = {
        "op": "softmax",
        "kernels": "numpy",
        "dtype": "float64",
        "method": "finite difference",
        "error": 1e-9,
        "passed": True,
    }
    rows = [row, row | {"op": "exp", "error": 3e-8}, row | {"kernels": "native", "error": None, "passed": None}]
    assert start.gradient_summary(rows) == (
        "gradients: 2 of 2 checks passed on 2 ops (1 more need none: no kernel of the set takes part); "
        "worst relative error 3.0e-08 (exp, numpy, float64)"
    )
    failing = start.gradient_summary([row, row | {"op": "matmul", "error": 0.5, "passed": False}])
    assert failing.splitlines()[1:] == ["  failed: matmul (numpy, float64) by finite difference, relative error 0.5"]


# ---------------------------------------------------------------- the screen


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "✓"), ("ascii", "ok"), ("cp1252", "ok")])
def test_screen_uses_what_the_terminal_can_show(start, encoding, mark):
    raw = io.BytesIO()
    screen = start.Screen(io.TextIOWrapper(raw, encoding=encoding))
    screen.begin("libraries")
    screen.end("done", "a detail that is far too long to be shown on one line of the screen")
    screen.say("naïve ✓")
    lines = raw.getvalue().decode(encoding).splitlines()
    assert re.fullmatch(rf"  {mark} libraries +a detail .*\.\.\. +0\.\d s", lines[2])
    assert "\r" not in raw.getvalue().decode(encoding)  # nobody watches: no lines that are written over


# ---------------------------------------------------------------- interpreters


@posix
def test_finds_the_newest_python_that_really_starts(start, tmp_path, monkeypatch):
    shim = program(tmp_path / "bin" / "python3.14", "exit 127")
    good = program(tmp_path / "bin" / "python3.12", f'exec "{sys.executable}" "$@"')
    monkeypatch.setenv("PATH", str(shim.parent))
    monkeypatch.setattr(start.glob, "glob", lambda pattern: [])
    assert list(start.candidates()) == [[start.PYTHON], [str(shim)], [str(good)]]
    assert start.another_python() == sys.executable
    good.unlink()
    assert start.another_python() is None


@posix
def test_old_python_without_a_newer_one_says_so(start, monkeypatch, capsys):
    monkeypatch.setattr(start, "another_python", lambda: None)
    monkeypatch.setattr(start.sys, "version_info", (3, 8, 18))
    assert start.main(["learn"]) == 2
    out = capsys.readouterr().out
    assert "needs Python 3.11 or newer" in out and out.count("\n") == 2


# ---------------------------------------------------------------- running things


@posix
def test_run_keeps_output_in_the_log(start):
    code, output = start.run(["sh", "-c", "echo one; echo two >&2; exit 3"], start.Screen(io.StringIO()))
    assert (code, output) == (3, "one\ntwo\n")
    assert "echo one" in Path(start.LOG).read_text(encoding="utf-8")


@posix
def test_interruption_takes_the_grandchildren_along(start, tmp_path):
    class Interrupted(start.Screen):
        def tick(self, detail=""):
            if pid_file.exists() and pid_file.read_text(encoding="utf-8").endswith("\n"):
                raise KeyboardInterrupt

    pid_file = tmp_path / "pid"
    script = program(tmp_path / "compiler", f'sleep 60 & echo $! > "{pid_file}"; wait')
    with pytest.raises(KeyboardInterrupt):
        start.run([str(script)], Interrupted(io.StringIO()))
    pid = int(pid_file.read_text(encoding="utf-8"))
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"):
            return  # dead, not yet collected by init
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the compiler survived the interruption")


# ---------------------------------------------------------------- what is already there


def test_sources_digest_follows_what_the_build_reads(start, tmp_path):
    root = tmp_path / "a place"
    (root / "csrc").mkdir()
    (root / "csrc" / "softmax.cpp").write_text("one", encoding="utf-8")
    seen = [start.sources_digest()]
    (root / "README.md").write_text("nothing to do with it", encoding="utf-8")
    assert start.sources_digest() == seen[0]
    (root / "csrc" / "softmax.cpp").write_text("two", encoding="utf-8")
    seen.append(start.sources_digest())
    (root / "csrc" / "softmax.cpp").rename(root / "csrc" / "softmax.hpp")
    seen.append(start.sources_digest())
    (root / "CMakeLists.txt").write_text("project(x)", encoding="utf-8")
    seen.append(start.sources_digest())
    root.rename(tmp_path / "another place")  # an editable install names the place
    seen.append(start.sources_digest(str(tmp_path / "another place")))
    assert len(set(seen)) == len(seen)


class Recorder:
    """Stands in for `run`: remembers the commands and answers as told."""

    def __init__(self, start, answers=lambda command: (0, "")):
        self.commands, self.start, self.answers = [], start, answers

    def __call__(self, command, screen):
        self.commands.append(command)
        if "venv" in command:
            Path(self.start.PYTHON).parent.mkdir(parents=True)
            Path(self.start.PYTHON).touch()
        return self.answers(command)

    def stages(self):
        short = []
        for command in self.commands:
            if "-e" in command:
                short.append("package")
            elif "install" in command:
                short.append("numpy" if "numpy>=2" in command else "pytest" if "pytest>=8" in command else "tools")
            elif "venv" in command:
                short.append("venv")
        self.commands.clear()
        return short


@pytest.fixture
def recorder(start, monkeypatch):
    recorder = Recorder(start)
    monkeypatch.setattr(start, "run", recorder)
    monkeypatch.setattr(start, "compiler", lambda: "/usr/bin/c++")
    monkeypatch.delenv("MINITRANSFORMER_REQUIRE_NATIVE", raising=False)
    return recorder


def set_up(start, *extras, rebuild=False):
    out = io.StringIO()
    start.SetUp(start.Screen(out), extras, rebuild).run()
    return out.getvalue()


def test_stages_run_once(start, recorder):
    assert "Python" in set_up(start)
    assert recorder.stages() == ["venv", "tools", "numpy", "package"]
    assert set_up(start) == "" and recorder.stages() == []
    set_up(start, "test")
    assert recorder.stages() == ["pytest"]
    (Path(start.ROOT) / "CMakeLists.txt").write_text("project(x)", encoding="utf-8")
    set_up(start, "test")
    assert recorder.stages() == ["package"]
    set_up(start, rebuild=True)
    assert recorder.stages() == ["package"]


@pytest.mark.parametrize("damage", ["", "[]", '{"libraries": '])
def test_a_damaged_stamp_counts_as_none(start, recorder, damage):
    set_up(start)
    recorder.commands.clear()
    Path(start.STAMP).write_text(damage, encoding="utf-8")
    recorder.answers = lambda command: (0, "3.12.1\n" if "import pip" in command[-1] else "")
    assert "Python 3.12.1, the one that was there" in set_up(start)
    assert recorder.stages() == ["tools", "numpy", "package"]


def test_a_broken_environment_is_made_again(start, recorder):
    set_up(start)
    recorder.commands.clear()
    Path(start.PYTHON).unlink()
    Path(start.PYTHON).parent.rmdir()
    assert "made again" in set_up(start)
    assert recorder.stages() == ["venv", "tools", "numpy", "package"]


def test_interrupted_installation_is_written_again(start, recorder):
    def interrupt(command):
        if "numpy>=2" in command:
            raise KeyboardInterrupt
        return 0, ""

    recorder.answers = interrupt
    with pytest.raises(KeyboardInterrupt):
        set_up(start)
    assert json.loads(Path(start.STAMP).read_text(encoding="utf-8"))["libraries"] == "begun"
    recorder.commands.clear()
    recorder.answers = lambda command: (0, "")
    set_up(start)
    assert ["--ignore-installed" in command for command in recorder.commands if "install" in command] == [True, False]
    assert recorder.stages() == ["numpy", "package"]


REASON = "native.REASON"
COMPILE_ERROR = "csrc/a.cpp:1:1: error: no such thing\n"


def test_compile_error_leaves_the_numpy_kernels(start, recorder, monkeypatch):
    recorder.answers = lambda command: (
        0,
        COMPILE_ERROR if "-e" in command else "not built\n" if REASON in command[-1] else "",
    )
    assert COMPILE_ERROR.strip() in set_up(start)
    recorder.commands.clear()
    assert set_up(start) == ""  # nothing has changed: it is not tried again
    monkeypatch.setattr(start, "compiler", lambda: "/usr/bin/another")
    set_up(start)
    assert recorder.stages() == ["package"]
    monkeypatch.setenv("MINITRANSFORMER_REQUIRE_NATIVE", "1")
    with pytest.raises(start.Failed, match=r"REQUIRE_NATIVE is set.*no such thing"):
        set_up(start)


def test_native_kernels_that_do_not_load_are_reported(start, recorder, monkeypatch):
    recorder.answers = lambda command: (0, "it does not load: libstdc++\n" if REASON in command[-1] else "")
    assert "does not load: libstdc++" in set_up(start)
    monkeypatch.setenv("MINITRANSFORMER_REQUIRE_NATIVE", "1")
    with pytest.raises(start.Failed, match="does not load"):
        set_up(start)


def test_another_compiler_makes_cmake_look_again(start, recorder, monkeypatch):
    cache = Path(start.ROOT) / "build" / "cp311" / "CMakeCache.txt"
    set_up(start)
    cache.parent.mkdir(parents=True)
    cache.touch()
    set_up(start, rebuild=True)
    assert cache.exists()
    monkeypatch.setattr(start, "compiler", lambda: None)
    set_up(start, rebuild=True)
    assert not cache.exists()


def test_missing_venv_module_names_the_command(start, recorder, monkeypatch, capsys):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(start, "another_python", lambda with_venv: None)
    monkeypatch.setattr(start.signal, "signal", lambda *_: None)
    assert start.main(["learn"]) == 1
    assert f"what adds that: {start.install_command('venv')}" in capsys.readouterr().out


def test_no_network_is_one_line_and_ctrl_c_is_130(start, recorder, monkeypatch, capsys):
    monkeypatch.setattr(start.signal, "signal", lambda *_: None)
    recorder.answers = lambda command: (1, "NewConnectionError") if "install" in command else (0, "")
    assert start.main(["learn"]) == 1
    assert "no network" in capsys.readouterr().out

    def interrupt(command):
        raise KeyboardInterrupt

    recorder.answers = interrupt
    assert start.main(["learn"]) == 130


def test_clean_keeps_your_work(start):
    root = Path(start.ROOT)
    for name in ("build/x", "out/x", ".venv/x", "minitransformer/ops/__pycache__/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert start.main(["clean"]) == 0
    left = {path.relative_to(root).as_posix() for path in root.rglob("x")}
    assert left == {"out/x", ".venv/x"}
    start.clean(["--all"])
    assert not (root / ".venv").exists()
