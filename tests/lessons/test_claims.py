"""The claims ledger: every claim is there, what lessons measured arrives in it, and nothing else does."""

import json

import pytest

from minitransformer import claims, locate
from minitransformer.claims import CLAIMS, Row

from .helpers import LESSONS


def results(folder, number, *found, within=True):
    (folder / number).mkdir(parents=True, exist_ok=True)
    rows = [
        {"claim": claim, "measured": measured, "setup": "small", "verdict": verdict, "lesson": number}
        for claim, measured, verdict in found
    ]
    run = {"lesson": number, "predictions": [{"question": "how many?", "within": within}], "claims": rows}
    (folder / number / "results.json").write_text(json.dumps(run), encoding="utf-8")


def test_the_ledger_of_the_checkout_is_one_that_was_generated():
    path = locate.lessons() / "CLAIMS.md"
    text = path.read_text(encoding="utf-8")
    rows = claims.parse(text)
    assert claims.render(rows) == text, "written by hand; python -m minitransformer.claims writes it"
    assert sorted({row.claim for row in rows} - {"–"}) == sorted(CLAIMS) == [f"C{i:02}" for i in range(1, 31)]
    for row in rows:
        if row.claim in CLAIMS:
            assert (row.section, row.document) == CLAIMS[row.claim]
        assert all((row.measured, row.setup, row.lesson)) == (row.verdict != "open")
        assert not row.lesson or any(lesson.name.startswith(row.lesson) for lesson in LESSONS)


def test_what_lessons_measured_arrives(tmp_path):
    results(tmp_path, "03", ("C22", "a | b,\nmeasured", "partly"), ("C26, D5 §1.2: 8×", "1.0×", "wrong as stated"))
    results(tmp_path, "01", ("C22", "another", "reproduced"), ("D2 §3.1: near zero", "so do others", "partly"))
    path = tmp_path / "CLAIMS.md"
    rows = claims.write(path, tmp_path)
    assert len(rows) == 32 and [row.claim for row in rows if row.lesson] == ["C22", "C22", "C26", "–"]
    assert [row.lesson for row in rows if row.claim == "C22"] == ["01", "03"]
    assert rows[-1] == Row("–", "D2 §3.1", "near zero", "so do others", "small", "partly", "01")
    read = claims.parse(path.read_text(encoding="utf-8"))
    assert [row.measured for row in read if row.claim == "C22"] == ["another", "a | b, measured"]
    assert sum(row.verdict == "open" for row in read) == 28


def test_a_lesson_that_did_not_run_keeps_its_rows_and_one_that_did_loses_the_old(tmp_path):
    path, first, second = tmp_path / "CLAIMS.md", tmp_path / "first", tmp_path / "second"
    results(first, "01", ("C01", "old", "partly"), ("C02", "old", "partly"))
    results(first, "02", ("C03", "stays", "reproduced"))
    claims.write(path, first)
    results(second, "01", ("C01", "new", "reproduced"))
    rows = {row.claim: row for row in claims.write(path, second)}
    assert rows["C01"].measured == "new" and rows["C03"].measured == "stays"
    assert rows["C02"] == Row("C02", *CLAIMS["C02"])
    before = path.read_bytes()
    claims.write(path, second)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("found", "within", "message"),
    [
        (("C99", "x", "partly"), True, "C01 to C30"),
        (("C01", "x", "surely"), True, "a verdict is one of"),
        (("C01", "x", "partly"), False, "how many"),
    ],
)
def test_bad_results_are_named_and_change_nothing(tmp_path, capsys, found, within, message):
    results(tmp_path, "01", found, within=within)
    path = tmp_path / "CLAIMS.md"
    path.write_text("kept", encoding="utf-8")
    assert claims.main(["--results", str(tmp_path), "--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and "results.json" in error and error.count("\n") == 1
    assert path.read_text(encoding="utf-8") == "kept"


def test_a_damaged_ledger_is_named(tmp_path):
    with pytest.raises(ValueError, match="7 cells, got 2"):
        claims.parse("| C01 | half a row |")
