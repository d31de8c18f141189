"""What training measured: as arrays for figures and checkpoints, as lines of JSON for other programs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from .checkpoints import replace_file

__all__ = ["History", "Log"]

STEP_SERIES = ("step", "loss", "lr", "gradient_norm")  # one value a step
VALIDATION_SERIES = ("validation_step", "validation_loss")  # one value an evaluation


class History:
    """Series of numbers: `history.loss` is a float64 array, `history.step` the steps that it belongs to (from 1).

    step, loss, lr, gradient_norm         one value a step; loss in nats per token
    validation_step, validation_loss      one value an evaluation
    """

    def __init__(self):
        self._series = {name: [] for name in STEP_SERIES + VALIDATION_SERIES}

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._series:
            raise AttributeError(
                f"a history has no series {name!r}; it has {', '.join(STEP_SERIES + VALIDATION_SERIES)}"
            )
        return np.array(self._series[name], np.int64 if name.endswith("step") else np.float64)

    def __len__(self):
        return len(self._series["step"])

    def last(self, name: str) -> float:
        """The newest value of a series."""
        return self._series[name][-1]

    def append(self, **values) -> None:
        for name, value in values.items():
            self._series[name].append(value)

    def state_dict(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in self._series}

    def load_state_dict(self, state) -> None:
        self._series = {name: state[name].tolist() for name in self._series}


class Log:
    """A JSONL file: one object a line, flushed line by line, so that `tail -f` and a crash both see every step.

    path None: nothing is written. A context manager, which closes the file; it may be entered again.
    """

    def __init__(self, path: Path | None):
        self.path, self._file = path, None

    def rewind(self, step: int) -> None:
        """Drop the lines after a step: what a run did between its last checkpoint and its end is done again."""
        if self.path is None or not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                break  # cut short by a crash: nothing after it counts
        replace_file(self.path, "".join(line + "\n" for line in kept).encode())

    def write(self, **values) -> None:
        if self.path is None:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a", encoding="utf-8", buffering=1)
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._file.write(json.dumps(finite) + "\n")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._file is not None:
            self._file.close()
            self._file = None
