"""Write parts of the stack with your own hands; checks that cannot be fooled grade them, offline.

minitransformer practice                        the exercises by lesson, and how far you are
minitransformer practice start 02.1             writes practice/attention_forward.py for you to fill in
minitransformer practice check 02.1             grades it; without a number, all that you have started
minitransformer practice check 02.1 --watch     … again whenever you save
minitransformer practice hint 02.1              a hint, then a plainer one, then nearly all
minitransformer practice hint 02.1 --solution   the solution (after a pass: without asking twice)
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime

from rich.syntax import Syntax
from rich.text import Text

from ..practice import exercises, find, grade, milestones, progress, start, workspace
from ..practice.grading import TIME_LIMIT
from .learn import read_lesson
from .options import above_zero
from .screen import marks, new_console, program, shown

ACTIONS = ("list", "start", "check", "hint")


def configure(parser):
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="what to do (list)")
    parser.add_argument("exercise", nargs="?", metavar="EXERCISE", help="a number such as 02.1, or the function's name")
    parser.add_argument("--watch", action="store_true", help="check: again whenever the file is saved, until Ctrl-C")
    parser.add_argument("--solution", action="store_true", help="show the solution, whatever you have tried")
    parser.add_argument(
        "--time-limit", type=above_zero, default=TIME_LIMIT, metavar="SECONDS",
        help=f"check: when to give up on an exercise ({TIME_LIMIT:g})",
    )  # fmt: skip


def run(args):
    console, known = new_console(), exercises()
    chosen = None if args.exercise is None else find(args.exercise, known)
    if args.action == "list":
        return overview(console, known)
    if args.action == "check":
        code = check(console, [chosen] if chosen else begun(known), args.time_limit, args.watch)
        if args.solution and chosen:
            hint(console, chosen, solution=True)
        return code
    if chosen is None:
        raise ValueError(f"which exercise? such as `{program()} practice {args.action} {known[0].number}`")
    return begin(console, chosen) if args.action == "start" else hint(console, chosen, args.solution)


# ---------------------------------------------------------------- list, start


def overview(console, known) -> None:
    done, signs, lesson = progress.read()["exercises"], marks(console), None
    console.print(Text("Exercises: write it yourself, and have it checked.\n", "head"))
    for exercise in known:
        if exercise.lesson != lesson:
            lesson = exercise.lesson
            console.print(Text(f"{lesson.name[:2]}  {read_lesson(lesson).title}", "bold"))
        state = state_of(exercise, done)
        sign, style = {"passed": (signs["good"], "good"), "started": ("…", "doubt")}.get(state, (" ", "quiet"))
        line = Text(f"  {sign} ", style).append(f"{exercise.number}  ", "none").append(exercise.name, "bold")
        console.print(line.append("" if state == "open" else f"  {state}", "quiet"))
    ahead = [e for e in known if e.milestone]
    if ahead:
        console.print(Text("\nMilestones, on your own code", "head"))
    for exercise in ahead:
        sign = signs["good"] if milestones.reached(exercise, done) else signs["none"]
        console.print(Text(f"  {sign} after {exercise.number}: ").append(exercise.milestone[1]), soft_wrap=True)
    following = next_open(known, done)
    if following:
        verb = "check" if state_of(following, done) == "started" else "start"
        console.print(Text(f"\nNext:  {program()} practice {verb} {following.number}", "command"), soft_wrap=True)
    elif known:
        console.print(Text(f"\nAll {len(known)} passed. You have written the parts of a GPT.", "good"))
    else:
        console.print("There are no exercises in this installation.")


def state_of(exercise, done) -> str:
    """open, started or passed; a file that was removed after its pass has still been passed."""
    if done.get(exercise.number, {}).get("state") == "passed":
        return "passed"
    return "started" if workspace.file_of(exercise).exists() else "open"


def next_open(known, done):
    """The first that is not passed after the one passed last, then from the beginning; None when all are."""
    passed = [e for e in known if state_of(e, done) == "passed"]
    last = max(passed, key=lambda e: (str(done[e.number].get("when", "")), e.number), default=None)
    place = known.index(last) + 1 if last else 0
    return next((e for e in known[place:] + known[:place] if e not in passed), None)


def begin(console, exercise) -> None:
    path, written = start(exercise)
    if not written:
        console.print(Text(f"{shown(path)} is there already and was left as it was", "doubt").append(
            ": rename it, or delete it, to begin again", "none"), soft_wrap=True)  # fmt: skip
    else:
        progress.record("exercises", exercise.number, state=lambda old: old or "started")
        console.print(Text("Written: ").append(shown(path), "written"), soft_wrap=True)
        for paragraph in exercise.task.split("\n\n"):
            console.print(Text("\n" + " ".join(paragraph.split())))
        console.print()
    console.print(Text(f"Then:  {program()} practice check {exercise.number} --watch", "command"), soft_wrap=True)


def begun(known):
    found = [e for e in known if workspace.file_of(e).exists()]
    if not found:
        raise ValueError(f"nothing was started yet: `{program()} practice start {known[0].number}` writes a file")
    return found


# ---------------------------------------------------------------- check


def check(console, chosen, time_limit, watch=False) -> int:
    """Grade the exercises; 0 where all passed, else 1."""
    for exercise in chosen:
        if not workspace.file_of(exercise).is_file():
            raise ValueError(
                f"{shown(workspace.file_of(exercise))} is not there: "
                f"`{program()} practice start {exercise.number}` writes it"
            )
    passed = [graded(console, exercise, time_limit) for exercise in chosen]
    if watch:
        console.print(Text("\nwatching; Ctrl-C ends", "quiet"))
        with contextlib.suppress(KeyboardInterrupt):
            for exercise in saved([(e, workspace.file_of(e)) for e in chosen]):
                console.rule(style="quiet")
                passed[chosen.index(exercise)] = graded(console, exercise, time_limit)
    return 0 if all(passed) else 1


def saved(pairs, wait=lambda: time.sleep(0.3)):
    """Yield what belongs to a file each time that the file is saved; pairs of (what, path). Never ends."""
    last = {path: _stamp(path) for _, path in pairs}
    while True:
        wait()
        for what, path in pairs:
            stamp = _stamp(path)
            if stamp is not None and stamp != last[path]:  # None: an editor is just replacing it
                last[path] = stamp
                yield what


def _stamp(path):
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def graded(console, exercise, time_limit) -> bool:
    """Grade one file, show what was found and keep the state."""
    path = workspace.file_of(exercise)
    try:
        text = milestones.fingerprint(path)
        report = grade(exercise, path, time_limit)
    except FileNotFoundError:
        console.print(Text(f"{shown(path)} is gone", "doubt"))
        return False
    show(console, exercise, report)
    now = {"when": datetime.now().strftime("%Y-%m-%d %H:%M:%S"), "passed_text": text} if report.passed else {}
    progress.record(
        "exercises", exercise.number, checks=progress.one_more,
        state=lambda old: "passed" if report.passed or old == "passed" else "started", **now,
    )  # fmt: skip
    if report.passed:
        afterwards(console, exercise)
    return report.passed


def show(console, exercise, report) -> None:
    signs = marks(console)
    console.print(
        Text(f"{exercise.number} {exercise.name}  ", "head").append(shown(report.file), "quiet"), soft_wrap=True
    )
    if report.problem:
        style = "doubt" if report.problem.startswith("not written yet") else "bad"
        console.print(Text(f"  {report.problem}", style), soft_wrap=True)
        return
    first = report.first_wrong
    for outcome in report.outcomes:
        sign, style = {True: ("good", "good"), False: ("bad", "bad"), None: ("none", "quiet")}[outcome.passed]
        console.print(
            Text(f"  {signs[sign]} ", style).append(outcome.title, "quiet" if outcome.passed is None else "none")
        )
        if outcome is first:
            for line in outcome.detail.splitlines():
                console.print(Text(f"      {line}"), soft_wrap=True)
    wrong = sum(o.passed is False for o in report.outcomes)
    count, beginning = report.printed
    if count:
        console.print(Text(f"  it printed {count:,} characters: {beginning[:60]!r}", "quiet"), soft_wrap=True)
    if wrong:
        good = sum(o.passed is True for o in report.outcomes)
        console.print(Text(f"\n  {good} of {len(report.outcomes)} checks passed", "bad").append(
            f"; stuck?  {program()} practice hint {exercise.number}", "none"), soft_wrap=True)  # fmt: skip
    elif report.cost:
        console.print(Text(f"\n  cost ({report.cost['load']}); it decides nothing", "quiet"))
        for who, seconds, peak in report.cost["rows"]:
            told = str(peak) if seconds is None else f"{1e3 * seconds:10.2f} ms {peak / 2**20:10.2f} MiB at its peak"
            console.print(Text(f"    {who:<16}{told}", "bold" if who == "yours" else "none"), soft_wrap=True)


def afterwards(console, exercise) -> None:
    console.print(Text(f"\n  {marks(console)['good']} passed", "good").append(
        f"; compare with ours:  {program()} practice hint {exercise.number}", "none"), soft_wrap=True)  # fmt: skip
    if exercise.milestone:
        arguments, about = exercise.milestone
        path = shown(workspace.file_of(exercise))
        command = arguments.replace(f"practice/{exercise.name}.py", f'"{path}"' if " " in path else path)
        console.print(Text(f"\n  Milestone: {about}", "head"), soft_wrap=True)
        console.print(Text(f"    {program()} {command}", "command"), soft_wrap=True)


# ---------------------------------------------------------------- hint


def hint(console, exercise, solution=False) -> None:
    entry = progress.read()["exercises"].get(exercise.number, {})
    given = entry.get("hints", 0) if isinstance(entry.get("hints", 0), int) else 0
    total = len(exercise.hints)
    console.print(Text(f"{exercise.number} {exercise.name}", "head"))
    if solution or entry.get("state") == "passed":
        console.print(Syntax(exercise.solution, "python", background_color="default") if console.is_terminal
                      else Text(exercise.solution), soft_wrap=True)  # fmt: skip
        if entry.get("state") != "passed":
            progress.record("exercises", exercise.number, solution_seen=True)
        return
    progress.record("exercises", exercise.number, hints=min(given + 1, total))
    for i, text in enumerate(exercise.hints[: given + 1]):
        console.print(Text(f"  {i + 1}. ", "bold").append(text, "quiet" if i < given else "none"))
    if given + 1 >= total:
        command = f"{program()} practice hint {exercise.number} --solution"
        console.print(Text(f"\n  That was all. The solution:  {command}", "quiet"), soft_wrap=True)
