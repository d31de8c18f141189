"""A trainer so small that a step takes milliseconds."""

import numpy as np
import pytest

from minitransformer.data import CharTokenizer
from minitransformer.training import TrainingConfig, assemble

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen jugs. " * 40
SIZES = {"layers": 1, "heads": 2, "width": 16, "context": 8, "dropout": 0.1}


def new_trainer(folder=None, *, steps=12, text=TEXT, sizes=SIZES, **options):
    settings = {"batch_size": 6, "lr": 1e-2, "warmup": 3, "evaluate_every": 4, "evaluation_batches": 2, **options}
    return assemble(
        text, CharTokenizer.train(text), TrainingConfig(steps=steps, **settings), sizes=sizes, folder=folder
    )


@pytest.fixture
def trainer(tmp_path):
    """Makes trainers; `folder` may be given as a name below tmp_path."""

    def make(folder=None, **options):
        return new_trainer(None if folder is None else tmp_path / folder, **options)

    return make


@pytest.fixture
def same():
    """Whether two {name: array} have the same names, dtypes and bits."""

    def compare(a, b):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name

    return compare
