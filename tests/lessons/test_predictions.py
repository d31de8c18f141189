"""What a lesson asks, shows and keeps of a prediction: the person's answer, the lesson's own, and what was seen."""

import json

import pytest
from rich.console import Console

from minitransformer import lesson as module
from minitransformer.lesson import Lesson, LessonFailed


@pytest.fixture
def lesson(tmp_path):
    made = Lesson("02", "Attention", folder=tmp_path)
    made.console = Console(width=80, record=True, color_system="truecolor", force_terminal=True, highlight=False)
    return made


@pytest.fixture
def answers(monkeypatch):
    """A person at a terminal who types these lines; what they were asked is kept."""
    typed, asked = [], []
    monkeypatch.setattr(module, "_interactive", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or typed.pop(0))
    return typed, asked


def shown(lesson):
    return lesson.console.export_text(styles=False)


def test_the_question_does_not_give_the_answer_away(lesson, answers):
    typed, asked = answers
    typed += ["about ten", "1,000"]
    made = lesson.predict("bytes of 8 scores?", 65_535, "bytes")
    assert asked == ["  your prediction in bytes (Enter to skip): "] * 2
    assert "65" not in shown(lesson)
    assert (made.predicted, made.answer) == (65_535, 1000)


@pytest.mark.parametrize(
    ("typed", "answer", "said", "unsaid"),
    [
        ("510", 510, "✓ as you said", "you said 510"),
        ("10", 10, "you said 10", "✓"),
        ("", None, "predicted 512", "✓"),
    ],
)
def test_the_mark_is_about_what_it_stands_beside(lesson, answers, typed, answer, said, unsaid):
    answers[0].append(typed)
    lesson.predict("MiB of the scores?", 512, "MiB").see(513, allowed=(500, 520))
    line = shown(lesson).splitlines()[-1]
    assert "MiB of the scores?" in line and said in line and "seen 513 MiB" in line and unsaid not in line
    (kept,) = json.loads(lesson.save().read_text(encoding="utf-8"))["predictions"]
    assert (kept["predicted"], kept["answer"], kept["seen"], kept["within"]) == (512, answer, 513, True)


def test_nobody_at_the_keyboard(lesson):
    made = lesson.predict("keys?", 39, "keys")
    made.see(38.5, allowed=(38, 40))
    assert made.answer is None and shown(lesson).split() == "keys? predicted 39 seen 38.5 keys".split()


@pytest.mark.parametrize("typed", ["", "512", "600"])
def test_what_is_outside_says_so_and_fails_whatever_was_answered(lesson, answers, typed):
    answers[0].append(typed)
    with pytest.raises(LessonFailed, match="saw 600 MiB, allowed is 500 to 520"):
        lesson.predict("MiB?", 512, "MiB").see(600, allowed=(500, 520))
    assert "✗ outside the allowed range, 500 to 520" in shown(lesson)
    assert not json.loads((lesson.folder / "results.json").read_text(encoding="utf-8"))["predictions"][0]["within"]


def test_what_was_said_and_seen_stay_in_one_line_of_eighty_columns(lesson, answers):
    answers[0].append("0.001")
    question = "share of the weight on what followed the earlier occurrence, of the strongest head of layer 1?"
    lesson.predict(question, 0.9, "of the weight").see(0.9123, allowed=(0.5, 1))
    lines = shown(lesson).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any("you said 0.001  seen 0.9123 of the weight" in line for line in lines)
