"""An outside opinion: the same functions, optimisers and model in PyTorch, where it is installed."""

import numpy as np
import pytest

import minitransformer as mt

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `python start.py peers` installs and runs it")
pytestmark = pytest.mark.peers
F = torch.nn.functional if torch else None

G = mt.Generator(21)


def draw(*shape):
    return G.normal(shape, dtype=np.float64)


TARGETS = np.array([0, 3, -100, 1])
MASK = np.where(np.arange(7)[:, None] % 5 == np.arange(9) % 4, -np.inf, 0.3)

_BEHIND = np.arange(9)[:, None] - np.arange(9)
PACKED = (_BEHIND >= 0) & (_BEHIND < 3) & ((np.arange(9)[:, None] < 4) == (np.arange(9) < 4))

CASES = {
    "matmul": (mt.matmul, torch.matmul, (draw(2, 1, 3, 4), draw(3, 4, 5))),
    "linear": (mt.linear, F.linear, (draw(2, 3, 4), draw(5, 4), draw(5))),
    "softmax": (lambda x: mt.softmax(x, 1), lambda x: torch.softmax(x, 1), (draw(2, 3, 4),)),
    "log_softmax": (mt.log_softmax, lambda x: torch.log_softmax(x, -1), (draw(3, 5),)),
    "logsumexp": (lambda x: mt.logsumexp(x, (0, 2)), lambda x: torch.logsumexp(x, (0, 2)), (draw(2, 3, 4),)),
    "gelu": (mt.gelu, F.gelu, (draw(50) * 3,)),
    "gelu, tanh": (lambda x: mt.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), (draw(50) * 3,)),
    "silu": (mt.silu, F.silu, (draw(50) * 3,)),
    "softplus": (mt.softplus, F.softplus, (draw(50),)),
    "var": (lambda x: mt.var(x, 1), lambda x: x.var(1), (draw(3, 4),)),
    "cumsum": (lambda x: mt.cumsum(x, -1), lambda x: x.cumsum(-1), (draw(3, 4),)),
    "layer_norm": (mt.layer_norm, lambda x, w, b: F.layer_norm(x, (6,), w, b), (draw(4, 6), draw(6), draw(6))),
    "rms_norm": (mt.rms_norm, lambda x, w: F.rms_norm(x, (6,), w, 1e-5), (draw(4, 6), draw(6))),
    "mse_loss": (mt.mse_loss, F.mse_loss, (draw(3, 4), draw(3, 4))),
    "cross_entropy": (
        lambda x: mt.cross_entropy(x, TARGETS, label_smoothing=0.1),
        lambda x: F.cross_entropy(x, torch.tensor(TARGETS), label_smoothing=0.1),
        (draw(4, 5),),
    ),
    "kl_div": (
        lambda x: mt.kl_div(mt.log_softmax(x), np.full((3, 5), 0.2)),
        lambda x: F.kl_div(torch.log_softmax(x, -1), torch.full((3, 5), 0.2, dtype=x.dtype), reduction="batchmean"),
        (draw(3, 5),),
    ),
    "attention": (
        lambda q, k, v: mt.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (draw(2, 3, 9, 5), draw(2, 3, 9, 5), draw(2, 3, 9, 4)),
    ),
    "attention, grouped heads": (
        lambda q, k, v: mt.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        (draw(2, 6, 9, 5), draw(2, 2, 9, 5), draw(2, 2, 9, 4)),
    ),
    "attention, packed texts with a window": (
        lambda q, k, v: mt.scaled_dot_product_attention(q, k, v, is_causal=True, window=3, boundaries=[0, 4, 9]),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.tensor(PACKED)),
        (draw(1, 2, 9, 5), draw(1, 2, 9, 5), draw(1, 2, 9, 4)),
    ),
    "attention with a mask": (
        lambda q, k, v: mt.scaled_dot_product_attention(q, k, v, MASK, scale=0.7),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.tensor(MASK), scale=0.7),
        (draw(1, 2, 7, 5), draw(1, 2, 9, 5), draw(1, 2, 9, 5)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    ours, theirs, arrays = CASES[name]
    mine = [mt.tensor(a, requires_grad=True) for a in arrays]
    yours = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*mine), theirs(*yours)
    dy = mt.Generator(5).normal(y.shape, dtype=np.float64)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-10, atol=1e-12)
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda p: mt.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), weight_decay=0.2),
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), weight_decay=0.2),
        ),
        (
            lambda p: mt.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
        ),
    ],
    ids=["AdamW", "SGD"],
)
def test_optimisers_take_the_same_path(ours, theirs):
    start, slope = draw(3, 4), draw(3, 4)
    a, b = mt.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    mine, yours = ours([a]), theirs([b])
    for _ in range(20):
        mine.zero_grad()
        yours.zero_grad()
        (mt.sum(a * a * a * a) + mt.sum(a * slope)).backward()
        ((b**4).sum() + (b * torch.tensor(slope)).sum()).backward()
        mine.step()
        yours.step()
    np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_a_gpt_with_the_same_weights_gives_the_same_logits_and_gradients():
    config = mt.models.GPTConfig(vocab_size=11, context=8, layers=2, heads=2, width=12)
    model = mt.models.GPT(config, mt.Generator(0)).to("float64")
    state = {name: torch.tensor(t.data, requires_grad=True) for name, t in model.named_parameters()}
    ids = G.integers(0, 11, (3, 8))

    def theirs(ids):
        x = state["token_embedding.weight"][ids] + state["position_embedding.weight"][: ids.shape[1]]
        for i in range(config.layers):
            w = {name.split(".", 2)[2]: t for name, t in state.items() if name.startswith(f"blocks.{i}.")}
            first, second = _norms(w)
            h = F.layer_norm(x, (12,), *first)
            q, k, v = F.linear(h, w["attention.qkv.weight"], w["attention.qkv.bias"]).view(3, 8, 3, 2, 6).unbind(2)
            o = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
            o = o.transpose(1, 2).reshape(3, 8, 12)
            x = x + F.linear(o, w["attention.output.weight"], w["attention.output.bias"])
            h = F.layer_norm(x, (12,), *second)
            up, down = _feed_forward(w)
            x = x + F.linear(F.gelu(F.linear(h, *up), approximate="tanh"), *down)
        x = F.layer_norm(x, (12,), state["norm.weight"], state["norm.bias"])
        return F.linear(x, state["token_embedding.weight"])

    logits = model(ids)
    expected = theirs(torch.tensor(ids))
    np.testing.assert_allclose(logits.data, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    dy = draw(3, 8, 11)
    logits.backward(dy)
    expected.backward(torch.tensor(dy))
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad, state[name].grad.numpy(), rtol=1e-8, atol=1e-11, err_msg=name)


def _norms(w):
    names = [n.removesuffix(".weight") for n in w if n.endswith(".weight") and w[n].ndim == 1]
    return [(w[f"{n}.weight"], w[f"{n}.bias"]) for n in names]


def _feed_forward(w):
    names = [n.removesuffix(".weight") for n in w if n.startswith("feed_forward.") and n.endswith(".weight")]
    return [(w[f"{n}.weight"], w[f"{n}.bias"]) for n in names]
