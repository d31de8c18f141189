"""The explorer's page as a file: what is packed, how exactly, what is refused, and that data stays data."""

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pytest

from minitransformer.visualization import AudioFrames, ImagePatches, LogitLens, Question, explore, stitch
from minitransformer.visualization.explorer import packing
from minitransformer.visualization.explorer.axes import png_url

RANDOM = np.random.default_rng(7)


def softmax_rows(*shape, causal=False):
    scores = 3 * RANDOM.normal(size=shape)
    if causal:
        scores = np.where(np.tri(*shape[-2:], shape[-1] - shape[-2], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def blocks_of(page):
    return dict(re.findall(r'<script type="application/octet-stream" id="([\w-]+)">([\w+/=]*)</script>', page))


def meta_of(explorer):
    return json.loads(zlib.decompress(base64.b64decode(blocks_of(explorer.html)["meta"])))


# ---------------------------------------------------------------- packing


def test_codes_lose_at_most_what_the_formula_says():
    p = np.concatenate([np.linspace(0, 1, 10_001), np.geomspace(1e-9, 1, 1000)])
    error = np.abs(packing.decoded(packing.codes_of(p)) - p)
    assert np.all(error <= np.sqrt(p) / 255 + 1 / 510**2 + 1e-15)
    assert error.max() > 0.003  # the bound is not idle


@pytest.mark.parametrize("pattern", ["uniform", "random", "one key"])
def test_dense_rows_sum_to_one_again_and_the_error_is_the_measured_one(pattern):
    layer = {
        "uniform": np.full((2, 5, 300), 1 / 300),
        "random": softmax_rows(2, 5, 300),
        "one key": np.tile(np.eye(300)[:5], (2, 1, 1)),
    }[pattern]
    packed = packing.pack_dense(layer, 1.0, True)
    codes = np.frombuffer(zlib.decompress(packed.data), np.uint8).reshape(layer.shape)
    shown = packing.decoded(codes, 1.0, np.ones(layer.shape[:-1]))
    assert np.allclose(shown.sum(axis=-1), 1, atol=1e-12)
    assert np.abs(shown - layer).max() == packed.worst_error < 0.006
    if pattern != "random":
        assert packed.worst_error < 1e-15  # these two patterns survive exactly


def unpack_topk(packed, heads, queries, keys, k):
    """The layout in the docstring of `pack_topk`, read back independently."""
    data = np.frombuffer(zlib.decompress(packed.data), np.uint8).reshape(heads, -1)
    low, high, codes = (data[:, i * queries * k : (i + 1) * queries * k].reshape(heads, queries, k) for i in range(3))
    dropped = packing.decoded(data[:, 3 * queries * k :])
    position = np.cumsum(low.astype(int) + 256 * high.astype(int), axis=-1)
    values = packing.decoded(codes, 1.0, 1 - dropped)
    whole = np.zeros((heads, queries, keys))
    h, q, i = np.nonzero(codes)
    whole[h, q, position[h, q, i]] = values[h, q, i]
    return whole, dropped


def test_topk_keeps_the_largest_weights_and_states_the_dropped_mass():
    layer = softmax_rows(2, 6, 700, causal=True)
    packed = packing.pack_topk(layer, 16, 1.0, True)
    whole, dropped = unpack_topk(packed, 2, 6, 700, 16)
    kept = whole > 0
    exact_drop = np.where(kept, 0, layer).sum(axis=-1)
    assert np.all(kept.sum(axis=-1) <= 16)
    assert np.abs(whole - layer)[kept].max() == pytest.approx(packed.worst_error)
    assert np.allclose(dropped, exact_drop, atol=0.004) and packed.dropped == pytest.approx(exact_drop.max())
    smallest_kept = np.where(kept, layer, np.inf).min(axis=-1)
    assert np.all(np.where(kept, 0, layer).max(axis=-1) <= smallest_kept)


def test_topk_of_rows_with_fewer_weights_than_k():
    layer = np.zeros((1, 4, 600))
    layer[0, 0, 599] = layer[0, 1, 0] = 1
    layer[0, 2, [3, 500]] = layer[0, 3, [597, 599]] = 0.75, 0.25
    whole, dropped = unpack_topk(packing.pack_topk(layer, 8, 1.0, True), 1, 4, 600, 8)
    assert np.abs(whole - layer).max() < 0.002 and not dropped.any()
    assert np.array_equal(whole > 0, layer > 0)


def test_thumbnails_are_block_maxima_with_masked_blocks():
    layer = np.zeros((1, 100, 100))
    layer[0, 70, 33] = 1
    small = packing.thumbnails(layer, 1.0, np.tri(100, dtype=bool))
    assert small.shape == (1, 34, 34)
    assert small[0, 70 // 3, 33 // 3] == 254 and np.count_nonzero(small == 254) == 1
    assert small[0, 0, 33] == packing.MASKED and small[0, 33, 0] == 0


# ---------------------------------------------------------------- the page


def test_page_is_self_contained_and_its_policy_names_its_one_script(tmp_path):
    path = tmp_path / "new" / "heads.html"
    explorer = explore(softmax_rows(2, 3, 4, 4, causal=True), list("abcd"), title="Heads", path=path)
    page = path.read_text(encoding="utf-8")
    assert page == explorer.html and [p.name for p in path.parent.iterdir()] == ["heads.html"]
    assert not re.search(r"""(src|href|url|import|fetch)\s*[=(:]?\s*["']?(https?:)?//""", page)
    script = re.search(r"<script>(.*?)</script>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert 'srcdoc="' in explorer._repr_html_() and "<script>" not in explorer._repr_html_()


def test_the_same_input_gives_the_same_bytes():
    attention = softmax_rows(1, 2, 5, 5)
    assert explore(attention).html == explore(attention.copy()).html


HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "'\"`&",
    "\u2028",
    "\ud800",
    "%%DATA%%",
    "z" * 10_000,
    b"\xff",
]


def test_tokens_never_reach_the_markup():
    attention = softmax_rows(1, 1, 8, 8)
    page = explore(attention, HOSTILE, title="</title><b>", caption="</script><i>").html
    plain = explore(attention, list("abcdefgh"), title="t").html
    assert re.findall(r"<[/!\w]+", page) == re.findall(r"<[/!\w]+", plain)  # the same tags in the same order
    meta = meta_of(explore(attention, HOSTILE))
    assert meta["query"]["labels"][0] == "</script><im…r=alert(1)>" and meta["query"]["full"]["0"] == HOSTILE[0]
    assert meta["query"]["labels"][4:6] == ["\\ud800", "%%DATA%%"] and len(meta["query"]["full"]["6"]) == 400


def test_sources_statistics_and_comparison():
    a, b = softmax_rows(2, 3, 6, 6, causal=True), softmax_rows(2, 3, 6, 6, causal=True)
    tokens = [1, 2, 3, 1, 2, 3]
    meta = meta_of(explore(a, versus=b, names=("float32", "int8"), token_ids=tokens, maps={"norms": 7 * a}))
    assert [s["name"] for s in meta["sources"]] == ["float32", "int8", "rollout of float32", "rollout of int8", "norms"]
    first, second = meta["sources"][:2]
    assert first["statistics"]["JS divergence"] == second["statistics"]["JS divergence"]
    assert first["statistics"]["largest difference"][1][2] == pytest.approx(np.abs(a - b)[1, 2].max(), rel=1e-4)
    assert "induction" in first["statistics"] and list(meta["sources"][4]["statistics"]) == ["strongest weight"]
    strongest = a.max(axis=-1)[..., 1:].mean(axis=-1)  # the first row sees one key
    for source, factor in ((first, 1), (meta["sources"][4], 7)):
        assert np.allclose(source["statistics"]["strongest weight"], factor * strongest, rtol=1e-4)
    assert meta["sources"][4]["scale"] == pytest.approx(7 * a.max())
    assert meta["visible"] == "causal"


def test_unequal_heads_steps_and_stitched_decoding():
    meta = meta_of(explore([softmax_rows(2, 4, 4), softmax_rows(3, 4, 4)]))
    assert meta["sources"][0]["heads"] == [2, 3]
    meta = meta_of(explore({100: softmax_rows(1, 2, 4, 4), 0: softmax_rows(1, 2, 4, 4)}))
    assert [(s["name"], s["step"]) for s in meta["sources"]] == [("step 0", 0), ("step 100", 100)]
    full = softmax_rows(1, 2, 5, 5, causal=True)
    assert np.array_equal(stitch([full[:, :, :3, :3], full[:, :, 3:4, :4], full[:, :, 4:]]), full)


def test_long_or_heavy_pages_turn_to_topk_rows():
    long = explore(softmax_rows(1, 1, 8, 600))
    assert "64 largest" in long.encoding and meta_of(long)["topK"] == 64 and 0 < long.dropped < 1
    attention = softmax_rows(2, 2, 256, 256)
    dense = explore(attention)
    assert meta_of(dense)["topK"] is None and dense.dropped == 0
    lighter = explore(attention, max_mb=dense.megabytes * 0.8)
    assert meta_of(lighter)["topK"] < 64 or "64 largest" in lighter.encoding
    assert lighter.megabytes < dense.megabytes * 0.8
    with pytest.raises(ValueError, match=r"above max_mb=0\.01; pass fewer layers or tokens"):
        explore(attention, max_mb=0.01)


def test_pictures_along_an_axis():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    meta = meta_of(explore(softmax_rows(3, 5), ["a", "b", "c"], ImagePatches(image, 2, 2, ("[CLS]",))))
    assert meta["key"]["labels"] == ["[CLS]", "patch 0,0", "patch 0,1", "patch 1,0", "patch 1,1"]
    assert meta["key"]["picture"]["offset"] == 1 and meta["key"]["picture"]["url"].startswith(
        "data:image/png;base64,iVBOR"
    )
    meta = meta_of(explore(softmax_rows(3, 4), None, AudioFrames(np.eye(8), 4, 0.02)))
    assert meta["key"]["labels"] == ["0.00 s", "0.02 s", "0.04 s", "0.06 s"]
    pillow = pytest.importorskip("PIL.Image")
    import io

    png = base64.b64decode(png_url(image).partition(",")[2])
    assert np.array_equal(np.asarray(pillow.open(io.BytesIO(png))), image)


def test_logit_lens_is_packed_as_labels_and_probabilities():
    lens = LogitLens([[["a", "\n"]] * 4] * 2, np.full((2, 4, 2), 0.25), ("input", "layer 0"))
    packed = meta_of(explore(softmax_rows(1, 1, 4, 4), lens=lens))["lens"]
    assert packed["names"] == ["input", "layer 0"] and packed["tokens"][1][3] == ["a", "⏎"]
    assert packed["probabilities"] == np.full((2, 4, 2), 0.25).tolist()


GOOD = softmax_rows(2, 3, 4, 4)
BROKEN = GOOD.copy()
BROKEN[1, 2, 3, 0] = np.nan


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: explore(GOOD[None]), ValueError, r"too many axes for \(layer, head, query, key\)"),
        (lambda: explore([GOOD, GOOD]), ValueError, r"layer 0 has shape \(2, 3, 4, 4\): a batch axis"),
        (lambda: explore(BROKEN), ValueError, "attention, layer 1: attention is nan at head 2, query 3, key 0"),
        (lambda: explore(GOOD * 0.5), ValueError, "layer 0: .* over the key axis, but head 0, query 0 sums to 0.5"),
        (lambda: explore(GOOD, list("abc")), ValueError, "query axis has length 4 but there are 3 query labels"),
        (lambda: explore(GOOD, None, list("abcde")), ValueError, "key axis has length 4 but there are 5 key labels"),
        (lambda: explore(GOOD[0, 0, 0]), ValueError, r"needs the axes \(head, query, key\)"),
        (lambda: explore([]), ValueError, "layer"),
        (lambda: explore({}), ValueError, "dictionary of training steps is empty"),
        (lambda: explore({"last": GOOD}), TypeError, "training steps must be finite numbers"),
        (lambda: explore({np.nan: GOOD, 1: GOOD}), TypeError, "training steps must be finite numbers"),
        (lambda: explore(GOOD, versus=GOOD, names=("A",)), ValueError, "names must be two"),
        (lambda: explore(GOOD, groups=0), ValueError, "groups must be a positive integer"),
        (lambda: explore(GOOD, question="why?"), TypeError, "question must be a Question, got str"),
        (lambda: explore(GOOD, lens=[["a"]]), TypeError, "lens must be a LogitLens, got list"),
        (lambda: explore(GOOD, max_mb=np.nan), ValueError, "max_mb must be above 0"),
        (lambda: explore(GOOD, start={"layer": "1"}), ValueError, r"start\['layer'\] must be an integer"),
        (lambda: explore(-GOOD), ValueError, r"not negative \(give magnitudes as maps="),
        (lambda: explore(GOOD, versus=softmax_rows(2, 3, 5, 5)), ValueError, r"B has \(query, key\) = \(5, 5\)"),
        (lambda: explore([GOOD[0], softmax_rows(3, 4, 5)]), ValueError, "layer 1 has .* but layer 0 has"),
        (lambda: explore(GOOD, maps={"signed": GOOD - 1}), ValueError, "signed, layer 0 has negative values"),
        (lambda: explore(GOOD, groups=2), ValueError, "groups=2 must divide the number of heads, 3"),
        (lambda: explore(GOOD, token_ids=[1, 2]), ValueError, "key axis has length 4 but token_ids"),
        (
            lambda: explore(GOOD, visible=np.tri(4)),
            ValueError,
            "visible hides a weight of .*; the mask and the attention",
        ),
        (lambda: explore(GOOD, lens=LogitLens([[["a"]]], np.ones((1, 1, 1)))), ValueError, r"\(rows, query = 4, k\)"),
        (lambda: explore(GOOD, lens=LogitLens([[["a"]] * 4], np.full((1, 4, 1), 2.0))), ValueError, "lie in 0..1"),
        (lambda: explore(GOOD, start={"row": 1}), ValueError, "start has no 'row'; known are source, layer"),
        (lambda: explore(GOOD, top_k=0), ValueError, "top_k must be at least 1"),
        (lambda: explore(GOOD, question=Question("?", ("a", "b"), 2)), ValueError, "answer's index"),
        (lambda: explore(GOOD, ImagePatches(np.zeros((2, 2)), 2, 3)), ValueError, r"0 prefix tokens and 2 × 3 parts"),
        (lambda: explore(GOOD, ImagePatches(np.zeros((2, 2, 4)), 2, 2)), ValueError, "an image must have shape"),
        (lambda: explore(GOOD, ImagePatches(np.full((2, 2), 2.0), 2, 2)), ValueError, "values in 0..1"),
        (lambda: stitch([GOOD, GOOD]), ValueError, "step 1 has 4 keys but its last query is position 7"),
    ],
)
def test_wrong_input_gets_one_line_that_names_the_axis(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
