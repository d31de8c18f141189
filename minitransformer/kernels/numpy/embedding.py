"""The gradient of a table look-up: rows that were read several times receive several gradients."""

from ..devices import xp
from ..precision import computed_in_float32


@computed_in_float32
def embedding_backward(dy, indices, rows):
    """dweight_r = Σ dy_i over all i with indices_i = r.

    `np.add.at` adds repeats up, where `dweight[indices] += dy` would keep only the last.
    """
    np = xp(dy)
    dweight = np.zeros((rows, dy.shape[-1]), dy.dtype)
    if dy.size:
        np.add.at(dweight, indices.reshape(-1), dy.reshape(indices.size, -1))
    return dweight
