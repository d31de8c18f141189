"""Where there is no C++ compiler the emulator's tests are skipped, with that reason."""

import pytest

from minitransformer import kernels


@pytest.fixture
def emulator():
    reason = kernels.available()["cuda-emulated"]
    if reason:
        pytest.skip(f"kernel set cuda-emulated: {reason}")
    from minitransformer.kernels.cuda import emulator

    return emulator
