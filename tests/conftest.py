"""What holds for every test."""

import pytest

from minitransformer import graph, kernels


@pytest.fixture(autouse=True)
def leaves_the_engine_as_it_was():
    """No test may leave its kernel set, or no_grad, to those that come after it: they would prove something else."""
    before = kernels.current(), graph.is_grad_enabled()
    yield
    assert (kernels.current() is before[0]) and graph.is_grad_enabled() == before[1]
