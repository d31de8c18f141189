"""Matrix products: nothing of ours can add to cuBLAS, which CuPy's `matmul` calls. The expressions are NumPy's."""

from ..numpy.matmul import linear, linear_backward, matmul

__all__ = ["linear", "linear_backward", "matmul"]
