"""Two minutes: gradients checked, a GPT that learns English from gradients written by hand, and what it attends to."""

from __future__ import annotations

import math
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from .. import kernels
from ..kernels import native
from .options import seed
from .screen import facts, files, marks, new_console, next_commands, printable, section, table

# The heart of each backward, as the op's docstring has it.
CORE = {
    "MatMul": "da = dc bᵀ,   db = aᵀ dc",
    "Embedding": "dweight_r = Σ dy_i over i with indices_i = r",
    "LayerNorm": "dx = r (g - mean g - h mean(g h))",
    "GELU": "dx = dy (Φ(x) + x φ(x))",
    "Softmax": "dx_i = y_i (dy_i - Σ_j dy_j y_j)",
    "Attention": "ds_ij = p_ij (do_i·v_j - delta_i)",
    "CrossEntropy": "dx_v = dy/n (exp(x_v - lse) - (1-ε)[v = target] - ε/V)",
}
PROMPT, LOOKED_AT = "The", "The value of the expression is the result of the function call."
VOCABULARY, BATCH, SAMPLES = 1024, 12, 4


@dataclass(frozen=True)
class Length:
    """How long a tour takes: seconds of training, and the model that is worth them.

    steps: the most that do good; with more, a model of this size learns so short a text by heart.
    """

    seconds: float
    steps: int
    layers: int
    heads: int
    width: int
    context: int
    lr: float


FULL = Length(60, steps=1600, layers=4, heads=4, width=128, context=64, lr=2e-3)
QUICK = Length(6, steps=1000, layers=2, heads=4, width=64, context=32, lr=3e-3)


def configure(parser):
    parser.add_argument("--quick", action="store_true", help="a small model, in less than 20 seconds")
    parser.add_argument(
        "--out", default="out/tour", metavar="DIR", help="where the figures and the model go (out/tour)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of weights, batches and samples (0)")


def run(args):
    since = time.monotonic()
    console, out, length = new_console(), Path(args.out), QUICK if args.quick else FULL
    out.mkdir(parents=True, exist_ok=True)  # what cannot be written is found out before anything runs
    console.print(
        Text("minitransformer", "head").append(": a language model from its first gradient to its last letter", "none")
    )

    section(console, 1, "Are the gradients right?",
            "Every backward is a formula derived and written by hand. Each is compared with what "
            "happens when an input is nudged by 10⁻⁶, on every set of kernels.")  # fmt: skip
    if not checks(console):
        return 1

    section(console, 2, "A GPT learns to write",
            "It has never seen a word. It reads Python's language reference, and after each batch the "
            "gradients above move every weight a little towards the text.")  # fmt: skip
    trainer = new_trainer(length, args.seed, out, console)
    train(console, trainer, length.seconds, args.seed)

    section(console, 3, "Where does it look?",
            "At each token, attention weighs all tokens so far. In the figures a row is a token that looks, "
            "and its weights add up to 1.")  # fmt: skip
    grid, single, told = figures(trainer, out)
    console.print(told)

    section(console, 4, f"Done in {time.monotonic() - since:.0f} seconds")
    files(console, [
        (out / "loss.png", "how the loss fell"),
        (grid, "where every head looks"),
        (single, "the head that chooses most"),
        (trainer.saved, "the model"),
        (out / "log.jsonl", "every step, as JSON lines"),
    ])  # fmt: skip
    next_commands(console, [
        ("learn 1", "lesson 1: how gradients flow backwards (learn alone: all lessons)"),
        ('attention "a text of yours"', "see what the model just trained makes of it"),
        ("train --text FILE", "let it learn your own text, in any language"),
    ])  # fmt: skip


# ---------------------------------------------------------------- 1: gradients


def checks(console) -> bool:
    """A table that fills as the checks finish; returns whether all passed."""
    from ..gradient_check import check_ops, everyday_sets

    sets = everyday_sets()
    cells: dict[tuple, Text] = {}

    def drawn():
        made = table(
            "op",
            ("its backward, by hand", {"ratio": 1}),
            *((name, {"justify": "right", "no_wrap": True}) for name in sets),
            expand=True,
        )
        for op, formula in CORE.items():
            made.add_row(Text(op, "bold"), Text(formula), *(cells.get((op, name), Text("…", "quiet")) for name in sets))
        return made

    failed = []
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for row in check_ops(list(CORE), sets, ("float64",)):
            kind, word = {True: ("good", "pass"), False: ("bad", "FAIL"), None: ("none", "not run")}[row.passed]
            error = "" if row.error is None else f"{row.error:.0e} "
            cells[row.op, row.kernels] = Text(f"{error}{marks(console)[kind]} {word}", kind)
            failed += [row] if row.passed is False else []
            if console.is_terminal:
                live.update(drawn(), refresh=True)
    console.print(drawn())
    for row in failed:
        console.print(Text(f"{row.op} on {row.kernels} FAILED: {row.detail}", "bad"))
    if not failed:
        console.print(
            Text("The numbers are the worst relative errors. `gradcheck` checks all ops, in both precisions.", "quiet")
        )
    return not failed


# ---------------------------------------------------------------- 2: training


def new_trainer(length, seed, out, console):
    """A trainer with as many steps as the time allows on this machine, told by a few steps of a twin."""
    from ..data import BPETokenizer, default_corpus
    from ..training import TrainingConfig, assemble

    text = default_corpus()
    tokenizer = BPETokenizer.train(text, VOCABULARY)
    sizes = {"layers": length.layers, "heads": length.heads, "width": length.width, "context": length.context}

    def trainer(steps, **options):
        config = TrainingConfig(
            steps=steps, batch_size=BATCH, lr=length.lr, min_lr=length.lr / 20, warmup=min(200, max(30, steps // 8)),
            evaluate_every=-(-steps // SAMPLES), evaluation_batches=8, keep=1, seed=seed,
        )  # fmt: skip
        return assemble(text, tokenizer, config, sizes=sizes, keep_freed_memory=True, **options)

    steps = round(length.seconds / measure(trainer(100)))
    made = trainer(min(max(steps, 60), length.steps), folder=out, console=console)
    made.log.rewind(-1)  # of an earlier tour
    c, name = made.model.config, kernels.current().name
    tokens, weights = len(made.sampler.ids) + len(made.validation_ids), made.model.parameter_count()
    facts(console, [
        ("text", f"{len(text):,} characters = {tokens:,} tokens, pieces of words, {c.vocab_size:,} different"),
        ("model", f"{c.layers} layers, {c.heads} heads, width {c.width}: {weights:,} weights, all random"),
        ("context", f"{c.context} tokens: what it sees when it predicts the next one"),
        ("kernels", f"C++ ({native.isa()}), threads: {native.thread_count()}" if name == "native" else name),
        ("guessing", f"one of {c.vocab_size:,} tokens costs ln {c.vocab_size} = {math.log(c.vocab_size):.2f} nats"),
    ])  # fmt: skip
    console.print()
    return made


def measure(trainer) -> float:
    """Seconds of one step on this machine now, with as many threads as make it fastest; they stay set.

    Beside busy programs one thread can be faster than several that wait for each other. No result depends on it.
    """
    if kernels.current().name != "native" or native.thread_count() == 1:
        return step_time(trainer)
    times = {}
    for count in (1, native.thread_count()):
        native.set_thread_count(count)
        times[count] = step_time(trainer)
    best = min(times, key=times.get)
    native.set_thread_count(best)
    return times[best]


def step_time(trainer, seconds=1.5) -> float:
    """The median of up to ten steps, or of those that fit into the time, after two to warm up."""
    took, end = [], time.perf_counter() + seconds
    while len(took) < 12 and (len(took) < 5 or time.perf_counter() < end):
        since = time.perf_counter()
        trainer.train_step()
        took.append(time.perf_counter() - since)
    return statistics.median(took[2:])


def train(console, trainer, seconds, seed) -> None:
    """Train with a sample at each validation; afterwards only the new model's checkpoint is left."""
    config = trainer.config

    def tell(trainer, progress):
        if trainer.step < config.steps:
            stage = f"step {trainer.step:,}" if trainer.step else "before"
            text = " ".join(write(trainer, seed, 40).split())[: console.width - 13]
            progress.print(Text(f"{stage:>11}  ", "quiet").append(text, "italic"), soft_wrap=True)

    before = set((trainer.folder / "checkpoints").glob("step-*"))
    trainer.run(seconds=1.15 * seconds, save=False, on_evaluation=tell)
    trainer.saved = trainer.save()
    for path in before - {trainer.saved}:  # the last tour's: it stood until this one had its own
        path.unlink(missing_ok=True)

    first, last = trainer.history.validation_loss[[0, -1]]
    text = re.sub(r"\n\s*\n", "\n\n", write(trainer, seed, 150)).rstrip()
    written = Text(PROMPT, "bold").append(text.removeprefix(PROMPT), "none")
    title = f"after {trainer.step:,} steps it writes"
    console.print()
    console.print(Panel(written, title=title, title_align="left", border_style="cyan"))
    bits = trainer.bits_per_character(last)
    console.print(
        Text(f"On text it never saw: {first:.2f} → {last:.2f} nats a token; {bits:.2f} bits a character.", "bold")
    )
    seen = float(np.mean(trainer.history.loss[-50:]))
    if seen < 0.9 * last:
        console.print(
            Text(f"On the text it learns from: {seen:.2f}. The gap is what it has begun to learn by heart.", "quiet")
        )


def write(trainer, seed, tokens) -> str:
    from ..inference import generate_text
    from ..random import Generator

    options = {"temperature": 0.8, "generator": Generator(seed)}
    return printable(generate_text(trainer.model, trainer.tokenizer, PROMPT, tokens, **options))


# ---------------------------------------------------------------- 3: attention


def figures(trainer, out):
    """Draw all heads and the one that chooses most; returns (grid, single, what to say about them)."""
    from ..visualization import statistics as head_statistics
    from .attention import draw_grid, draw_head, look

    maps, labels = look(trainer.model, trainer.tokenizer, LOOKED_AT)
    found = head_statistics(maps)
    # Heads that rest on the first token, as many do, are decided but have nothing to show.
    choice = (1 - found["entropy"]) * (1 - found["first token"])
    decided = np.unravel_index(np.argmax(choice), maps.shape[:2])
    back = np.unravel_index(np.argmax(found["previous token"]), maps.shape[:2])
    for old in out.glob("layer-*-head-*.png"):  # of an earlier tour
        old.unlink()
    told = Text("It reads ").append(repr(LOOKED_AT), "bold").append(". ", "none")
    told.append(f"Layer {decided[0]}, head {decided[1]} chooses most: it looks at ", "none")
    told.append(f"{found['effective keys'][decided]:.1f} tokens at a time. ", "none")
    told.append(f"Layer {back[0]}, head {back[1]} gives {found['previous token'][back]:.0%} of its weight ", "none")
    told.append("to the token just before.", "none")
    return draw_grid(maps, labels, out), draw_head(maps, labels, *map(int, decided), out), told
