"""Where every head of a trained model looks in a text: an interactive page that opens from disk, and figures as PNG.

minitransformer attention "the cat sat on the mat"                   of the newest run in out/
minitransformer attention "the cat sat" --model train-1 --steps      how its heads came to be, with a slider
minitransformer attention "the cat sat" --model train-1 --versus train-2 --out both.html
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.progress import track
from rich.text import Text

from .options import add_model, model_path, using, writing
from .screen import files, new_console, shown, table

# column -> the statistic of `visualization.statistics` that it shows
STATISTICS = {
    "entropy": "entropy",
    "distance": "mean distance",
    "on previous": "previous token",
    "on first": "first token",
    "on itself": "diagonal",
}


def configure(parser):
    parser.add_argument("text", nargs="+", metavar="TEXT", help="what the model reads")
    add_model(parser)
    parser.add_argument("--versus", metavar="PATH", help="a second model to compare with: A, B and A − B")
    parser.add_argument("--steps", action="store_true", help="every checkpoint of the run, with a slider")
    parser.add_argument(
        "--out",
        default="out/attention.html",
        metavar="FILE.html",
        help="the page; the figures go to a folder of its name beside it (out/attention.html)",
    )
    parser.add_argument("--grid", action="store_true", help="only the figure with all heads, not one for each")
    parser.add_argument(
        "--kernels", metavar="NAME", help="numpy, native, cuda, cuda-emulated, or FILE.py with kernels of yours"
    )


def run(args):
    if args.versus and args.steps:
        raise ValueError("give either --versus or --steps, not both")
    console, text = new_console(), " ".join(args.text)
    page, folder = places(args.out)
    with using(args.kernels):
        versus = model_path(args.versus) if args.versus else None
        explorer, maps, labels, source = explored(text, model_path(args.model), versus, args.steps)
    with writing(args.out):
        written = [(explorer.save(page), "the page: open it in a browser; it needs no network")]
        written.append((draw_grid(maps, labels, folder), f"all {maps.shape[0]} × {maps.shape[1]} heads"))
        if not args.grid:
            heads = list(np.ndindex(maps.shape[:2]))
            for layer, head in track(heads, "drawing", console=console, transient=True,
                                     disable=not console.is_terminal):  # fmt: skip
                path = draw_head(maps, labels, layer, head, folder)
            written.append((path.with_name("layer-*-head-*.png"), f"one figure a head, {len(heads)} of them"))
    console.print(Text(f"model {shown(source)}", "quiet"), soft_wrap=True)
    console.print(statistics_table(maps))
    files(console, written)


def places(out):
    """(the page's file, the figures' folder) for --out, which may name either."""
    target = Path(out)
    if target.name in ("", ".."):
        return target / "attention.html", target
    if target.suffix != ".html":
        target = target.with_name(f"{target.name}.html")
    return target, target.with_suffix("")


def explored(text, path, versus=None, steps=False):
    """(page, attention (L, H, T, T), one label a token, checkpoint's path) of a text that one model reads, or two."""
    from ..inference import inspect
    from ..training import CheckpointError, checkpoints, load_model
    from ..visualization import explore, statistics

    model, tokenizer, checkpoint = load_model(path)
    view = inspect(model, tokenizer, encoded(model, tokenizer, text))
    attention, beside = view.attention, view.beside
    if steps:
        files = checkpoints.paths(checkpoint.path.parent)
        if len(files) < 2:
            raise CheckpointError(f"--steps needs several checkpoints, {checkpoint.path.parent} has one")
        attention = {checkpoint.info["step"]: attention}
        for file in files:
            earlier, _, found = load_model(file)
            attention[found.info["step"]] = look(earlier, tokenizer, text)[0]
    elif versus:
        other, words, second = load_model(versus)
        if words != tokenizer:
            raise ValueError(
                f"{shown(versus)} has another tokenizer than {shown(path)}: no token corresponds; train both on one "
                "text with one tokenizer (`train --text FILE --tokenizer bpe`), or compare two checkpoints of one run"
            )
        seen = inspect(other, words, encoded(other, words, text))
        names = [run_name(c) for c in (checkpoint, second)]
        maps = {f"{name} of {which}": m for which, v in zip("AB", (view, seen)) for name, m in v.maps.items()}
        beside = {**beside, "maps": maps, "versus": seen.attention, "names": names}
    found = statistics(view.attention)
    decided = np.argmin(found["entropy"] + found["first token"])  # on something that is not just the first token
    layer, head = np.unravel_index(decided, view.attention.shape[:2])
    first = sorted(attention).index(checkpoint.info["step"]) if steps else 0
    start = {"source": first, "layer": layer, "head": head}
    c = model.config
    made = f"{run_name(checkpoint)}: {c.layers} layers of {c.heads} heads, width {c.width}"
    page = explore(attention, view.labels, **beside, title="Where each head looks", caption=made, start=start)
    return page, view.attention, tokenizer.token_strings(view.token_ids), checkpoint.path


def run_name(checkpoint):
    """The run's folder and the step: "train-1, step 400"."""
    folder = checkpoint.path.resolve().parent
    return f"{(folder.parent if folder.name == 'checkpoints' else folder).name}, step {checkpoint.info['step']}"


def look(model, tokenizer, text: str):
    """(attention (L, H, T, T), one label a token) of a model that reads a text. Raises ValueError as `encoded` does."""
    ids = encoded(model, tokenizer, text)
    with model.evaluating():
        _, maps = model(ids[None], capture_attention=True)
    return np.stack([np.asarray(layer[0]) for layer in maps]), tokenizer.token_strings(ids)


def encoded(model, tokenizer, text: str):
    """The ids (T,) of a text.

    Raises ValueError for an empty text, one longer than the context, and characters that the tokenizer lacks.
    """
    ids = np.array(tokenizer.encode(text), np.int64)
    context = model.config.context
    if not len(ids):
        raise ValueError("the text is empty: give at least one character")
    if len(ids) > context:
        raise ValueError(
            f"the text is {len(ids)} tokens long, but the model's context is {context}: give a shorter one"
        )
    return ids


def draw_grid(maps, labels, out: Path) -> Path:
    from ..visualization import head_grid

    path = out / "heads.png"
    head_grid(maps, labels, title="Where each head looks", path=path)
    return path


def draw_head(maps, labels, layer: int, head: int, out: Path) -> Path:
    from ..visualization import heatmap

    path = out / f"layer-{layer}-head-{head}.png"
    heatmap(maps[layer, head], labels, title=f"layer {layer}, head {head}", path=path)
    return path


def statistics_table(maps):
    """What each head does: entropy and shares of its weight between 0 and 1, the mean distance in tokens."""
    from ..visualization import statistics

    found = statistics(maps)
    made = table("layer", "head", *((name, {"justify": "right"}) for name in STATISTICS))
    for layer, head in np.ndindex(maps.shape[:2]):
        made.add_row(str(layer), str(head), *(f"{found[name][layer, head]:.2f}" for name in STATISTICS.values()))
    return made
