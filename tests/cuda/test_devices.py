"""An array lives somewhere, a move is explicit, and who mixes devices is told so in one line."""

import sys
import types

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import nn, optim
from minitransformer.kernels import devices
from minitransformer.kernels.cuda import standin
from minitransformer.random import Generator

THERE = "cuda-emulated"


def test_a_tensor_says_where_it_lives_and_moves_when_told():
    x = mt.tensor([[1.0, 2.0]])
    y = x.to(THERE)
    assert (x.device, y.device) == ("cpu", THERE) and isinstance(y.data, standin.ndarray)
    assert y.to(THERE) is y and x.cpu() is x and y.cpu().device == "cpu"
    assert np.array_equal(y.cpu().numpy(), x.numpy()) and y.to(mt.device("cpu")).device == "cpu"
    assert 'device="cuda-emulated"' in repr(y) and "1." in repr(y)
    with pytest.raises(TypeError, match=r'lives on cuda-emulated: \.to\("cpu"\) first'):
        y.numpy()


@pytest.mark.parametrize(
    "make",
    [
        lambda: mt.tensor([1.0, 2.0], device=THERE),
        lambda: mt.zeros(2, 3, device=THERE),
        lambda: mt.ones((2,), dtype="float64", device=THERE),
        lambda: mt.full((2,), 7.0, device=mt.device(THERE)),
        lambda: mt.arange(4, device=THERE),
    ],
)
def test_creation_on_a_device(make):
    made = make()
    assert made.device == THERE and made.cpu().device == "cpu"


def test_creating_there_takes_no_transfer():
    with standin.counting() as counts:
        mt.zeros(3, device=THERE), mt.ones(3, device=THERE), mt.arange(3, device=THERE), mt.full((2,), 1, device=THERE)
        assert counts.to_device == 0


def test_gradients_flow_through_a_move_and_stay_where_their_tensor_lives():
    x = mt.tensor([1.0, 2.0, 3.0], requires_grad=True)
    middle = (x * 2.0).to(THERE)
    middle.retain_grad()
    (middle * middle).cpu().backward(np.array([1.0, 0.5, 2.0], np.float32))
    assert isinstance(middle.grad, standin.ndarray) and isinstance(x.grad, np.ndarray)
    assert np.array_equal(x.grad, [8.0, 8.0, 48.0])
    leaf = mt.tensor([1.0, 2.0], requires_grad=True, device=THERE)
    (leaf * leaf).backward(0.5)
    assert leaf.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("call", "who"),
    [
        (lambda x, y: x + y, "Add"),
        (lambda x, y: x @ y.T, "MatMul"),
        (lambda x, y: x + y.data, "Add"),
        (lambda x, y: y.data + x, "Add"),
        (lambda x, y: mt.cat([x, y]), "Concatenate"),
        (lambda x, y: x[np.array([0, 1])], "Index"),
        (lambda x, y: mt.embedding(np.array([0, 1]), x), "Embedding"),
        (lambda x, y: mt.cross_entropy(x, np.array([0, 1])), "CrossEntropy"),
        (lambda x, y: x > y, "gt"),
        (lambda x, y: x.add_(y), "add_"),
        (lambda x, y: x.copy_(y.data), "copy_"),
        (lambda x, y: x.__setitem__(0, y[0]), "value"),
        (lambda x, y: mt.kernels.softmax_backward(x.data, y.data, -1), "softmax_backward"),
        (lambda x, y: mt.kernels.embedding_backward(x.data, np.array([0, 1]), 3), "embedding_backward"),
        (lambda x, y: x.requires_grad_().backward(y.data), "backward"),
    ],
)
def test_mixing_devices_is_one_line_that_names_the_remedy(call, who):
    x, y = mt.tensor(np.eye(2, dtype=np.float32), device=THERE), mt.tensor(np.eye(2, dtype=np.float32))
    with pytest.raises(TypeError, match=rf'{who}.*\.to\("cpu"\)') as caught:
        call(x, y)
    assert "\n" not in str(caught.value) and THERE in str(caught.value)


def test_a_kernel_set_refuses_arrays_of_another_device():
    x = mt.tensor([[1.0, 2.0]], device=THERE)
    if not mt.kernels.available()["native"]:
        with mt.kernels.use("native"), pytest.raises(TypeError, match=r'native kernels take no array .*\.to\("cpu"\)'):
            mt.softmax(x)
    with mt.kernels.use("numpy"):  # array expressions run anywhere
        assert mt.softmax(x).sum().item() == pytest.approx(1)


def test_indices_and_lists_are_used_where_the_tensor_lives():
    x = mt.tensor(np.arange(12.0, dtype=np.float32).reshape(4, 3), device=THERE)
    assert x[[0, 2], 1].tolist() == [1.0, 7.0] and x[1:, ::-1][0, 0].item() == 5.0
    index = mt.tensor([[0], [1], [2], [0]], device=THERE)
    assert x.gather(1, index).tolist() == [[0.0], [4.0], [8.0], [9.0]]


def test_out_of_range_on_a_device_is_nan_and_never_followed():
    weight = mt.ones(3, 2, device=THERE)
    rows = mt.embedding(mt.tensor([0, 3, -1], device=THERE), weight).cpu().numpy()
    assert np.array_equal(np.isnan(rows), [[False] * 2, [True] * 2, [True] * 2])
    for kernel_set in ("numpy", None):
        with mt.kernels.use(kernel_set or mt.kernels.current()):
            logits = mt.zeros(3, 4, device=THERE).requires_grad_()
            loss = mt.cross_entropy(logits, mt.tensor([0, 4, 1], device=THERE))
            loss.backward()
        assert np.isnan(loss.item())
        assert np.array_equal(np.isnan(logits.grad.get()).all(axis=1), [False, True, False])


def test_random_numbers_are_the_same_everywhere():
    for draw in (
        lambda g, d: g.bits((3, 5), device=d),
        lambda g, d: g.uniform((7,), -1, 1, device=d),
        lambda g, d: g.normal((2, 3), device=d),
        lambda g, d: g.normal((3,), dtype=np.float64, device=d),
    ):
        here, away = draw(Generator(5), "cpu"), draw(Generator(5), THERE)
        assert isinstance(away, standin.ndarray) and np.array_equal(devices.fetch(away), here)
    x = np.random.default_rng(0).standard_normal((37, 11)).astype(np.float32)
    away = mt.dropout(mt.tensor(x, device=THERE), 0.3, Generator(1)).cpu().numpy()
    assert np.array_equal(away, mt.dropout(mt.tensor(x), 0.3, Generator(1)).numpy())


def test_a_module_moves_whole_and_its_state_is_numpys():
    model = nn.Linear(3, 2, generator=Generator(0)).to(THERE)
    assert model.device == THERE and all(p.device == THERE for p in model.parameters())
    state = model.state_dict()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    other = nn.Linear(3, 2, generator=Generator(1)).to(THERE)
    other.load_state_dict(state)
    assert np.array_equal(other.weight.cpu().numpy(), state["weight"])
    assert model.to("cpu").device == "cpu" and model.to("float64").weight.dtype == np.float64


def step(optimizer, parameter, gradient):
    parameter.grad = devices.device(parameter.device).put(gradient)
    optimizer.step()


@pytest.mark.parametrize("make", [lambda p: optim.AdamW(p, lr=0.1), lambda p: optim.SGD(p, lr=0.1, momentum=0.9)])
def test_an_optimisers_state_moves_too(make):
    gradient, results = np.array([0.5, -2.0], np.float32), []
    for places in (("cpu", "cpu", "cpu"), (THERE, THERE, THERE), ("cpu", THERE, "cpu")):
        parameter = nn.Parameter(np.ones(2, np.float32))
        model = nn.Module()
        model.weight = parameter
        optimizer = make([parameter])
        for place in places:
            model.to(place)
            optimizer.to(place)
            step(optimizer, parameter, gradient)
        results.append(parameter.cpu().numpy())
        restored = make([parameter])
        saved = optimizer.state_dict()
        restored.load_state_dict(saved)
        for state, device in ((saved["state"], "cpu"), (restored.state, places[-1])):
            assert all(devices.device_of(a) == device for a in state[0].values() if devices.is_array(a))
    assert np.allclose(results[0], results[1], rtol=1e-6) and np.allclose(results[0], results[2], rtol=1e-6)


def test_clipping_waits_for_nobody():
    parameters = [mt.tensor([x], requires_grad=True, device=THERE) for x in (3.0, 4.0)]
    for p in parameters:
        p.grad = p.data.copy()
    with standin.counting() as counts:
        norm = optim.clip_grad_norm_(parameters, 1.0)
        assert counts.from_device == counts.to_device == 0
    assert norm.item() == 5.0 and [p.grad.item() for p in parameters] == pytest.approx([0.6, 0.8])
    parameters[0].grad = standin.asarray(np.array([np.inf], np.float32))
    assert optim.clip_grad_norm_(parameters, 1.0).item() == np.inf and parameters[1].grad.item() == pytest.approx(0.8)


def test_several_numbers_come_over_in_one_transfer():
    values = [standin.asarray(np.float32(1.5)), 2.0, standin.asarray(np.float64(3.25)), np.float32(4)]
    with standin.counting() as counts:
        assert devices.numbers(*values) == [1.5, 2.0, 3.25, 4.0] and counts.from_device == 1
    assert devices.numbers(1.0, 2) == [1.0, 2.0]


@pytest.mark.parametrize("name", ["gpu", "cuda:1", "cpu0", "mps"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=r"no device named .*; known are cpu, cuda, cuda-emulated"):
        mt.device(name)


def test_without_cupy_or_gpu_the_message_says_what_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'minitransformer[cuda]'" in devices.no_gpu.__wrapped__()

    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)))
    assert devices.no_gpu.__wrapped__() == ("CuPy finds no GPU (cudaErrorNoDevice: no CUDA-capable device is detected)")
    monkeypatch.setattr(devices, "no_gpu", lambda: "CuPy finds no GPU")
    with pytest.raises(RuntimeError, match='no device "cuda" here: CuPy finds no GPU; "cuda-emulated" runs'):
        devices._opened.__wrapped__("cuda")
