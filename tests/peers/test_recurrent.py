"""RNN and LSTM beside PyTorch's, with the same weights: outputs, states and every gradient."""

import numpy as np
import pytest

from minitransformer import Generator, nn, tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `python start.py peers` installs and runs it")
pytestmark = pytest.mark.peers

B, T, K, D = 3, 6, 5, 4
ORDER = {"RNN": [0], "LSTM": [0, 1, 3, 2]}  # PyTorch's parts in our order: it has i f g o, we have i f o g


@pytest.mark.parametrize("name", ORDER)
def test_values_and_gradients(name):
    mine = getattr(nn, name)(K, D, generator=Generator(0)).to("float64")
    yours = getattr(torch.nn, name)(K, D, batch_first=True).double()
    rows = np.concatenate([np.arange(part * D, (part + 1) * D) for part in ORDER[name]])
    pairs = (
        (mine.input.weight, yours.weight_ih_l0), (mine.hidden.weight, yours.weight_hh_l0),
        (mine.input.bias, yours.bias_ih_l0),
    )  # fmt: skip
    with torch.no_grad():
        yours.bias_hh_l0.zero_()  # PyTorch has two biases that are added
        for ours, theirs in pairs:
            theirs.copy_(torch.tensor(ours.data[rows]))
    x, *state = (Generator(i).normal(shape, dtype=np.float64) for i, shape in enumerate([(B, T, K), *[(B, 1, D)] * 2]))
    state = state[: len(mine.state_names)]
    a, b = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, after = mine(a, [tensor(s) for s in state])
    given = [torch.tensor(s).transpose(0, 1).contiguous() for s in state]
    z, left = yours(b, given[0] if name == "RNN" else tuple(given))
    dy = Generator(9).normal((B, T, D), dtype=np.float64)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(after, [left] if name == "RNN" else left, strict=True):
        np.testing.assert_allclose(ours.data[:, 0], theirs.detach().numpy()[0], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-10, atol=1e-12)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.grad[rows], theirs.grad.numpy(), rtol=1e-10, atol=1e-12)
