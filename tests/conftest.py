"""What holds for every test."""

import pytest

from minitransformer import graph, kernels
from minitransformer.cli import main


@pytest.fixture(autouse=True)
def leaves_the_engine_as_it_was():
    """No test may leave its kernel set, or no_grad, to those that come after it: they would prove something else."""
    before = kernels.current(), graph.is_grad_enabled()
    yield
    assert (kernels.current() is before[0]) and graph.is_grad_enabled() == before[1]


@pytest.fixture
def run(capsys):
    """The command line: run(*arguments) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call
