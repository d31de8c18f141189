"""The kernels beside these tests, compiled once; `launch` runs one in every order of threads."""

from pathlib import Path

import numpy as np
import pytest

from minitransformer.kernels.cuda import emulator

FOLDER = Path(__file__).parent / "kernels"
SCHEDULES = {
    "first": {"order": "first"},
    "last": {"order": "last"},
    "random": {"order": "random", "seed": 5},
    "two threads": {"order": "random", "seed": 6, "os_threads": 2},
}


@pytest.fixture(autouse=True)
def compiler():
    if emulator.REASON:
        pytest.skip(emulator.REASON)


@pytest.fixture
def source():
    return lambda name: (FOLDER / name).read_text(encoding="utf-8")


@pytest.fixture
def line(source):
    """line(file, comment) -> "file:12", the one line that ends in that comment."""

    def find(name, comment):
        lines = source(name).splitlines()
        (number,) = [i for i, text in enumerate(lines, 1) if text.endswith("// " + comment)]
        return f"{name}:{number}"

    return find


@pytest.fixture
def module(source):
    return lambda name, *options: emulator.RawModule(code=source(name), options=options, name=name)


@pytest.fixture
def launch(module):
    """launch(file, kernel, grid, block, args): in every order, from the same arrays; all must give the same bits."""

    def run(name, kernel, grid, block, args, shared_mem=0, options=()):
        function = module(name, *options).get_function(kernel)
        before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        results = {}
        for label, how in SCHEDULES.items():
            for array, start in zip(args, before):
                if isinstance(array, np.ndarray) and array.flags.writeable:
                    array[...] = start
            with emulator.schedule(**how):
                function(grid, block, args, shared_mem=shared_mem)
            results[label] = [a.tobytes() for a in args if isinstance(a, np.ndarray)]
        for label, result in results.items():
            assert result == results["first"], f"{kernel} differs in order {label}"

    return run
