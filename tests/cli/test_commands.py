"""What the commands print and write when all is well."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minitransformer import kernels, locate
from minitransformer.cli import COMMANDS, learn, options, screen, tour, train, where
from minitransformer.data import CharTokenizer
from minitransformer.function import OPS
from minitransformer.training import find, load_model

from .conftest import SMALL

CHECKED = ["softmax", "LayerNorm", "gelu"]


def test_help(run):
    code, out, error = run("--help")
    assert (code, error) == (0, "") and all(f"  {name} " in out for name in COMMANDS)
    assert run()[1] == out
    for name in COMMANDS:
        code, out, _ = run(name, "--help")
        assert code == 0 and out.startswith(f"usage: minitransformer {name}") and "--debug" in out


def test_help_loads_no_command():
    code = (
        "import sys; from minitransformer.cli import main; main(['--help']);"
        "print([m for m in sys.modules if m.partition('.')[0] in ('rich', 'matplotlib', 'safetensors')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------- train, generate, attention


def test_train_writes_what_it_says(run, trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"checkpoints", "config.json", "log.jsonl", "loss.png", "tokenizer.json"}
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    assert config["model"]["width"] == 16 and config["training"]["steps"] == 8
    assert [p.name for p in sorted((trained / "checkpoints").iterdir())] == [
        "step-00000004.safetensors",
        "step-00000008.safetensors",
    ]


def test_resumed_run_equals_an_unbroken_one(run, trained, text, tmp_path, monkeypatch):
    """Stopped by a full disk in `test_bad_input`; here by more --steps of the same schedule."""
    monkeypatch.setattr("minitransformer.training.trainer.Trainer.run", stop_at_four(run_of_trainer()))
    folder = tmp_path / "run"
    assert run("train", "--text", text, "--steps", 8, "--out", folder, *SMALL)[0] == 0
    monkeypatch.undo()
    code, out, error = run("train", "--resume", "--out", folder)
    assert (code, error) == (0, "") and "after step 4" in out
    a, b = find(folder), find(trained)
    assert a.tensors.keys() == b.tensors.keys() and all(np.array_equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def run_of_trainer():
    from minitransformer.training import Trainer

    return Trainer.run


def stop_at_four(real):
    return lambda self, **options: real(self, until=4, **options)


def test_runs_get_numbers(run, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        code, out, _ = run("train", "--text", text, "--steps", 1, *SMALL)
        assert code == 0 and f"out/train-{number}/loss.png" in out
    code, _, error = run("generate", "--tokens", 3)  # the newest one, by itself, and it says so
    assert (code, error) == (0, "model out/train-2/checkpoints/step-00000001.safetensors, step 1\n")
    assert run("generate", "--tokens", 3, "--model", "train-1")[2].startswith("model out/train-1/")


def test_suggested_prompts_begin_with_a_word(trained):
    model, _, _ = load_model(trained)
    for text, words in [
        ("ing. the cat sat on the mat", "the cat sat on"),
        ("attention", "attention"),
        ("xx 一二三四五", "一二三四五"),
    ]:
        tokenizer = CharTokenizer.train(text)
        trainer = SimpleNamespace(tokenizer=tokenizer, validation_ids=tokenizer.encode(text), model=model)
        assert train.example(trainer) == words


def test_generate(run, trained):
    arguments = ["generate", "--model", trained, "--prompt", "the ", "--tokens", 30]
    first = run(*arguments)
    assert first[0] == 0 and run(*arguments) == first != run(*arguments, "--seed", 1)
    model, tokenizer, _ = load_model(trained)
    from minitransformer.inference import generate_text

    assert first[1] == generate_text(model, tokenizer, "the ", 30, temperature=0.8) + "\n"
    greedy = run(*arguments, "--temperature", 0)
    assert greedy == run(*arguments, "--top-k", 1) == run(*arguments, "--top-p", 1e-9)


def test_attention(run, trained, tmp_path):
    code, out, error = run("attention", "the", "cat", "--model", trained, "--out", tmp_path)
    assert (code, error) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.png", "layer-0-head-0.png", "layer-0-head-1.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    table = [line.split() for line in out.splitlines() if re.match(r" \d", line)]
    assert [row[:2] for row in table] == [["0", "0"], ["0", "1"]] and all(
        0 <= float(x) <= 6 for row in table for x in row[2:]
    )


def test_chinese_text_from_training_to_heatmap(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("你好，世界。猫坐在垫子上，狗坐在木头上。" * 40, encoding="utf-8")
    small = ["--steps", 2, *SMALL]
    assert run("train", "--text", "text.txt", "--tokenizer", "bpe", "--vocab", 270, *small)[0] == 0
    code, out, error = run("generate", "--prompt", "你好", "--tokens", 20)
    assert code == 0 and out.startswith("你好") and error.startswith("model ") and error.count("\n") == 1
    code, _, error = run("attention", "猫坐", "--grid")
    assert code == 0 and Path("out/attention/heads.png").is_file()
    assert all(line.startswith("warning: no installed font") for line in error.splitlines())


# ---------------------------------------------------------------- gradcheck


def test_gradcheck_json(run):
    code, out, error = run("gradcheck", *CHECKED, "--kernels", "numpy", "--json")
    rows = json.loads(out)
    assert (code, error) == (0, "") and len(rows) == 6
    assert all(set(row) == {"op", "kernels", "dtype", "method", "error", "passed"} for row in rows)
    assert {row["op"] for row in rows} == {"Softmax", "LayerNorm", "GELU"}
    assert all(row["passed"] is True and 0 < row["error"] < 1e-3 for row in rows)


def test_gradcheck_table(run):
    code, out, _ = run("gradcheck", *CHECKED, "--kernels", "numpy")
    assert code == 0 and out.count("pass ") == 6 and "6 passed, 0 failed" in out
    assert all(len(line) <= 80 for line in out.splitlines())


BROKEN = """
from minitransformer.kernels import numpy as reference
softmax = reference.ROUTINES["softmax"]
def softmax_backward(dy, y, axis):
    return {body}
"""


def test_own_kernels_that_are_right(run, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(BROKEN.format(body="y * (dy - (dy * y).sum(axis, keepdims=True))"), encoding="utf-8")
    code, out, _ = run("gradcheck", "softmax", "gelu", "--kernels", path)
    assert code == 0 and "2 passed, 0 failed; 2 need no check here" in out and "GELU" not in out


def test_the_kernels_column_is_as_wide_as_its_name(run, tmp_path):
    for name, seen in (("attention_forward", "attention_forward"), ("a" * 30, "a" * 19 + "…")):
        path = tmp_path / f"{name}.py"
        path.write_text(BROKEN.format(body="dy"), encoding="utf-8")
        lines = run("gradcheck", "softmax", "--kernels", path)[1].splitlines()
        assert lines[1].split()[1] == seen and lines[0].index("dtype") == lines[1].index("float64")


@pytest.mark.parametrize("body", ["y * dy", "0 * dy", "dy[..., :1]", "1 / 0"])
def test_own_kernels_that_are_wrong(run, tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(BROKEN.format(body=body), encoding="utf-8")
    code, out, _ = run("gradcheck", "softmax", "--kernels", path)
    assert code == 1 and "FAIL" in out and "0 passed" in out
    if body in ("y * dy", "0 * dy"):
        assert re.search(r"input 0 at index \(.*\): got .*, expected ", out)
    code, out, _ = run("gradcheck", "softmax", "--kernels", path, "--json")
    rows = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert code == 1 and all(row["passed"] is False and row["detail"] for row in rows)


def test_nothing_checked_is_no_pass(run, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(BROKEN.format(body="dy"), encoding="utf-8")
    code, out, _ = run("gradcheck", "gelu", "--kernels", path)
    assert code == 1 and "nothing was checked" in out


# ---------------------------------------------------------------- where, learn, doctor


def test_where_names_real_lines(run, monkeypatch):
    monkeypatch.chdir(locate.checkout() or Path.cwd())
    code, out, _ = run("where", "attention")
    places = re.findall(r"^  (\S+):(\d+) +(\w+)", out, re.MULTILINE)
    assert code == 0
    assert {"csrc/attention.cpp", "minitransformer/kernels/numpy/attention.py", "minitransformer/ops/attention.py",
            "minitransformer/nn/attention.py"} <= {path for path, _, _ in places}  # fmt: skip
    for path, line, name in places:
        text = Path(path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert line == "1" or name in text, (path, line, name)


@pytest.mark.parametrize("name", ["AdamW", "adamw", "Softmax", "Tensor", "layer_norm_forward", "gradcheck", "GPT"])
def test_where_finds(run, name):
    code, out, _ = run("where", name)
    assert code == 0 and re.search(rf":\d+ +\S*{name}", out, re.IGNORECASE)


def test_where_reads_cpp(tmp_path):
    path = tmp_path / "thing.cpp"
    path.write_text(
        "// Things.\n#define THING(x) x\ntemplate <class T>\nstruct Thing {\n  int a;\n};\n\n"
        "static void thing_forward(const float* x,\n                          long n) {\n"
        "  if (thing(n)) return;\n  other_thing(x);\n}\n",
        encoding="utf-8",
    )
    assert [(p.line, p.name) for p in where.definitions(path)] == [(4, "Thing"), (8, "thing_forward")]


@pytest.mark.parametrize(("suffix", "heading"), [(".cpp", "C++"), (".cu", "C++ and CUDA")])
def test_where_says_cuda_where_there_is_some(tmp_path, capsys, suffix, heading):
    where.show(screen.new_console(), {"C++": [where.Place(tmp_path / f"thing{suffix}", 1, "thing", "")]})
    assert capsys.readouterr().out.splitlines()[0] == heading


LESSON = """# %% [markdown]
# # 07 · Why *softmax*?
#
# Why do $T \\times T$ scores become probabilities by `exp`? And
# what else?
#
# ## Numbers by hand
# %%
import sys
print("lesson output")
sys.exit({code})
"""


@pytest.fixture
def lessons(tmp_path, monkeypatch):
    for code, name in enumerate(("07_softmax.py", "08_more.py")):
        (tmp_path / name).write_text(LESSON.format(code=code), encoding="utf-8")
    monkeypatch.setattr(locate, "lessons", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)  # progress and results are kept in the working folder


def test_learn(run, lessons):
    found = learn.lessons()
    assert [(lesson.number, lesson.title) for lesson in found] == [(7, "Why softmax?"), (8, "Why softmax?")]
    assert found[0].question == "Why do T × T scores become probabilities by exp?"
    code, out, _ = run("learn")
    assert code == 0 and "learn 7" in out and "08_more.py" in out
    assert run("learn", 7)[0] == 0 and run("learn", 8)[0] == 1
    assert "there is no lesson 9; the lessons are 7, 8" in run("learn", 9)[2]


def test_the_syllabus_of_this_installation(run):
    numbers = [lesson.number for lesson in learn.lessons()]
    assert numbers == sorted(set(numbers))
    assert run("learn")[0] == 0


def test_doctor(run, monkeypatch):
    code, out, error = run("doctor")
    assert (code, error) == (0, "")
    for word in ("Python", "numpy", "safetensors", "native", "BLAS", "default corpus", "Chinese labels", "threads"):
        assert word in out or (word == "threads" and kernels.available()["native"])
    monkeypatch.setattr(kernels, "available", lambda: {"numpy": "", "native": "the extension is not built"})
    code, out, _ = run("doctor")
    assert code == 0 and "the extension is not built" in out and re.search(r"native kernels +.*make build", out)


# ---------------------------------------------------------------- tour


def test_tour(run, tmp_path, monkeypatch):
    """The whole of it at a size of seconds; the quick form itself runs in CI."""
    monkeypatch.setattr(tour, "QUICK", tour.Length(0.5, steps=1000, layers=1, heads=2, width=16, context=32, lr=1e-2))
    for _ in range(2):  # again over its own files
        code, out, error = run("tour", "--quick", "--out", tmp_path)
        assert (code, error) == (0, "")
        for part in ("Are the gradients right?", "it writes", "Where does it look?", "Written", "What to do next"):
            assert part in out
        assert out.count("✓ pass") >= len(tour.CORE)
        monkeypatch.setattr(tour, "CORE", {"GELU": tour.CORE["GELU"]})  # the second time, this part need not take long
        names = {path.name for path in tmp_path.iterdir()}
        assert {"loss.png", "heads.png", "log.jsonl", "checkpoints"} <= names and len(names) == 5
        assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    model, _, _ = load_model(tmp_path)
    assert model.config.width == 16


def test_a_failing_gradient_stops_the_tour(run, tmp_path, monkeypatch):
    monkeypatch.setattr(OPS["Softmax"], "backward", lambda self, dy: 0 * dy)
    code, out, _ = run("tour", "--quick", "--out", tmp_path)
    assert code == 1 and "FAIL" in out and list(tmp_path.iterdir()) == []


def test_the_tour_shows_the_formulas_of_the_docstrings():
    for op, formula in tour.CORE.items():
        assert formula in re.sub(r"\n\s+", " ", OPS[op].__doc__), op


# ---------------------------------------------------------------- options


def test_kernels_by_name_or_file(tmp_path):
    assert options.load_kernels("numpy") == "numpy"
    path = tmp_path / "mine.py"
    path.write_text("def gelu(x, approximate):\n    return x\n", encoding="utf-8")
    module = options.load_kernels(str(path))
    with kernels.use(module) as table:
        assert table.source["gelu"] == "mine" and table.source["softmax"] != "mine"
    with options.using(str(path)) as told:
        assert told.source == table.source and told.name == table.name
        assert inspect.signature(told.table["gelu"].first) == inspect.signature(module.gelu)
    with options.using(None) as table:
        assert table is kernels.current()


def test_own_kernels_may_leave_a_case_to_others(run, trained, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from minitransformer.kernels import Unsupported\n\n"
        "def attention_forward(*args, **kwargs):\n    raise Unsupported('not today')\n",
        encoding="utf-8",
    )
    arguments = ["generate", "--model", trained, "--prompt", "the ", "--tokens", 5]
    assert run(*arguments, "--kernels", path) == run(*arguments)
