import numpy as np
import pytest

from minitransformer.kernels.quantized_weight import QuantizedWeight
from minitransformer.nn import QuantizedEmbedding
from minitransformer.tensor import tensor

W = np.random.default_rng(0).normal(size=(30, 64)).astype(np.float32)


def test_look_up_and_scores():
    weight = QuantizedWeight.quantize(W, "q8_0")
    table, numbers = QuantizedEmbedding(weight), weight.dequantize()
    ids = np.array([[3, 29, 0], [7, 7, 1]])
    np.testing.assert_array_equal(table(ids).numpy(), numbers[ids])
    np.testing.assert_array_equal(table(tensor(ids)).numpy(), numbers[ids])
    x = W[:4]
    np.testing.assert_allclose(table.scores(tensor(x)).numpy(), x @ numbers.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [[30], [-1], [0, 99]])
def test_an_index_outside(wrong):
    with pytest.raises(IndexError, match=r"must lie in 0\.\.29"):
        QuantizedEmbedding(QuantizedWeight.quantize(W, "q4_1"))(np.array(wrong))
