#!/usr/bin/env python3
"""Sets minitransformer up, then does what you ask. Standard library only; nothing to install first.

    python3 start.py learn     the tour: gradients checked, a small GPT that learns English, what it attends to
    python3 start.py test      the gradients proved, then every test (arguments go to pytest: -k softmax -x)
    python3 start.py build     compile the C++ kernels again
    python3 start.py bench     speed beside PyTorch (bench training, bench attention: only that one)
    python3 start.py gpu       the CUDA kernels checked and timed on your GPU: benchmarks/RESULTS_GPU.md
    python3 start.py peers     the tests that compare with PyTorch
    python3 start.py lint      ruff, and the rule that imports go down only
    python3 start.py format    ruff puts the code into shape
    python3 start.py clean     delete what can be made again (clean --all: .venv too)

The first run makes .venv and installs into it, a minute or two; the next starts at once. Without a C++ compiler
everything runs on the NumPy kernels; MINITRANSFORMER_REQUIRE_NATIVE=1 makes that an error. bench and peers install
PyTorch, some 200 MB; gpu installs CuPy with NVIDIA's libraries, about a gigabyte. Nothing else needs them.
"""

# This file has to parse on Python 3.8, to tell people in one line that 3.11 is needed.

from __future__ import annotations

import ctypes
import glob
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

OLDEST, NEWEST = 11, 14  # Python 3.11 to 3.14
WINDOWS = os.name == "nt"
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "Scripts", "python.exe") if WINDOWS else os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "minitransformer.json")  # what is installed there; it goes when .venv goes
LOG = os.path.join(ROOT, "build", "set-up.log")


class Failed(Exception):
    """The set-up cannot go on. The first line says what is wrong and what would be right, the rest is evidence."""


# ---------------------------------------------------------------- the screen


class Screen:
    """One line a stage: a mark, what it is, what came of it, seconds. Counts up while a terminal watches."""

    def __init__(self, out=None):
        self.out = out or sys.stdout
        self.live = self.out.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.live and "NO_COLOR" not in os.environ
        self.name, self.since = "", 0.0
        if self.live and WINDOWS:
            os.system("")  # switches the console's escape sequences on
        self.marks = {"done": ("✓", 32), "failed": ("✗", 31), "without": ("–", 33), "running": ("·", 0)}
        try:
            "✓✗–·".encode(self.out.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            self.marks = {"done": ("ok", 32), "failed": ("!!", 31), "without": ("--", 33), "running": ("..", 0)}

    def say(self, text=""):
        encoding = self.out.encoding or "ascii"
        print(text.encode(encoding, "replace").decode(encoding), file=self.out, flush=True)

    def begin(self, name):
        if not self.since:
            self.say("minitransformer: setting up in .venv (the next start is at once)\n")
        self.name, self.since = name, time.monotonic()
        self.tick()

    def tick(self, detail=""):
        if self.live:
            self.out.write("\r" + self.line("running", detail) + "\033[K")
            self.out.flush()

    def end(self, outcome, detail=""):
        if self.live:
            self.out.write("\r\033[K")
        self.say(self.line(outcome, detail))

    def line(self, outcome, detail=""):
        mark, colour = self.marks[outcome]
        mark = f"\033[{colour}m{mark}\033[0m" if self.colour else mark
        detail = detail if len(detail) <= 44 else detail[:41] + "..."
        return f"  {mark} {self.name:<21} {detail:<44} {time.monotonic() - self.since:>6.1f} s"


# ---------------------------------------------------------------- a Python that will do


def candidates():
    """Commands that may start a Python that is new enough, the best first: .venv's, on PATH, in the usual places."""
    yield [PYTHON]
    minors = range(NEWEST, OLDEST - 1, -1)
    for minor in minors:
        if shutil.which(f"python3.{minor}"):
            yield [shutil.which(f"python3.{minor}")]
        if WINDOWS and shutil.which("py"):
            yield ["py", f"-3.{minor}"]
    home, local = os.path.expanduser("~"), os.environ.get("LOCALAPPDATA", "")
    pyenv = os.environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv")
    for minor in minors:
        for place in (
            os.path.join(pyenv, "versions", f"3.{minor}*", "bin", "python"),
            os.path.join(home, ".pyenv", "pyenv-win", "versions", f"3.{minor}*", "python.exe"),
            os.path.join(home, ".local", "share", "uv", "python", f"cpython-3.{minor}*", "bin", "python3"),
            os.path.join(local, "Programs", "Python", f"Python3{minor}*", "python.exe"),
            f"/opt/homebrew/bin/python3.{minor}",
            f"/usr/local/bin/python3.{minor}",
            f"/usr/bin/python3.{minor}",
        ):
            for found in sorted(glob.glob(place), reverse=True):
                yield [found]


def another_python(with_venv=False):
    """The path of a Python that is new enough (and can make virtual environments), or None."""
    modules = "venv, ensurepip" if with_venv else "sys"
    question = f"import sys, {modules}; assert sys.version_info >= (3, {OLDEST}); print(sys.executable)"
    for command in candidates():
        if with_venv and command == [PYTHON]:
            continue
        try:  # a name on PATH may be a shim that starts nothing, so ask
            answer = subprocess.run([*command, "-c", question], capture_output=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        path = answer.stdout.decode("utf-8", "replace").strip()
        if answer.returncode == 0 and path:
            return path
    return None


def install_command(what):
    """How to add "python" or its "venv" module on this machine."""
    version = f"3.{sys.version_info[1]}"
    managers = {
        "apt-get": ("sudo apt install python3 python3-venv", f"sudo apt install python{version}-venv"),
        "dnf": ("sudo dnf install python3.13", "sudo dnf install python3-pip"),
        "zypper": ("sudo zypper install python313", f"sudo zypper install python{version.replace('.', '')}"),
        "pacman": ("sudo pacman -S python",) * 2,
        "apk": ("sudo apk add python3",) * 2,
        "brew": ("brew install python@3.13",) * 2,
        "winget": ("winget install Python.Python.3.13",) * 2,
    }
    for manager, (python, venv) in managers.items():
        if shutil.which(manager):
            return venv if what == "venv" else python
    return "see https://www.python.org/downloads/"


# ---------------------------------------------------------------- running things


def run(command, screen):
    """Run one step quietly; its output goes to the log. Returns (exit code, output)."""
    environment = dict(os.environ, PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    environment.pop("PYTHONHOME", None)
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    with open(LOG, "a+b") as log:
        log.write(("\n$ " + " ".join(command) + "\n").encode("utf-8", "replace"))
        log.flush()
        start = log.seek(0, os.SEEK_END)
        # A session of its own, so that an interruption takes the compilers along and not only pip.
        own = {"cwd": ROOT, "env": environment, "start_new_session": True}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **own)
        try:
            while process.poll() is None:
                log.seek(max(start, log.seek(0, os.SEEK_END) - 4096))
                done = re.findall(rb"\[(\d+)/(\d+)\] ", log.read())  # Ninja's count
                screen.tick("%d of %d" % tuple(map(int, done[-1])) if done else "")
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    pass
        finally:
            if process.poll() is None:
                end(process)
        log.seek(start)
        return process.returncode, log.read().decode("utf-8", "replace")


def end(process):
    """End a step and what it started: as Ctrl-C does (Ninja stops its compilers, pip tidies up), then for good."""
    if WINDOWS:
        return process.kill()
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


def call(*command):
    """Run a command in view; returns its exit code. A Ctrl-C reaches it too: it may finish its own ending."""
    sys.stdout.flush()
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def become(*command):
    """Give this process over to a command."""
    if WINDOWS:  # where exec returns to the shell at once
        sys.exit(call(*command))
    sys.stdout.flush()
    os.execv(command[0], command)


# ---------------------------------------------------------------- what went wrong, in few words


def pip_problem(output):
    """What stopped pip, as one line."""
    offline = "NewConnectionError|Failed to establish a new connection|name resolution|NameResolutionError|getaddrinfo"
    if re.search(offline + "|Network is unreachable|ProxyError|ConnectTimeout|SSLError", output):
        return "no network: connect once for the downloads, or point PIP_INDEX_URL or PIP_FIND_LINKS at a copy of them"
    if re.search("No space left on device|not enough space|Disk quota exceeded", output):
        return "the disk is full: make room for about 600 MB, then run it again"
    wrappers = "subprocess-exited-with-error|metadata-generation-failed"  # pip's own words around the reason
    reasons = re.findall(rf"^\s*error: (?!{wrappers})(.+)", output, re.IGNORECASE | re.MULTILINE)
    return "pip cannot install it: " + (reasons[0].strip() if reasons else "no reason given")


def build_problem(output, root=ROOT):
    """Why there is no extension: CMake's own word, or the first compiler error with the place; [] if all went well."""
    cmake = r"The native kernels (?:are not|cannot be) built.*?:\s(.+?)(?:\n\s*\n|\n\s*Call Stack|\Z)"
    said = re.search(cmake, output, re.DOTALL)
    if said:
        return [" ".join(said.group(1).split())]
    lines = [line[2:] if line.startswith("  ") else line for line in output.splitlines()]  # pip -v indents by two
    compiler = re.compile(r".+[:(]\d+.*: (fatal )?error\b|.*\bfatal error\b|.*undefined reference to|CMake Error\b")
    for number, line in enumerate(lines):
        if compiler.match(line):
            after = lines[number + 1 : number + 5]
            if line.startswith("CMake Error"):  # its text follows, indented
                place = [more for more in after if more.strip() and "Call Stack" not in more]
            else:  # the source line, and the caret below it
                place = [more for more in after if re.match(r"\s*\d*\s*\| ", more)]
            return [text.replace(root + os.sep, "").rstrip() for text in [line.strip(), *place[:3]]]
    return []


# ---------------------------------------------------------------- what is there


def digest(thing):
    return hashlib.sha256(json.dumps(thing).encode("utf-8")).hexdigest()[:16]


def sources_digest(root=ROOT):
    """Changes with what the build reads (its settings, every C++ source) and with the place where all that lies."""
    files = [os.path.join(root, name) for name in ("pyproject.toml", "CMakeLists.txt")]
    for folder, _, names in os.walk(os.path.join(root, "csrc")):
        files += [os.path.join(folder, name) for name in names]
    contents = [root]
    for file in sorted(files):
        if os.path.isfile(file):
            with open(file, "rb") as stream:
                contents += [os.path.relpath(file, root), hashlib.sha256(stream.read()).hexdigest()]
    return digest(contents)


def compiler():
    """The C++ compiler that CMake would take, or None."""
    names = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++", "cl"]
    return next(filter(None, map(shutil.which, names)), None)


def native_required():
    return os.environ.get("MINITRANSFORMER_REQUIRE_NATIVE", "").lower() not in ("", "0", "no", "off", "false")


def read_stamp():
    try:
        with open(STAMP, encoding="utf-8") as stream:
            stamp = json.load(stream)
        return stamp if isinstance(stamp, dict) and os.path.exists(PYTHON) else {}
    except (OSError, ValueError):
        return {}


class SetUp:
    """Brings .venv up to date. A stage runs when its entry in the stamp is not what the project asks for now."""

    def __init__(self, screen, extras, rebuild):
        import tomllib  # Python 3.11

        with open(os.path.join(ROOT, "pyproject.toml"), "rb") as stream:
            settings = tomllib.load(stream)
        project = settings["project"]
        self.screen, self.stamp, self.version = screen, read_stamp(), project["version"]
        # CMake and Ninja as packages: the machine's own may be missing, or too old.
        self.packages = {"build tools": [*settings["build-system"]["requires"], "cmake>=3.20", "ninja"]}
        self.packages["libraries"] = project["dependencies"]
        self.packages.update({f"{extra} tools": project["optional-dependencies"][extra] for extra in extras})
        self.rebuild = rebuild or (native_required() and not self.stamp.get("native"))

    def run(self):
        missing = [name for name, wanted in self.packages.items() if self.stamp.get(name) != digest(wanted)]
        build = self.rebuild or self.stamp.get("package") != self.package_key()
        if not missing and not build:
            return
        if os.path.exists(LOG):
            os.remove(LOG)
        if not self.stamp:
            self.virtual_environment()
        for name in missing:
            self.install(name, self.packages[name])
        if build:
            self.package()
        self.screen.say()

    def virtual_environment(self):
        """Make .venv, or keep the one that is there if it works."""
        question = f"import sys; print(sys.version.split()[0]); assert sys.version_info >= (3, {OLDEST}); import pip"
        self.screen.begin("virtual environment")
        there = os.path.isdir(VENV)
        code, answer = run([PYTHON, "-c", question], self.screen) if os.path.exists(PYTHON) else (1, "")
        if code and "No module named 'pip'" in answer:
            code, _ = run([PYTHON, "-m", "ensurepip", "--default-pip"], self.screen)
        if code == 0:
            return self.screen.end("done", f"Python {answer.split()[0]}, the one that was there")
        if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
            other = another_python(with_venv=True)
            if other:
                become(other, os.path.abspath(__file__), *sys.argv[1:])
            raise Failed("this Python cannot make virtual environments; what adds that: " + install_command("venv"))
        # The base interpreter: the one that runs may belong to an environment, even to the broken one.
        base = getattr(sys, "_base_executable", None) or sys.executable
        code, output = run([base, "-m", "venv", "--clear", VENV], self.screen)
        if code:
            raise Failed("cannot make .venv: " + (output.strip().splitlines() or ["no reason given"])[-1].strip())
        version = ".".join(map(str, sys.version_info[:3]))
        return self.screen.end("done", f"Python {version}" + (", made again" if there else ""))

    def install(self, name, wanted):
        self.screen.begin(name)
        code, output = self.pip(name, wanted)
        if code:
            raise Failed(pip_problem(output))
        self.finish(name, digest(wanted))
        self.screen.end("done", ", ".join(re.match(r"[\w-]+", requirement).group() for requirement in wanted))

    def pip(self, name, arguments):
        """pip install. After an interruption half-written packages are written again, whatever pip thinks of them."""
        again = ["--ignore-installed"] if self.stamp.get(name) == "begun" else []
        self.finish(name, "begun")
        return run([PYTHON, "-m", "pip", "install", "--no-warn-script-location", *again, *arguments], self.screen)

    def finish(self, name, key):
        self.stamp[name] = key
        with open(STAMP + ".new", "w", encoding="utf-8") as stream:
            json.dump(self.stamp, stream, indent=1)
        os.replace(STAMP + ".new", STAMP)

    def package_key(self):
        # Without the extension, a compiler that has appeared since is a reason to try again.
        return [sources_digest(), None if self.stamp.get("native") else compiler()]

    def package(self):
        """Compile the C++ kernels and install the package, editable. Where that fails, NumPy's kernels remain."""
        self.screen.begin("C++ kernels, package")
        if self.stamp.get("compiler") != compiler():  # CMake remembers a compiler, and also that there was none
            for cache in glob.glob(os.path.join(glob.escape(ROOT), "build", "*", "CMakeCache.txt")):
                os.remove(cache)
        code, output = self.pip("package", ["-v", "--no-deps", "--no-build-isolation", "-e", ROOT])
        problem = build_problem(output)
        if code and not problem:
            raise Failed(pip_problem(output))
        if not code:
            reason = self.why_not_native()
            problem = reason and (problem or reason)
        if problem and (code or native_required()):
            required = " (and MINITRANSFORMER_REQUIRE_NATIVE is set)" if native_required() else ""
            raise Failed(f"the C++ kernels cannot be built{required}: " + "\n".join(problem))
        self.stamp.update(native=not problem, compiler=compiler())
        self.finish("package", self.package_key())
        if not problem:
            return self.screen.end("done", f"minitransformer {self.version}")
        self.screen.end("without", "no C++ kernels: NumPy's will do, slower")
        for line in [*problem, f"everything that pip, CMake and the compiler said: {os.path.relpath(LOG, ROOT)}"]:
            self.screen.say("      " + line)

    def why_not_native(self):
        """Import what was installed: [] when the C++ kernels load, else the reason."""
        question = "from minitransformer.kernels import native; print(native.REASON)"
        code, answer = run([PYTHON, "-c", question], self.screen)
        lines = [line for line in answer.splitlines() if line.strip()]
        if code:
            raise Failed("minitransformer is installed but its import fails: " + (lines or ["no reason given"])[-1])
        return lines


# ---------------------------------------------------------------- the commands


def learn(arguments):
    become(PYTHON, "-m", "minitransformer", "tour", *arguments)


def test(arguments):
    gradients = 0 if arguments else check_gradients()
    return call(PYTHON, "-m", "pytest", *on_all_cores(arguments), *arguments) or gradients


def on_all_cores(arguments):
    """Options with which pytest shares the tests out, unless somebody wants to watch or debug them."""
    if any(a.startswith(("-n", "-s", "--pdb", "--trace", "--co")) for a in arguments):
        return []
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its idle threads spin, and the cores are taken
    return ["-n", "auto"]


def check_gradients():
    """Every op's backward against finite differences, told in a line; failures one by one. Returns the exit code."""
    answer = subprocess.run([PYTHON, "-m", "minitransformer", "gradcheck", "--json"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        print(gradient_summary(json.loads(answer.stdout.decode("utf-8"))), end="\n\n", flush=True)
    except (ValueError, KeyError, TypeError):
        print(f"gradients: gradcheck --json gave no table (exit code {answer.returncode})\n", flush=True)
        return 1
    return answer.returncode


def gradient_summary(rows):
    """The table of `gradcheck --json` in a line, and a line for each row that failed."""
    passed, failed = [row for row in rows if row["passed"]], [row for row in rows if row["passed"] is False]
    run, ops = len(passed) + len(failed), len({row["op"] for row in rows})
    text, other = f"gradients: {len(passed)} of {run} checks passed on {ops} ops", len(rows) - run
    text += f" ({other} more need none: no kernel of the set takes part)" if other else ""
    checked = [row for row in passed if row["error"] is not None and row["dtype"] == "float64"]
    if checked:
        worst = max(checked, key=lambda row: row["error"])
        text += f"; worst relative error {worst['error']:.1e} ({worst['op']}, {worst['kernels']}, {worst['dtype']})"
    shown = "  failed: {op} ({kernels}, {dtype}) by {method}, relative error {error}"
    return "\n".join([text, *(shown.format(**row) for row in failed)])


def build(arguments):
    return 0  # the set-up has done it


def bench(arguments):
    names = [arguments.pop(0)] if arguments and not arguments[0].startswith("-") else ["training", "attention"]
    return max([call(PYTHON, "-m", f"benchmarks.{name}", *arguments) for name in names])


def gpu(arguments):
    return call(PYTHON, "-m", "benchmarks.gpu", *arguments)


def gpu_problem():
    """Why `gpu` cannot work here, found before anything is installed for it; "" when there is a driver."""
    for name in ("nvcuda.dll",) if WINDOWS else ("libcuda.so.1", "libcuda.so"):
        try:
            ctypes.CDLL(name)
            return ""
        except OSError:
            pass
    return "no NVIDIA driver was found: `gpu` needs a GPU and its driver (580 or newer, for CUDA 13). Without one, " + (
        "`python -m benchmarks.gpu --device cuda-emulated --small --out out/gpu.md` runs the same kernels on the CPU"
    )


def peers(arguments):
    return call(PYTHON, "-m", "pytest", "-m", "peers", *arguments)


def lint(arguments):
    imports = [PYTHON, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    return max([call(PYTHON, "-m", "ruff", "check"), call(PYTHON, "-m", "ruff", "format", "--check"), call(*imports)])


def reformat(arguments):
    return max([call(PYTHON, "-m", "ruff", "check", "--fix"), call(PYTHON, "-m", "ruff", "format")])


def clean(arguments):
    """Delete what can be made again; out/, with your models and figures, stays."""
    names = ["build", "dist", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"]
    for name in [*names, ".venv"] if "--all" in arguments else names:
        shutil.rmtree(os.path.join(ROOT, name), ignore_errors=True)
    for part in ("minitransformer", "tests", "lessons", "benchmarks"):
        for cache in glob.glob(os.path.join(glob.escape(ROOT), part, "**", "__pycache__"), recursive=True):
            shutil.rmtree(cache, ignore_errors=True)
    return 0


# name -> what it does, and the extras of pyproject.toml that it needs (None: no set-up at all)
COMMANDS = {
    "learn": (learn, ()),
    "test": (test, ("test",)),
    "build": (build, ()),
    "bench": (bench, ("peers",)),
    "gpu": (gpu, ("cuda",)),
    "peers": (peers, ("test", "peers")),
    "lint": (lint, ("dev",)),
    "format": (reformat, ("dev",)),
    "clean": (clean, None),
}


def main(argv):
    """Returns the exit code: 0, 1 (it failed), 2 (this cannot work here), 130 (Ctrl-C)."""
    screen = Screen()
    if not argv or argv[0] in ("help", "-h", "--help"):
        screen.say(__doc__.strip())
        return 0
    if argv[0] not in COMMANDS:
        screen.say(f"start.py: there is no command '{argv[0]}'; known are {', '.join(COMMANDS)}")
        return 2
    if sys.version_info < (3, OLDEST):
        newer = another_python()
        if newer:
            become(newer, os.path.abspath(__file__), *argv)
        version = sys.version.split()[0]
        screen.say(f"minitransformer needs Python 3.{OLDEST} or newer; this is {version}, and no newer one was found.")
        screen.say("What adds one: " + install_command("python"))
        return 2
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    if argv[0] == "gpu" and gpu_problem():
        screen.say("start.py: " + gpu_problem())
        return 2
    command, extras = COMMANDS[argv[0]]
    try:
        if extras is not None:
            SetUp(screen, extras, rebuild=argv[0] == "build").run()
        return command(argv[1:])
    except Failed as failure:
        first, *evidence = str(failure).splitlines()
        screen.end("failed")
        screen.say("\n" + "\n  ".join([first, *evidence]))
        screen.say("everything that was said: " + os.path.relpath(LOG, ROOT))
        return 1
    except KeyboardInterrupt:
        screen.say("\ninterrupted; the next run goes on from here")
        return 130
    except OSError as error:
        screen.say(f"\nthe set-up failed: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
