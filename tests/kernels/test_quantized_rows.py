"""Rows of a quantised weight: taken out, and put one below the other."""

import numpy as np
import pytest

from minitransformer.kernels.quantized_weight import FORMATS, QuantizedWeight

W = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)


@pytest.mark.parametrize("layout", ["rows", "panels"])
@pytest.mark.parametrize("format", FORMATS)
def test_take_and_stack_change_no_number(format, layout):
    weight = getattr(QuantizedWeight.quantize(W, format), layout)()
    numbers = weight.dequantize()
    for rows in ([3], [19, 0, 0, 7], []):
        taken = weight.take(np.array(rows, np.int64))
        assert taken.shape == (len(rows), 64)
        np.testing.assert_array_equal(taken.dequantize(), numbers[rows])
    stacked = QuantizedWeight.stack([weight, weight.take(np.arange(5)), weight])
    np.testing.assert_array_equal(stacked.dequantize(), np.concatenate([numbers, numbers[:5], numbers]))


def test_what_does_not_stack():
    a, b = QuantizedWeight.quantize(W, "q4_1"), QuantizedWeight.quantize(W, "q8_0")
    with pytest.raises(ValueError, match="of one format and width"):
        QuantizedWeight.stack([a, b])
