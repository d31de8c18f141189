import copy
import json

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn
from minitransformer.optim import SGD, AdamW, decay_groups

from ..models.helpers import KERNEL_SETS

MAKERS = {
    "sgd": lambda ps: SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda ps: SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda ps: AdamW(ps, lr=0.1, weight_decay=0.1),
}


def leaves(dtype="float64", shapes=((3, 4), (5,))):
    return [mt.tensor(Generator(i).normal(s), dtype=dtype, requires_grad=True) for i, s in enumerate(shapes)]


def give_gradients(params, step):
    for i, p in enumerate(params):
        p.grad = Generator(1000 * step + i).normal(p.shape, dtype=np.float64).astype(p.dtype)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)])
def test_adamw_is_its_formula(dtype, tolerance, kernel_set):
    lr, b1, b2, eps, decay = 0.02, 0.8, 0.95, 1e-6, 0.3
    params = leaves(dtype)
    theta = [p.numpy().astype(np.float64) for p in params]
    m, v = [np.zeros_like(t) for t in theta], [np.zeros_like(t) for t in theta]
    optimizer = AdamW(params, lr, (b1, b2), eps, decay)
    with kernels.use(kernel_set):
        for t in range(1, 21):
            give_gradients(params, t)
            for i, p in enumerate(params):
                g = p.grad.astype(np.float64)
                m[i] = b1 * m[i] + (1 - b1) * g
                v[i] = b2 * v[i] + (1 - b2) * g * g
                theta[i] = theta[i] * (1 - lr * decay)
                theta[i] = theta[i] - lr * (m[i] / (1 - b1**t)) / (np.sqrt(v[i] / (1 - b2**t)) + eps)
            optimizer.step()
    for p, expected in zip(params, theta):
        np.testing.assert_allclose(p.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_the_first_adam_step_has_length_lr_whatever_the_gradient():
    p = mt.zeros(4, dtype="float64", requires_grad=True)
    p.grad = np.array([1e-3, -1e3, 1.0, 0.0])
    AdamW([p], lr=0.5, eps=1e-12, weight_decay=0.0).step()
    np.testing.assert_allclose(p.numpy(), [-0.5, 0.5, -0.5, 0.0], rtol=1e-8)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_in_closed_form(nesterov):
    """Under a constant gradient u_t = g (1 - μᵗ)/(1 - μ): far along, steps are 1/(1 - μ) times as long."""
    mu, lr, steps = 0.9, 0.01, 40
    (p,) = leaves(shapes=((3, 4),))
    start, g = p.numpy().copy(), Generator(5).normal((3, 4), dtype=np.float64)
    optimizer = SGD([p], lr, momentum=mu, nesterov=nesterov)
    for _ in range(steps):
        p.grad = g.copy()
        optimizer.step()
    u = [(1 - mu**t) / (1 - mu) for t in range(1, steps + 1)]
    travelled = sum(1 + mu * x for x in u) if nesterov else sum(u)
    np.testing.assert_allclose(p.numpy(), start - lr * travelled * g, rtol=1e-12)


def test_plain_sgd_and_its_decay():
    (p,) = leaves(shapes=((3, 4),))
    start = p.numpy().copy()
    p.grad = np.zeros((3, 4))
    SGD([p], lr=0.1, weight_decay=0.5).step()
    np.testing.assert_allclose(p.numpy(), start * (1 - 0.1 * 0.5), rtol=1e-15)
    p.grad = np.ones((3, 4))
    before = p.numpy().copy()
    SGD([p], lr=0.1).step()
    np.testing.assert_allclose(p.numpy(), before - 0.1, rtol=1e-15)


@pytest.mark.parametrize("name", MAKERS)
def test_the_gradient_is_not_changed_by_a_step(name):
    params = leaves()
    give_gradients(params, 1)
    before = [p.grad.copy() for p in params]
    optimizer = MAKERS[name](params)
    optimizer.step()
    assert all(np.array_equal(p.grad, g) for p, g in zip(params, before))
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("name", MAKERS)
def test_a_restored_optimiser_goes_on_bit_for_bit(name):
    params = leaves("float32")
    optimizer = MAKERS[name](params)
    for t in range(3):
        give_gradients(params, t)
        optimizer.step()
    state = optimizer.state_dict()
    numbers = json.loads(json.dumps(state["param_groups"]))  # the options survive JSON; keys may become text
    twins = copy.deepcopy(params)
    restored = MAKERS[name](twins)
    restored.load_state_dict({"param_groups": numbers, "state": {str(k): v for k, v in state["state"].items()}})
    for t in range(3, 6):
        for ps, o in ((params, optimizer), (twins, restored)):
            give_gradients(ps, t)
            o.step()
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(params, twins))
    assert restored.param_groups[0].keys() == optimizer.param_groups[0].keys()
    kept = [value for entry in state["state"].values() for value in entry.values() if isinstance(value, np.ndarray)]
    live = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, np.ndarray)]
    assert kept and not any(np.array_equal(a, b) for a, b in zip(kept, live))  # a snapshot does not follow


def test_a_parameter_that_joins_late_counts_its_own_steps():
    early, late = leaves()
    optimizer = AdamW([early, late], lr=0.5, eps=1e-12, weight_decay=0.0)
    for t in range(4):
        give_gradients([early], t)
        optimizer.step()
    start = late.numpy().copy()
    late.grad = np.ones(5)
    optimizer.step()
    np.testing.assert_allclose(late.numpy(), start - 0.5, rtol=1e-9)


def test_a_tied_parameter_takes_one_step():
    tied = nn.Module()
    tied.a = nn.Linear(3, 3, generator=Generator(0))
    tied.b = nn.Linear(3, 3, bias=False, generator=Generator(1))
    tied.b.weight = tied.a.weight
    start = tied.a.weight.numpy().copy()
    for p in tied.parameters():
        p.grad = np.ones_like(p.data)
    optimizer = SGD([*tied.a.parameters(), *tied.b.parameters()], lr=0.25)
    optimizer.step()
    assert np.array_equal(tied.b.weight.numpy(), start - np.float32(0.25))


def test_groups_have_their_own_options():
    a, b = leaves()
    optimizer = SGD([{"params": [a], "lr": 1.0}, {"params": [b]}], lr=0.5)
    starts = a.numpy().copy(), b.numpy().copy()
    a.grad, b.grad = np.ones((3, 4)), np.ones(5)
    optimizer.step()
    np.testing.assert_allclose([(starts[0] - a.numpy()).mean(), (starts[1] - b.numpy()).mean()], [1.0, 0.5])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = a.numpy().copy()
    optimizer.step()
    assert np.array_equal(a.numpy(), before)


def test_only_matrices_decay():
    block = nn.Block(4, 2, generator=Generator(0))
    matrices, rest = decay_groups(block, 0.1)
    assert matrices["weight_decay"] == 0.1 and rest["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in matrices["params"]) and all(p.ndim == 1 for p in rest["params"])
    assert len(matrices["params"]) + len(rest["params"]) == len(list(block.parameters()))
    before = block.state_dict()
    for p in block.parameters():
        p.grad = np.zeros_like(p.data)
    AdamW([matrices, rest], lr=0.5).step()
    for name, p in block.named_parameters():
        np.testing.assert_allclose(p.numpy(), before[name] * (0.95 if p.ndim == 2 else 1.0), rtol=1e-6)


def test_a_step_between_forward_and_backward_is_noticed():
    (p,) = leaves(shapes=((3, 4),))
    loss = (p * p).sum()
    p.grad = np.ones((3, 4))
    SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: SGD([], lr=0.1), ValueError, "SGD: there are no parameters"),
        (lambda p: SGD(p, lr=-1.0), ValueError, "SGD: lr must lie in"),
        (lambda p: SGD(p, lr=float("nan")), ValueError, "got nan"),
        (lambda p: SGD(p, lr=0.1, momentum=1.0), ValueError, r"momentum must lie in \[0, 1\), got 1.0"),
        (lambda p: SGD(p, lr=0.1, nesterov=True), ValueError, "nesterov needs a momentum"),
        (lambda p: AdamW(p, betas=(0.9, 1.0)), ValueError, r"beta2 must lie in \[0, 1\), got 1.0"),
        (lambda p: AdamW(p, betas=(0.9,)), ValueError, "betas are two numbers"),
        (lambda p: AdamW(p, weight_decay=-0.1), ValueError, "weight_decay"),
        (lambda p: AdamW([{"params": p, "rate": 1}]), ValueError, "unknown option 'rate'; known are lr, betas"),
        (lambda p: AdamW([{"params": p}, {"params": p}]), ValueError, r"shape \(3, 4\) is in two groups"),
        (lambda p: AdamW([p[0] * 2]), TypeError, "parameters are leaf tensors"),
        (lambda p: AdamW([1.0]), TypeError, "leaf tensors, got float"),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make(leaves())
    assert "\n" not in str(caught.value)


def test_a_state_of_another_model_changes_nothing():
    def stepped(shapes):
        params = leaves(shapes=shapes)
        optimizer = AdamW(params)
        give_gradients(params, 0)
        optimizer.step()
        return optimizer

    optimizer = stepped([(3, 4), (5,)])
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"groups have \[3\] parameters, here they have \[2\]"):
        optimizer.load_state_dict(stepped([(3, 4), (5,), (2,)]).state_dict())
    with pytest.raises(ValueError, match=r"m of parameter 1 has shape \(6,\), must be \(5,\)"):
        optimizer.load_state_dict(stepped([(3, 4), (6,)]).state_dict())
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(np.array_equal(before["state"][i]["m"], after["state"][i]["m"]) for i in (0, 1))
