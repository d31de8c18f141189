"""All of a training's state as arrays and JSON, and back: why a resumed run ends with the bits of an unbroken one.

Weights, optimiser moments and step counts, the place in the data, every generator's offset, the history. The schedule
is a function of the step and needs no state of its own.
"""

from __future__ import annotations

import logging
from dataclasses import asdict

import numpy as np

from .. import __version__, kernels
from ..random import Generator
from .checkpoints import Checkpoint, CheckpointError
from .restore import load_weights

__all__ = ["collect", "restore"]

_log = logging.getLogger(__name__)


def collect(trainer) -> tuple[dict[str, np.ndarray], dict]:
    """(tensors, info) of a trainer, for `checkpoints.write`."""
    history, model = trainer.history, trainer.model
    moments, optimizer = _split(trainer.optimizer.state_dict())
    measured = len(history.validation_step) and history.last("validation_step") == trainer.step
    tensors = {
        **_prefixed("model.", model.state_dict()),
        **_prefixed("optimizer.", moments),
        **_prefixed("history.", history.state_dict()),
    }
    info = {
        "model": {"name": type(model).__name__, "config": asdict(model.config)},
        "training": asdict(trainer.config),
        "tokenizer": None if trainer.tokenizer is None else trainer.tokenizer.to_json(),
        "optimizer": optimizer,
        "sampler": trainer.sampler.state_dict(),
        "generators": [generator.state_dict() for generator in generators(model)],
        "validation_loss": history.last("validation_loss") if measured else None,
        "about": trainer.about,
        "kernels": kernels.current().on(model.device).name,
        "code": __version__,
    }
    return tensors, info


def restore(trainer, checkpoint: Checkpoint) -> None:
    """The inverse of `collect`. Raises CheckpointError where the trainer's model, text or optimiser is another."""
    info = checkpoint.info
    load_weights(trainer.model, checkpoint)
    try:
        trainer.sampler.load_state_dict(info["sampler"])
        trainer.optimizer.load_state_dict(_joined(checkpoint.part("optimizer."), info["optimizer"]))
        trainer.history.load_state_dict(checkpoint.part("history."))
        for generator, saved in zip(generators(trainer.model), info["generators"], strict=True):
            generator.load_state_dict(saved)
        before = info["kernels"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be resumed here: {error}") from error
    trainer.step = info["step"]
    trainer.log.rewind(trainer.step)
    now = kernels.current().on(trainer.model.device).name
    if before != now:
        _log.warning("the run used the %s kernels, now it is %s: it goes on, but not bit for bit", before, now)


def generators(model) -> list[Generator]:
    """The random generators that a model's layers hold, each once, in the order of its modules."""
    found = {
        id(value): value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Generator)
    }
    return list(found.values())


def _split(state):
    """An optimiser's state as ({"place.name": array}, the rest, fit for JSON)."""
    arrays = {
        f"{place}.{name}": v
        for place, kept in state["state"].items()
        for name, v in kept.items()
        if isinstance(v, np.ndarray)
    }
    numbers = {
        place: {name: v for name, v in kept.items() if not isinstance(v, np.ndarray)}
        for place, kept in state["state"].items()
    }
    return arrays, {"param_groups": state["param_groups"], "state": numbers}


def _joined(arrays, rest):
    """The inverse of `_split`."""
    state = {int(place): dict(numbers) for place, numbers in rest["state"].items()}
    for name, array in arrays.items():
        place, _, name = name.partition(".")
        state[int(place)][name] = array
    return {"param_groups": rest["param_groups"], "state": state}


def _prefixed(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}
