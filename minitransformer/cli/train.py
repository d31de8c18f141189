"""Train a GPT on a text, with validation, checkpoints and a loss curve.

minitransformer train                                       Python's language reference, characters
minitransformer train --text book.txt --tokenizer bpe --vocab 1024 --steps 3000
minitransformer train --resume                              go on with the newest run in out/, bit for bit
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from rich.text import Text

from .. import __version__, kernels
from ..practice import milestones
from .options import above_zero, add_device, fraction, non_negative, number, open_device, positive, seed, using, writing
from .screen import facts, files, new_console, next_commands, shown

# flag -> (field of GPTConfig or TrainingConfig, type, help); the defaults are those of the two
SIZES = {
    "layers": ("layers", positive, "blocks (4)"),
    "heads": ("heads", positive, "attention heads a block; must divide the width (4)"),
    "width": ("width", positive, "model width D (128)"),
    "context": ("context", positive, "tokens that the model sees at once (64)"),
    "dropout": ("dropout", fraction, "share of activations dropped while training (0)"),
}
TRAINING = {
    "steps": ("steps", positive, "updates (1000)"),
    "batch": ("batch_size", positive, "sequences a step (12)"),
    "accumulation": ("accumulation", positive, "parts that a batch is cut into, for less memory (1)"),
    "lr": ("lr", above_zero, "peak learning rate (1e-3)"),
    "min-lr": ("min_lr", number, "learning rate at the end (1e-4)"),
    "warmup": ("warmup", non_negative, "steps of linear warm-up (100)"),
    "weight-decay": ("weight_decay", number, "of the matrices (0.1)"),
    "clip": ("clip", number, "largest norm of the gradient, 0 for none (1)"),
    "evaluate-every": ("evaluate_every", positive, "steps between validations, each with a checkpoint (250)"),
    "keep": ("keep", positive, "checkpoints to keep, besides the best (3)"),
    "seed": ("seed", seed, "of weights, batches and dropout (0)"),
}
CHANGEABLE = ("steps", "evaluate_every", "keep")  # by --resume


def configure(parser):
    text = parser.add_argument_group("text")
    text.add_argument(
        "--text", metavar="PATH", help="a UTF-8 file, or a folder of them (default: Python's language reference)"
    )
    text.add_argument("--tokenizer", choices=("char", "bpe"), help="characters, or byte-level BPE (char)")
    text.add_argument("--vocab", type=positive, metavar="N", help="tokens of a BPE tokenizer (1024)")
    for title, options in (("model", SIZES), ("training", TRAINING)):
        group = parser.add_argument_group(title)
        for flag, (field, kind, text) in options.items():
            group.add_argument(f"--{flag}", dest=field, type=kind, metavar="N", help=text)
    parser.add_argument(
        "--recompute", action="store_true", help="keep only each block's input: less memory, a third more time"
    )
    parser.add_argument(
        "--kernels",
        metavar="NAME",
        help="numpy, native, cuda, cuda-emulated, or FILE.py with kernels of yours (the fastest there is)",
    )
    add_device(parser)
    parser.set_defaults(device=None)  # of a new run cpu, of a resumed one where it was
    parser.add_argument("--out", metavar="DIR", help="where checkpoints, log and loss curve go (out/train-1, -2, …)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, or with the newest in out/")


def run(args):
    console = new_console()
    with using(args.kernels), writing(args.out or "out"):
        if not args.resume:
            open_device(args.device or "cpu", args.kernels)  # complains before anything is read
        trainer = resumed(args, console) if args.resume else started(args, console)
        introduce(console, trainer)
        exercise, before = milestones.candidate(args.kernels), trainer.step
        trainer.run()
    console.print()
    if milestones.reach(exercise, trainer.step - before):
        console.print(Text(f"Milestone: {exercise.milestone[1]}\n", "good"), soft_wrap=True)
    newest = sorted((trainer.folder / "checkpoints").glob("step-*"))[-1]
    files(console, [
        (newest, "weights, optimiser, tokenizer, history"),
        (trainer.folder / "loss.png", "the loss curve"),
        (trainer.folder / "log.jsonl", "every step, as JSON lines"),
    ])  # fmt: skip
    words = example(trainer)
    next_commands(console, [
        (f'generate --model "{shown(trainer.folder)}" --prompt "{words[:4].strip()}"', "let it write"),
        (f'attention --model "{shown(trainer.folder)}" "{words}"', "see where it looks"),
    ])  # fmt: skip


def started(args, console):
    """A trainer for a new run. Everything that can be wrong is found before the first step."""
    from ..models.gpt import GPTConfig
    from ..training import TrainingConfig, assemble

    sizes, training = given(args, SIZES), TrainingConfig(**given(args, TRAINING))
    context = GPTConfig(vocab_size=1, **sizes).context
    device = args.device or "cpu"
    about = {"text": None if args.text is None else str(Path(args.text).resolve()), "device": device}
    folder = new_folder(args.out)
    text = read_text(args.text, context)
    tokenizer = new_tokenizer(args, text)
    trainer = assemble(text, tokenizer, training, recompute=args.recompute, sizes=sizes, folder=folder, console=console,
                       device=device, keep_freed_memory=True, about=about)  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    trainer.log.rewind(-1)  # what an earlier run left that never came to a checkpoint
    described = {
        "code": __version__,
        **about,
        "model": dataclasses.asdict(trainer.model.config),
        "training": dataclasses.asdict(training),
    }
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    tokenizer.save(folder / "tokenizer.json")
    return trainer


def resumed(args, console):
    """A trainer that stands where the last good checkpoint of a run was written."""
    from ..training import CheckpointError, TrainingConfig, assemble, find, last_run
    from ..training.restore import load_tokenizer

    folder = last_run() if args.out is None else Path(args.out)
    checkpoint = find(folder)
    info = checkpoint.info
    try:
        saved, sizes = info["training"], {k: v for k, v in info["model"]["config"].items() if k != "vocab_size"}
        about, training = info["about"], dict(saved)
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{checkpoint.path} was not written by `minitransformer train`: it cannot be resumed"
        ) from None
    for flag, (field, _, _) in {**SIZES, **TRAINING}.items():
        value, before = getattr(args, field), {**saved, **sizes}.get(field)
        if value is not None and value != before:
            if field not in CHANGEABLE:
                raise ValueError(f"--{flag} {value} is not the run's, {before}: leave it out to resume {folder}")
            training[field] = value
    if args.tokenizer or args.vocab:
        raise ValueError("--tokenizer and --vocab are those of the run: leave them out to resume")
    device = args.device or about.get("device", "cpu")
    try:
        open_device(device, args.kernels)
    except RuntimeError as error:
        raise RuntimeError(f"{error}; the run in {folder} goes on elsewhere with --device cpu") from None
    about = {**about, "device": device}
    if info["step"] >= training["steps"]:
        raise ValueError(f"the run in {folder} is finished ({info['step']:,} steps): give more --steps to go on")
    text = read_text(args.text or about.get("text"), sizes["context"])
    trainer = assemble(text, load_tokenizer(checkpoint), TrainingConfig(**training), sizes=sizes, about=about,
                       recompute=args.recompute, device=device, folder=folder, console=console,
                       keep_freed_memory=True)  # fmt: skip
    trainer.restore(checkpoint)
    console.print(Text(f"resuming {checkpoint.path} after step {trainer.step:,}"), soft_wrap=True)
    return trainer


# ---------------------------------------------------------------- the parts


def example(trainer) -> str:
    """A few words of the text that can stand between quotes on a command line, short enough for the context."""
    text = trainer.tokenizer.decode(trainer.validation_ids[:2000])
    words = rf"\w[\w ,.]{{3,{max(3, min(28, trainer.model.config.context - 2))}}}\w"
    found = re.search(rf"(?<=\W){words}\b", text) or re.search(words, text)  # the cut may be in mid-word
    return found[0] if found else text[:1]


def given(args, options) -> dict:
    """{field: value} of the flags that were given."""
    return {field: value for field, _, _ in options.values() if (value := getattr(args, field)) is not None}


def read_text(path, context) -> str:
    from ..data import default_corpus, load_text

    return default_corpus() if path is None else load_text(path, context=context)


def new_tokenizer(args, text):
    from ..data import BPETokenizer, CharTokenizer

    if args.tokenizer == "bpe":
        return BPETokenizer.train(text, args.vocab or 1024)
    if args.vocab:
        raise ValueError("--vocab is the size of a BPE tokenizer: add --tokenizer bpe, or leave it out")
    return CharTokenizer.train(text)


def new_folder(out: str | None) -> Path:
    """Where a new run goes; a folder that holds one already is left alone."""
    if out is None:
        taken = [int(m[1]) for path in Path("out").glob("train-*") if (m := re.fullmatch(r"train-(\d+)", path.name))]
        return Path("out") / f"train-{max(taken, default=0) + 1}"
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {out} is a file; it must be a folder")
    if list(folder.glob("checkpoints/step-*.safetensors")):
        raise ValueError(f"{out} holds a run already: add --resume to go on with it, or choose another --out")
    return folder


def introduce(console, trainer) -> None:
    c, t, count = trainer.model.config, trainer.config, trainer.model.parameter_count()
    parts = f" in {t.accumulation} parts" if t.accumulation > 1 else ""
    train, validation, kind = len(trainer.sampler.ids), len(trainer.validation_ids), trainer.tokenizer.kind
    sizes = f"{c.layers} layers, {c.heads} heads, width {c.width}, context {c.context}"
    facts(console, [
        ("model", f"GPT, {count:,} parameters: {sizes}"),
        ("text", f"{train:,} tokens to train on, {validation:,} to validate; {c.vocab_size:,} different ones ({kind})"),
        ("steps", f"{t.steps:,} of {t.batch_size} × {c.context} tokens{parts}, learning rate {t.lr:g}"),
        ("kernels", kernels.current().on(trainer.model.device).name),
    ])  # fmt: skip
    console.print()
