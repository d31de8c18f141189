"""Every exercise: its solution passes every check, each of its mistakes is rejected, its stub says what to write."""

import re

import pytest

from minitransformer.practice import exercises, grade
from minitransformer.practice.checks import MODULES, Wrong, checks_of, forbidden
from minitransformer.practice.child import _load
from minitransformer.practice.source import parse, without_exercises

EXERCISES = exercises()
MUTANTS = [(e, m) for e in EXERCISES for m in e.mistakes]
ENDLESS = "every path is walked"  # only a time limit ends this one


def outcomes(source, exercise, tmp_path):
    """What each check raised, None where it passed; stops at the first that was not passed."""
    file = tmp_path / f"{exercise.name}.py"
    file.write_text(source, encoding="utf-8")
    answer, problem = _load(file, exercise.name)
    assert not problem, problem
    found = []
    with forbidden(exercise.number):
        for check in checks_of(exercise.number):
            try:
                check.run(answer)
                found.append(None)
            except Exception as error:
                found.append(error)
                break
    return found


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.number)
def test_the_solution_passes_every_check(exercise, tmp_path):
    assert outcomes(exercise.solution, exercise, tmp_path) == [None] * len(checks_of(exercise.number))


@pytest.mark.parametrize(("exercise", "mistake"), [p for p in MUTANTS if not p[1].what.startswith(ENDLESS)],
                         ids=lambda x: getattr(x, "number", None) or x.what)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_mistake_is_found(exercise, mistake, tmp_path):
    error = outcomes(exercise.mutant(mistake), exercise, tmp_path)[-1]
    assert error is not None, f"no check of {exercise.number} finds: {mistake.what}"
    # a check says it, or an error about shapes or dtypes that the mistake brings about; never a typing error in it
    assert isinstance(error, (Wrong, ValueError, IndexError, TypeError)), repr(error)


def test_an_endless_mistake_is_stopped(tmp_path):
    ((exercise, mistake),) = [p for p in MUTANTS if p[1].what.startswith(ENDLESS)]
    file = tmp_path / "kahn.py"
    file.write_text(exercise.mutant(mistake), encoding="utf-8")
    report = grade(exercise, file, time_limit=2)
    assert not report.passed
    assert any("still running after 2 s" in outcome.detail for outcome in report.outcomes)
    assert report.outcomes[-1].passed is None  # what came after it was not run


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.number)
def test_every_exercise_is_whole(exercise, tmp_path):
    assert len(exercise.hints) == 3 and len(exercise.mistakes) >= 3
    assert 3 <= len(checks_of(exercise.number))
    assert exercise.task and "NotImplementedError" in exercise.stub and "NotImplementedError" not in exercise.solution
    (error,) = outcomes(exercise.stub, exercise, tmp_path)
    assert isinstance(error, NotImplementedError) and len(str(error)) > 20
    for mistake in exercise.mistakes:
        assert exercise.mutant(mistake) != exercise.solution
    if exercise.milestone:
        assert f"practice/{exercise.name}.py" in exercise.milestone[0]


def test_four_exercises_for_each_lesson_that_has_any():
    for lesson in sorted({e.number[:2] for e in EXERCISES} | set(MODULES) & {"01", "02", "03", "04"}):
        assert [e.number for e in EXERCISES if e.number[:2] == lesson] == [f"{lesson}.{i}" for i in (1, 2, 3, 4)]


def test_names_are_files_that_do_not_meet():
    names = [e.name.lower() for e in EXERCISES]
    assert len(set(names)) == len(names) and "progress" not in names


def test_exercise_cells_do_nothing_in_a_lesson():
    for path in sorted({e.lesson for e in EXERCISES}):
        source = path.read_text(encoding="utf-8")
        lesson = without_exercises(source)
        assert "exercise=" not in lesson and len(lesson) < len(source)
        added = [line for line in source.splitlines() if line not in lesson.splitlines()]
        assert all(line.startswith("#") for line in added)


def test_a_part_that_is_missing_is_named(tmp_path):
    lesson = next(e.lesson for e in EXERCISES)
    source = lesson.read_text(encoding="utf-8")
    mistakes = "Mistakes that the check must find"
    for part, said in (("Solution", "no solution"), ("Hint 1", ""), (mistakes, "no mistakes")):
        path = tmp_path / lesson.name
        path.write_text(source.replace(f"<summary>{part}<", "<summary>?<"), encoding="utf-8")
        if said:
            with pytest.raises(ValueError, match=rf"{re.escape(lesson.name)}: exercise 01\.1 has {said}"):
                parse(path)
        else:
            assert {len(e.hints) for e in parse(path)} == {2}


def test_a_mistake_that_cannot_be_read_is_not_passed_over(tmp_path):
    lesson = next(e.lesson for e in EXERCISES)
    source = lesson.read_text(encoding="utf-8")
    path = tmp_path / lesson.name
    path.write_text(source.replace("`-da * y` → `da * y`", "`-da * y` -> `da * y`"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"exercise 01\.1: every mistake reads"):
        parse(path)
