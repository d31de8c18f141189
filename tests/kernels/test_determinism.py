"""The native kernels give the same bits with any number of threads, and right results on every instruction set."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minitransformer import kernels
from minitransformer.kernels.contract import ROUTINES

from .test_against_numpy import samples
from .tolerance import IN_PLACE


@pytest.fixture
def threads():
    before = kernels.native.thread_count()
    yield kernels.native.set_thread_count
    kernels.native.set_thread_count(before)


def _bytes_of_all_results(routine, implementation, dtype):
    found = []
    for case in samples(routine, dtype):
        written = IN_PLACE.get(routine, ())
        args = [a.copy() if i in written else a for i, a in enumerate(case.args)]
        result = implementation(*args, **case.kwargs)
        results = [args[i] for i in written] or (result if isinstance(result, tuple) else (result,))
        found.append([None if r is None else np.asarray(r).tobytes() for r in results])
    return found


@pytest.mark.parametrize("routine", ROUTINES)
def test_the_number_of_threads_changes_no_bit(routine, implementations, threads):
    implementation = implementations("native")[routine]
    threads(1)
    alone = _bytes_of_all_results(routine, implementation, np.dtype(np.float32))
    for count in (2, 3):
        threads(count)
        assert _bytes_of_all_results(routine, implementation, np.dtype(np.float32)) == alone


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "avx512_vnni"])
def test_every_instruction_set_agrees_with_the_definition(isa, implementations):
    implementations("native")
    if isa == kernels.native.isa():
        pytest.skip("it is the one in use: the other tests run on it")
    if isa not in kernels.native._extension.isas():
        pytest.skip(f"this CPU does not run {isa}")
    tests = [
        f"{os.path.dirname(__file__)}/test_against_numpy.py",
        "-k",
        "agrees and native",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    environment = os.environ | {"MINITRANSFORMER_ISA": isa}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], env=environment, capture_output=True, encoding="utf-8"
    )
    assert run.returncode == 0 and "skipped" not in run.stdout.splitlines()[-1], run.stdout[-3000:] + run.stderr
