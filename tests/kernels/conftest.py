"""Which kernel sets can be tested here; what is missing is skipped with its reason, never passed over in silence."""

import pytest

from minitransformer import kernels


@pytest.fixture
def implementations():
    """kernel set -> {routine: callable}, as the set itself defines them: no contract checks, no fallback."""

    def of(kernel_set):
        reason = kernels.available()[kernel_set]
        if reason:
            pytest.skip(f"kernel set {kernel_set}: {reason}")
        return {"numpy": kernels.numpy, "native": kernels.native}.get(kernel_set, kernels.cuda).ROUTINES

    return of
