"""The ladders need a C++ compiler; their suite is skipped as a whole where there is none."""

import pytest

from minitransformer.kernels.compiled import compiler


@pytest.fixture(autouse=True, scope="session")
def has_a_compiler():
    try:
        compiler("a ladder")
    except RuntimeError as error:
        pytest.skip(str(error))
