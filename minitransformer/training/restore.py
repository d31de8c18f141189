"""From a file back to a model: `load_model("out/train-1")`."""

from __future__ import annotations

from pathlib import Path

from ..data import tokenizer_from_json
from ..random import Generator
from . import checkpoints
from .checkpoints import Checkpoint, CheckpointError

__all__ = ["find", "last_run", "load_model", "load_weights"]


def find(path) -> Checkpoint:
    """The checkpoint that a path names: a file, or the newest good one of a run's folder. Raises CheckpointError."""
    path = Path(path)
    if not path.is_dir():
        return checkpoints.read(path)
    inner = path / "checkpoints"
    return checkpoints.latest(inner if inner.is_dir() else path)


def last_run(out="out") -> Path:
    """The folder below `out` whose checkpoint is the newest. Raises CheckpointError when there is none."""
    runs = [
        (checkpoint.stat().st_mtime_ns, checkpoint.parents[1])
        for checkpoint in Path(out).glob("*/checkpoints/step-*.safetensors")
    ]
    if not runs:
        raise CheckpointError(
            f"there is no trained model in {Path(out).resolve()}: train one first, `minitransformer train` or `tour`"
        )
    return max(runs)[1]


def load_model(path):
    """(model in evaluation mode, tokenizer, checkpoint) of a checkpoint file or a run's folder.

    Raises CheckpointError, in one line, for a file that is missing, damaged, foreign, or whose arrays are not of the
    sizes that it says.
    """
    checkpoint = path if isinstance(path, Checkpoint) else find(path)
    model = build_model(checkpoint)
    load_weights(model, checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    tokens, wanted = tokenizer.vocab_size, model.config.vocab_size
    if tokens != wanted:
        raise CheckpointError(f"{checkpoint.path}: its tokenizer has {tokens} tokens, but its model {wanted}")
    model.eval()
    return model, tokenizer, checkpoint


def build_model(checkpoint: Checkpoint):
    """A new model of the sizes and the dtype of a checkpoint."""
    from ..models.gpt import GPT, GPTConfig

    described = checkpoint.info.get("model")
    if not isinstance(described, dict) or described.get("name") != "GPT":
        raise CheckpointError(f"{checkpoint.path} is a checkpoint, but not of a GPT")
    try:
        model = GPT(GPTConfig(**described["config"]), Generator(0))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: its model's configuration is not usable: {error}") from None
    dtypes = {array.dtype for array in checkpoint.part("model.").values()}
    return model.to(dtypes.pop()) if len(dtypes) == 1 else model


def load_tokenizer(checkpoint: Checkpoint):
    if not isinstance(checkpoint.info.get("tokenizer"), str):
        raise CheckpointError(f"{checkpoint.path} holds no tokenizer")
    return tokenizer_from_json(checkpoint.info["tokenizer"], name=f"the tokenizer of {checkpoint.path}")


def load_weights(model, checkpoint: Checkpoint) -> None:
    """Fill a model's parameters. Raises CheckpointError, naming the first array of another size."""
    given, wanted = checkpoint.part("model."), model.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        here, there = (a[name].shape if name in a else None for a in (wanted, given))
        if here != there:
            raise CheckpointError(
                f"{checkpoint.path} is of another size: {name} is {_size(there)} there and {_size(here)} in this model"
            )
    model.load_state_dict(given)


def _size(shape):
    return "absent" if shape is None else f"{shape}"
