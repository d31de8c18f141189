"""The explorer in a real browser: opened from disk without a network, clicked, typed at, compared with the arrays."""

import json
import re
import time

import numpy as np
import pytest

from minitransformer.visualization import (
    ImagePatches,
    LogitLens,
    Question,
    explore,
    jensen_shannon,
    statistics,
    token_label,
)

from .browser import Browser, find
from .test_explorer import HOSTILE, softmax_rows

pytestmark = pytest.mark.skipif(find() is None, reason="no Chromium or Chrome is installed (set CHROMIUM to its path)")

T = 12
WORDS = "The cat saw the dog and the dog saw the cat .".split()
TOKENS = [WORDS[0], *(" " + word for word in WORDS[1:])]
A, B = softmax_rows(2, 3, T, T, causal=True), softmax_rows(2, 3, T, T, causal=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(browser, tmp_path):
    """A function that opens what `explore` makes; afterwards nothing may have been requested or thrown."""
    browser.problems.clear()
    browser.requests.clear()

    def open_page(*args, fragment="", size=(1280, 900), dark=False, **kwargs):
        made = explore(*args, path=tmp_path / "page.html", **kwargs)
        browser.open(tmp_path / "page.html", fragment, *size, dark=dark)
        assert browser.run("document.getElementById('failure').hidden")
        return made

    yield open_page
    assert browser.requests == [] and browser.problems == []


def state(browser, name):
    return browser.run(f"explorer.state.{name}")


def text(browser, element):
    return browser.run(f"document.getElementById('{element}').textContent")


def number(browser, element):
    return float(text(browser, element).replace("−", "-"))


def hover(browser, query, key):
    browser.run("document.getElementById('matrix').scrollIntoView()")
    place = browser.run(f"explorer.cellCentre({query}, {key})")
    browser.mouse("mouseMoved", place["x"], place["y"])
    return place


def box_of(browser, selector):
    """Left, top, width and height of an element on the screen, after scrolling to it."""
    element = f"document.querySelector({selector!r})"
    browser.run(f"{element}.scrollIntoView()")
    return browser.run(f"(b => [b.left, b.top, b.width, b.height])({element}.getBoundingClientRect())")


def settled(browser, expression):
    browser.wait(expression)
    browser.run("explorer.select({})")  # resolves when every view is drawn


def test_click_a_head_then_hover_reads_the_arrays_numbers(browser, page):
    made = page(A, TOKENS)
    left, top, width, height = box_of(browser, "#overview")
    browser.click(left + 0.9 * width, top + 0.8 * height)  # the last layer's last head
    settled(browser, "explorer.state.head === 2")
    assert state(browser, "layer") == 1
    assert text(browser, "head-name") == "attention · layer 1, head 2"
    for query, key in [(11, 0), (7, 3), (5, 5)]:
        hover(browser, query, key)
        row = A[1, 2, query]
        assert abs(number(browser, "read-p") - row[key]) <= made.worst_error + 5e-5
        assert int(text(browser, "read-rank")) == 1 + np.sum(row > row[key])
        assert number(browser, "read-mass") == pytest.approx(row[row >= row[key]].sum(), abs=0.02)
        readout = text(browser, "readout")
        assert token_label(TOKENS[query]) in readout and token_label(TOKENS[key]) in readout
    hover(browser, 2, 9)
    assert "this query cannot see this key" in text(browser, "readout")
    place = hover(browser, 7, 3)
    browser.click(place["x"], place["y"])
    settled(browser, "explorer.state.token === 7")
    assert "query 7, “␣dog”" in text(browser, "text-title")


def test_statistics_shown_are_those_of_the_arrays(browser, page):
    page(A, TOKENS, fragment="#layer=1&head=1", token_ids=[WORDS.index(word) for word in WORDS])
    rows = "[...document.querySelectorAll('#statistics tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    shown = {name: value for name, value, _ in browser.run(rows)}
    for name, values in statistics(A, token_ids=[WORDS.index(word) for word in WORDS]).items():
        assert float(shown[name]) == pytest.approx(values[1, 1], abs=6e-4), name


def test_keyboard_moves_the_selection_and_the_link_restores_it(browser, page, tmp_path):
    page(A, TOKENS, versus=B)
    for key, expected in [
        ("ArrowRight", "head === 1"),
        ("ArrowDown", "layer === 1"),
        ("k", f"token === {T - 2}"),
        ("s", "scale === 'log'"),
        ("t", "theme === 'dark'"),
        ("d", "direction === 'by'"),
        ("m", "mode === 'B'"),
        ("c", "colour === 'entropy'"),
        ("ArrowUp", "layer === 0"),
        (".", "source === 1"),
    ]:
        browser.press(key)
        settled(browser, f"explorer.state.{expected}")
    link = browser.run("location.hash")
    assert {"head=1", "layer=0", f"token={T - 2}", "theme=dark"} <= set(link[1:].split("&"))
    before = browser.run("explorer.state")
    browser.open(tmp_path / "page.html", link)
    assert browser.run("explorer.state") == before
    browser.run("location.hash = '#layer=1&head=2&token=3'")
    settled(browser, "explorer.state.token === 3")
    assert (state(browser, "layer"), state(browser, "head")) == (1, 2)
    browser.press("?")
    assert browser.run("document.getElementById('help').open")
    assert browser.run("document.querySelectorAll('#keys tr').length") >= 12
    browser.press("Escape")


def test_a_broken_link_selects_something_that_exists(browser, page):
    page(A, TOKENS, fragment="#layer=99&head=-1&token=1e9&mode=sideways&pin=9-9-9&colour=%3Cscript%3E&scale=")
    assert (state(browser, "layer"), state(browser, "head"), state(browser, "mode")) == (1, 0, "A")
    assert (state(browser, "scale"), state(browser, "colour")) == ("sqrt", "maps")


def test_comparison_shows_the_divergence_and_the_differences(browser, page):
    made = page(A, TOKENS, versus=B, names=("float32", "int8"), fragment="#layer=1&head=2&mode=difference")
    assert text(browser, "head-name") == "A − B: float32 − int8 · layer 1, head 2"
    assert number(browser, "divergence") == pytest.approx(jensen_shannon(A[1, 2], B[1, 2]).mean(), abs=0.01)
    hover(browser, 9, 4)
    assert number(browser, "read-p") == pytest.approx(A[1, 2, 9, 4] - B[1, 2, 9, 4], abs=2 * made.worst_error + 1e-4)
    browser.run("explorer.select({ other: null, mode: 'A' })")
    browser.press("p")
    settled(browser, "explorer.state.pin === '0-1-2'")
    browser.run("explorer.select({ layer: 0, head: 1, mode: 'difference' })")
    assert number(browser, "divergence") == pytest.approx(jensen_shannon(A[0, 1], A[1, 2]).mean(), abs=0.01)


def test_cells_have_the_colours_of_their_values(browser, page):
    attention = np.zeros((1, 1, 4, 4))
    attention[0, 0] = [[1, 0, 0, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0], [0, 0, 0, 1]]
    visible = np.tri(4)
    visible[3, 0] = 0
    page(attention, list("abcd"), visible=visible, fragment="#scale=linear&token=3")

    def pixel(query, key):
        left, top, width, _ = box_of(browser, "#matrix")
        place = browser.run(f"explorer.cellCentre({query}, {key})")
        canvas = "document.getElementById('matrix')"
        ratio = browser.run(f"{canvas}.width") / width
        x, y = (place["x"] - left - 20) * ratio, (place["y"] - top + 20) * ratio  # beside the printed number
        return browser.run(f"[...{canvas}.getContext('2d').getImageData({x}, {y}, 1, 1).data]")

    assert pixel(0, 0)[:3] == [0xFD, 0xE7, 0x25] and pixel(1, 0)[:3] == [0x44, 0x01, 0x54]  # viridis at 1 and at 0
    assert pixel(0, 3)[:3] == pixel(3, 0)[:3] == [0xE3, 0xE6, 0xEA]  # masked
    quarter = np.array(pixel(2, 0)[:3])
    assert np.abs(quarter - [0x3B, 0x52, 0x8B]).max() <= 3  # viridis at 1/4


def test_long_sequences_show_stored_weights_and_the_dropped_mass(browser, page):
    attention = softmax_rows(1, 2, 40, 600)
    attention[0, 1, 7] = 0
    attention[0, 1, 7, [10, 599]] = 0.5  # far apart: the difference needs two bytes
    made = page(attention, None, fragment="#head=1", top_k=32)
    head = attention[0, 1]
    values = np.array(browser.run("explorer.headJson().attention.map(r => r.length)"))
    assert np.all(values <= 32) and values.max() == 32
    rows = browser.run("explorer.headJson().attention")
    assert [key for key, _ in rows[7]] == [10, 599]
    assert max(abs(weight - head[q, k]) for q, row in enumerate(rows) for k, weight in row) <= made.worst_error + 1e-5
    missing = next(k for k in range(600) if k not in dict(rows[5]))
    browser.run(f"explorer.select({{ token: 5, key: {missing} }})")
    left_out = re.search(r"leave out ([\d.]+)", text(browser, "readout"))
    assert float(left_out.group(1)) == pytest.approx(1 - head[5, [k for k, _ in rows[5]]].sum(), abs=0.005)


def test_tokens_are_shown_and_never_run(browser, page):
    attention = softmax_rows(1, 1, 8, 8)
    page(attention, HOSTILE, title="</title><script>document.title = 'run'</script>", caption="<b>bold</b>")
    shown = browser.run("[...document.querySelectorAll('.words span')].map(s => s.textContent)")
    assert shown == [token_label(token) for token in HOSTILE]
    assert browser.run("document.title").startswith("</title>") and text(browser, "caption") == "<b>bold</b>"
    assert browser.run("document.querySelectorAll('img, b:not([id])').length") == 0
    browser.run("explorer.select({ token: 0, key: 0 })")
    assert HOSTILE[0] in text(browser, "readout")


def test_grouped_heads_name_their_key_value_head(browser, page):
    page(softmax_rows(1, 4, 3, 3), groups=2, fragment="#head=2")
    assert text(browser, "head-name").endswith("layer 0, head 2 (key/value head 1)")


@pytest.mark.parametrize(
    ("missing", "message"),
    [("Uint8Array.fromBase64", None), ("DecompressionStream", "this browser cannot unpack the data; Chrome 80")],
)
def test_older_browsers_work_or_say_what_is_missing(browser, tmp_path, missing, message):
    made = explore(A, TOKENS, path=tmp_path / "page.html")
    owner, _, name = ("window." + missing).rpartition(".")
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=f"delete {owner}.{name}")["identifier"]
    try:
        browser.open(tmp_path / "page.html")
        assert browser.run(f"typeof {owner}.{name}") == "undefined"
        if message:
            assert message in text(browser, "failure")
        else:
            assert abs(browser.run("explorer.cellNumbers(5, 2).value") - A[0, 0, 5, 2]) <= made.worst_error
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_nothing_is_seen_of_the_page_before_it_can_be_used(browser, page, tmp_path):
    explore(A, TOKENS, path=tmp_path / "dead.html")
    whole = (tmp_path / "dead.html").read_text(encoding="utf-8")
    (tmp_path / "dead.html").write_text(whole.replace("<script>", '<script type="text/plain">'), encoding="utf-8")
    browser.call("Page.navigate", url=(tmp_path / "dead.html").as_uri())
    browser.wait("document.readyState === 'complete' && !!document.getElementById('loading')")
    assert browser.run("document.body.innerText.trim()").startswith("Loading…")
    assert browser.run("[...document.querySelectorAll('input, button')].every(e => e.offsetParent === null)")
    page(A, TOKENS)
    assert browser.run("document.getElementById('loading').hidden && !document.getElementById('shell').hidden")


def test_a_damaged_file_says_so(browser, tmp_path):
    explore(A, TOKENS, path=tmp_path / "page.html")
    whole = (tmp_path / "page.html").read_text(encoding="utf-8")
    damaged = re.sub(r'(id="layer-0-1">.{40}).{60}', r"\1", whole)
    assert damaged != whole
    (tmp_path / "page.html").write_text(damaged, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert browser.run("document.getElementById('failure').hidden")  # the first layer is whole
    browser.run("explorer.select({ layer: 1 })")
    assert "the file is damaged (block layer-0-1)" in text(browser, "failure")


def test_training_steps_have_a_slider(browser, page):
    steps = {0: A * 0 + np.tri(T) / np.arange(1, T + 1)[:, None], 10: A, 200: B}
    page(steps, TOKENS, fragment="#layer=0&head=1&colour=entropy")
    assert text(browser, "step-value") == "200"
    browser.run(
        "(() => { const s = document.getElementById('step'); s.value = 0; s.dispatchEvent(new Event('input')); })()"
    )
    settled(browser, "explorer.state.source === 0")
    assert text(browser, "step-value") == "0" and text(browser, "head-name").startswith("step 0 ")
    assert browser.run("!!document.querySelector('#trend canvas')")


def test_a_question_covers_the_page_until_it_is_answered(browser, page):
    question = Question("Which head?", ("head 0", "head 1"), 1, "Because.")
    page(A, TOKENS, question=question)
    assert browser.run("!document.getElementById('cover').hidden")
    browser.press("ArrowRight")
    assert state(browser, "head") == 0  # nothing moves behind the cover
    browser.run("document.querySelectorAll('#choices button')[0].click()")
    assert text(browser, "verdict") == "It is: head 1. Because."
    browser.run("document.getElementById('reveal').click()")
    assert browser.run("document.getElementById('cover').hidden")
    page(A, TOKENS, question=question, fragment="#layer=1&head=1&reveal=")  # a link past the question
    assert browser.run("document.getElementById('cover').hidden") and state(browser, "head") == 1


def test_patches_of_an_image_are_selected_on_the_image(browser, page):
    attention = softmax_rows(2, 1, 3, 5)
    page(attention, ["a", "b", "c"], ImagePatches(np.zeros((4, 4)), 2, 2, ("[CLS]",)))
    left, top, width, height = box_of(browser, ".axis canvas")
    browser.click(left + 0.75 * width, top + 0.25 * height)
    settled(browser, "explorer.state.key === 2")
    assert text(browser, "text-title") == "Who looks at key 2, “patch 0,1”?"


def test_the_logit_lens_shows_predictions_and_selects(browser, page):
    tokens = [[[f"{row}-{query}", "other"] for query in range(T)] for row in range(3)]
    page(A, TOKENS, lens=LogitLens(tokens, np.tile([0.75, 0.25], (3, T, 1))), fragment="#token=2")
    assert text(browser, "lens-note") == "2, after query 2 “␣saw”: 2-2 0.750, other 0.250"
    left, top, width, _ = box_of(browser, "#lens")
    place = (left + width - 4, top + 22 + 11)  # the last column, second row from the top: row 1
    browser.mouse("mouseMoved", *place)
    assert text(browser, "lens-note").startswith("1, after query ")
    browser.click(*place)
    settled(browser, "explorer.state.token > 2")


def test_export_as_png_and_json(browser, page, tmp_path):
    made = page(A, TOKENS, fragment="#layer=1&head=0")
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.getElementById('save-json').click()")
    browser.run("document.getElementById('save-png').click()")
    files = [tmp_path / "layer-1-head-0.json", tmp_path / "layer-1-head-0.png"]
    end = time.monotonic() + 10
    while not all(file.exists() for file in files) and time.monotonic() < end:
        browser.run("new Promise(done => setTimeout(done, 50))")
    saved = json.loads(files[0].read_text(encoding="utf-8"))
    weights = np.array(saved["attention"], dtype=float)
    assert np.array_equal(np.isnan(weights), ~np.tri(T, dtype=bool))
    assert np.nanmax(np.abs(weights - A[1, 0])) <= made.worst_error + 1e-5
    assert saved["query_labels"] == [token_label(token) for token in TOKENS]
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", [(1280, 900), (900, 800), (390, 844)], ids=["wide", "tablet", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_fits_the_screen_in_light_and_dark(browser, page, size, dark):
    page(A, TOKENS, versus=B, size=size, dark=dark)
    assert state(browser, "theme") == ("dark" if dark else "light")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    outside = browser.run(
        "[...document.querySelectorAll('button, select, canvas, h2')]"
        ".filter(e => e.offsetParent && !e.closest('.scroller')).map(e => [e.id, e.getBoundingClientRect()])"
        ".filter(([, b]) => b.right > innerWidth + 1 || b.left < -1).map(([id]) => id)"
    )
    assert outside == []
    levels = browser.run("[...getComputedStyle(document.body).backgroundColor.matchAll(/\\d+/g)].map(Number)")
    assert (sum(levels) < 3 * 60) == dark
