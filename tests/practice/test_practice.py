"""The practice command: what a person sees, and what a file may do without harm."""

import itertools
import json
import os
from pathlib import Path

import pytest

from minitransformer.cli import practice as command
from minitransformer.practice import child, exercises, find, grade, grading, milestones, progress, start
from minitransformer.practice.checks import Wrong, arrays, checks_of, equal


@pytest.fixture
def attention():
    return find("02.1")


def examined(exercise, path):
    """What `grade` says, with the checks run in this process: for files that do no harm."""
    results = path.with_suffix(".jsonl")
    child.main(str(results), exercise.number, exercise.name, str(path.resolve()))
    titles = [check.title for check in checks_of(exercise.number)]
    return grading._report(exercise, path, titles, grading._read(results), 0, 1, "")


def written(exercise, body):
    """The exercise's file with this body in place of the NotImplementedError."""
    path, _ = start(exercise)
    head = exercise.stub[: exercise.stub.index("    raise NotImplementedError")]
    path.write_text(head + body, encoding="utf-8")
    return path


# ---------------------------------------------------------------- list, start, hint


def test_the_list_shows_states(run, attention):
    code, out, _ = run("practice")
    assert code == 0 and "attention_forward" in out and "Milestones" in out and "practice start 01.1" in out
    start(attention)
    progress.record("exercises", "01.1", state="passed")
    _, out, _ = run("practice")
    assert "02.1  attention_forward  started" in out and "01.1  divide  passed" in out and "start 01.2" in out


def test_next_follows_the_one_passed_last(run):
    for number, when in (("02.2", "2025-01-31 20:15:01"), ("02.1", "2025-01-31 20:15:09"), ("01.1", "")):
        progress.record("exercises", number, state="passed", when=when)
    assert "start 02.3" in run("practice")[1]
    known = exercises()
    done = {e.number: {"state": "passed"} for e in known if e.number != "01.2"}
    assert command.next_open(known, done).number == "01.2"  # after the last comes the first
    assert command.next_open(known, done | {"01.2": {"state": "passed"}}) is None


def test_start_never_overwrites(run):
    code, out, _ = run("practice", "start", "2.1")
    path = Path("practice/attention_forward.py")
    assert code == 0 and "Written: practice/attention_forward.py" in out
    text = path.read_text(encoding="utf-8")
    assert "def attention_forward(q, k, v, *, scale" in text and "NotImplementedError" in text and "lse" in text
    path.write_text("mine", encoding="utf-8")
    code, out, _ = run("practice", "start", "attention_forward")
    assert code == 0 and "left as it was" in out and path.read_text(encoding="utf-8") == "mine"


def test_another_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("MINITRANSFORMER_PRACTICE", str(tmp_path / "my work"))
    run("practice", "start", "01.1")
    assert (tmp_path / "my work" / "divide.py").exists() and not Path("practice").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "02.9"], "there is no exercise '02.9'; there are 02.1, 02.2, 02.3, 02.4"),
        (["check", "atention_forward"], "did you mean attention_forward?"),
        (["check"], "nothing was started yet"),
        (["check", "02.1"], "practice/attention_forward.py is not there"),
        (["hint"], "which exercise?"),
        (["solve"], "invalid choice: 'solve'"),
        (["check", "02.1", "--time-limit", "0"], "must be a number above 0"),
    ],
)
def test_what_is_wrong_is_one_line(run, arguments, said):
    code, _, error = run("practice", *arguments)
    assert code == 2 and error.count("\n") == 1 and said in error


def test_hints_come_one_by_one_then_the_solution(run, attention):
    shown = [run("practice", "hint", "02.1")[1] for _ in range(4)]
    assert ["1. " in out for out in shown] == [True] * 4
    assert ["3. " in out for out in shown] == [False, False, True, True]
    assert "--solution" in shown[2] and "--solution" not in shown[0]
    assert all("higher = np.maximum" not in out for out in shown)
    assert "higher = np.maximum" in run("practice", "hint", "02.1", "--solution")[1]
    assert progress.read()["exercises"]["02.1"] == {"hints": 3, "solution_seen": True}
    progress.record("exercises", "02.1", state="passed")
    assert "higher = np.maximum" in run("practice", "hint", "02.1")[1]


# ---------------------------------------------------------------- check


def test_not_written_yet(run, attention):
    start(attention)
    code, out, _ = run("practice", "check", "02.1")
    assert code == 1 and "not written yet: softmax(scale q kᵀ + mask) v" in out and "✗" not in out
    code, out, _ = run("practice", "check", "02.1", "--solution")
    assert code == 1 and "higher = np.maximum" in out


def test_a_pass_shows_checks_cost_and_milestone(run, attention):
    path, _ = start(attention)
    path.write_text(attention.solution, encoding="utf-8")
    code, out, _ = run("practice", "check")
    assert code == 0, out
    assert out.count("✓") == 9 and "✗" not in out and "✓ three tokens, on paper" in out
    for word in ("naive", "engine", "yours", "MiB", "decides nothing", "train --kernels practice/attention_forward.py"):
        assert word in out
    assert progress.read()["exercises"]["02.1"]["state"] == "passed"
    path.write_text("broken(", encoding="utf-8")
    assert run("practice", "check")[0] == 1
    kept = progress.read()["exercises"]["02.1"]
    assert kept["state"] == "passed" and kept["checks"] == 2  # a pass stays one
    assert milestones.candidate(str(path)) is None  # but this text has not passed


def test_a_failure_shows_the_first_input_small(run, attention):
    path, _ = start(attention)
    path.write_text(attention.mutant(attention.mistakes[1]), encoding="utf-8")
    code, out, _ = run("practice", "check", "02.1")
    assert code == 1 and "✓ three tokens, on paper" in out and "✗ sizes from 0 to 150" in out
    for word in (
        "expected o",
        "got      o",
        "worst: o[0, 0, ",
        "k = (shape (1, 1, 5, 2))",
        "causal = True",
        "hint 02.",
    ):
        assert word in out
    assert out.count("expected o") == 1  # only the first is shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def attention_forward(:", "line 1: "),
        ("", "it defines no attention_forward"),
        ("attention_forward = 3", "it defines no attention_forward"),
        ("import numpyy", "line 1: ModuleNotFoundError: No module named 'numpyy'"),
        ("import sys\nsys.exit()", "line 2: the program ended itself"),
        ("x = 1 / 0", "line 1: ZeroDivisionError"),
        ("a\0b", "null bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(attention, text, said):
    path, _ = start(attention)
    path.write_text(text, encoding="utf-8")
    report = examined(attention, path)
    assert not report.passed and said in report.problem and "\n" not in report.problem
    assert all(outcome.passed is None for outcome in report.outcomes)


def test_bytes_that_are_no_text(attention):
    path, _ = start(attention)
    path.write_bytes(b"\xff\xfe\x00")
    assert not examined(attention, path).passed


@pytest.mark.parametrize("place", ["", "    "], ids=["while read", "in a check"])
def test_a_process_that_ends_itself(attention, place):
    path = written(attention, "    import os\n    os._exit(0)")
    if not place:
        path.write_text("import os\nos._exit(0)", encoding="utf-8")
    report = grade(attention, path)
    told = report.outcomes[0].detail if place else report.problem
    assert not report.passed and "the process ended by itself with exit code 0" in told


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")
def test_a_process_that_crashes(attention):
    report = grade(attention, written(attention, "    import os, signal\n    os.kill(os.getpid(), signal.SIGSEGV)"))
    assert not report.passed and "ended by SIGSEGV" in report.outcomes[0].detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return q", "must return a tuple of 2, got ndarray"),
        ("    pass", "got None: is a `return` missing?"),
        ("    return q[..., :1], k[..., 0]", "o must have shape (1, 1, 3, 2), got (1, 1, 3, 1)"),
        ("    return q.astype('float32'), k[..., 0]", "o must be float64, got float32"),
        ("    return q @ k, 0", "ValueError: matmul"),
        ("    q *= 2", "work on a copy"),
        ("    import sys\n    sys.exit(0)", "sys.exit has no place here"),
        ("    raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("    return attention_forward(q, k, v, scale=scale)", "RecursionError"),
        ("    input('?')", "it waits for input"),
        ("    print('x' * 10**6)\n    return q, k[..., 0]", "worst: o["),
        ("    from minitransformer import kernels\n    kernels.attention_forward(q, k, v, scale=1)", "not available"),
        ("    import minitransformer as mt\n    q, k, v = map(mt.tensor, (q, k, v))\n"
         "    return mt.scaled_dot_product_attention(q, k, v).data, q.data[..., 0]", "not available"),
        ("    from minitransformer.kernels import Unsupported\n    raise Unsupported('no')", "Unsupported: no"),
    ],
)  # fmt: skip
def test_an_answer_may_do_anything(attention, body, said):
    report = examined(attention, written(attention, body))
    assert not report.passed and not report.problem
    assert report.outcomes[0].passed is False and said in report.outcomes[0].detail
    if "print" in body:
        assert report.printed[0] >= 10**6 and len(report.printed[1]) < 1000


def test_endless_loops_are_stopped(attention, run):
    path = written(attention, "    while True:\n        print('x')\n")
    code, out, _ = run("practice", "check", "02.1", "--time-limit", 1)
    assert code == 1 and "still running after 1 s" in out and "– sizes from 0 to 150" in out
    path.write_text("while True: pass", encoding="utf-8")
    assert "while the file was read" in grade(attention, path, time_limit=1).problem


def test_a_slow_cost_does_not_fail(attention):
    path, _ = start(attention)
    slow = "    if q.shape[2] == 512:\n        raise MemoryError('too long')\n"
    place = attention.solution.index("    Tq, Tk = ")
    path.write_text(attention.solution[:place] + slow + attention.solution[place:], encoding="utf-8")
    report = examined(attention, path)
    assert report.passed and report.cost["rows"][-1] == ["yours", None, "MemoryError: too long"]


def test_watching_sees_every_save(tmp_path):
    path, ticks = tmp_path / "window.py", itertools.count()
    path.write_text("0", encoding="utf-8")
    saves = {2: "one", 4: "other", 6: None, 8: "third"}

    def wait():
        tick = next(ticks)
        assert tick < 20
        if tick in saves and saves[tick] is None:
            path.unlink()  # as an editor does that replaces the file
        elif tick in saves:
            path.write_text(saves[tick], encoding="utf-8")

    seen = command.saved([("02.4", path)], wait)
    assert [(next(seen), path.read_text(encoding="utf-8")) for _ in range(3)] == [
        ("02.4", "one"), ("02.4", "other"), ("02.4", "third"),
    ]  # fmt: skip


def test_ctrl_c_ends_watching(run, attention, monkeypatch):
    start(attention)

    def interrupted(pairs):
        yield pairs[0][0]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "saved", interrupted)
    code, out, error = run("practice", "check", "02.1", "--watch")
    assert code == 1 and out.count("not written yet") == 2 and error == ""


# ---------------------------------------------------------------- the comparison itself


@pytest.mark.parametrize(
    "got",
    [[1.0, 2.0, 3.0], None, (1, 2), np_array := arrays(0, (3,))[0], np_array.astype("float32"), np_array[:2],
     np_array + 1e-12, np_array * float("nan"), np_array[None], np_array.astype(complex), np_array > 0],
    ids=range(11),
)  # fmt: skip
def test_equal_tells_apart(got):
    expected = arrays(0, (3,))[0]
    if got is np_array:
        equal("x", got, expected)
        with pytest.raises(Wrong, match="bit for bit"):
            equal("x", got * (1 + 2**-52), expected, exact=True)
    else:
        with pytest.raises(Wrong):
            equal("x", got, expected, {"given": 3})


def test_equal_and_what_is_not_finite():
    inf = float("inf")
    expected = arrays(0, (3,))[0].copy()
    expected[0], expected[1] = -inf, float("nan")
    equal("x", expected.copy(), expected)
    for at, value in ((0, inf), (0, -1e300), (1, 0.0), (2, float("nan")), (2, inf)):
        wrong = expected.copy()
        wrong[at] = value
        with pytest.raises(Wrong):
            equal("x", wrong, expected)


# ---------------------------------------------------------------- the milestone


def test_a_gpt_trains_with_ones_own_kernel(run, attention, tmp_path):
    path, _ = start(attention)
    calls = "    with open('calls', 'a') as file:\n        file.write('x')\n"
    place = attention.solution.index("    Tq, Tk = ")
    path.write_text(attention.solution[:place] + calls + attention.solution[place:], encoding="utf-8")
    text = tmp_path / "cats.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 40, encoding="utf-8")
    small = "--layers 1 --heads 2 --width 16 --context 16 --batch 4 --steps 3 --evaluate-every 3".split()
    code, out, error = run("train", "--text", text, "--out", "out/mine", *attention.milestone[0].split()[1:3], *small)
    assert code == 0 and "attention_forward" in out, error
    log = [json.loads(line) for line in Path("out/mine/log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert len(losses) >= 3 and losses[-1] < losses[0]
    assert len(Path("calls").read_text(encoding="utf-8")) >= 3  # every step asked it


def test_a_milestone_needs_the_text_that_passed_and_its_steps(run, attention):
    path, _ = start(attention)
    path.write_text(attention.solution, encoding="utf-8")
    text = Path("cats.txt")
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 40, encoding="utf-8")
    small = "--layers 1 --heads 1 --width 4 --context 8 --batch 1 --evaluate-every 200".split()

    def trained(steps):
        code, out, error = run("train", "--text", text, "--kernels", path, *small, "--steps", steps)
        assert code == 0, error
        kept = milestones.reached(attention, progress.read()["exercises"])
        assert kept == ("Milestone: a GPT learns" in out) == ("✓ after 02.1" in run("practice")[1])
        return kept

    assert not trained(200)  # its check has passed nothing yet
    assert run("practice", "check", "02.1")[0] == 0 and "✓ after 02.1" not in run("practice")[1]
    assert not trained(20)
    path.write_text(attention.solution + "# another text\n", encoding="utf-8")
    assert not trained(200)
    path.write_text(attention.solution, encoding="utf-8")
    assert trained(200)
