"""Choosing kernels: use, strict, fallback, explain, and a module of one's own."""

import contextvars
import inspect
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import kernels
from minitransformer.kernels.contract import ROUTINES

X = np.array([[0.5, -1.0, 2.0]], np.float32)


def module(name="mine", **routines):
    made = types.ModuleType(name)
    vars(made).update(routines)
    return made


def reluctant(x, axis):
    raise kernels.Unsupported("softmax of this width")


@pytest.mark.parametrize("name", [name for name, reason in kernels.available("cpu").items() if not reason])
def test_every_set_answers_to_every_name_of_the_contract(name):
    with kernels.use(name) as current:
        assert current.name == name and set(current.table) == set(ROUTINES)
        assert kernels.softmax(X, -1).sum() == pytest.approx(1)


def test_numpy_defines_everything_with_the_contracts_own_signature():
    with kernels.use("numpy", strict=True) as current:
        for routine, contract in ROUTINES.items():
            implementation = inspect.unwrap(current.table[routine])
            assert list(inspect.signature(implementation).parameters) == list(inspect.signature(contract).parameters)


def test_a_module_of_ones_own_is_used_and_the_rest_comes_from_below():
    mine = module(softmax=lambda x, axis: x * 0 + 7)
    with kernels.use(mine):
        assert (kernels.softmax(X, -1) == 7).all()
        assert kernels.log_softmax(X, -1).shape == X.shape
    assert kernels.softmax(X, -1).sum() == pytest.approx(1)


def test_strict_forbids_both_kinds_of_fallback():
    mine = module(softmax=reluctant)
    with kernels.use(mine):
        assert kernels.softmax(X, -1).sum() == pytest.approx(1)
    with kernels.use(mine, strict=True):
        with pytest.raises(kernels.Unsupported, match="softmax of this width"):
            kernels.softmax(X, -1)
        with pytest.raises(kernels.Unsupported, match="mine does not define silu"):
            kernels.silu(X)


def test_explain_says_whose_implementation_ran_and_why():
    mine = module(softmax=reluctant, silu=lambda x: x)
    with kernels.use(mine):
        calls = kernels.explain(lambda: (kernels.softmax(X, -1), kernels.silu(X), kernels.gelu(X, "none")))
    assert [c.routine for c in calls] == ["softmax", "silu", "gelu"]
    assert calls[0].source != "mine" and calls[0].why == "mine: softmax of this width"
    assert calls[1].source == "mine" and calls[2].why == "mine does not define it"
    assert "float32[1, 3]" in str(calls) and "why" in str(calls).splitlines()[0]


def test_a_choice_holds_until_it_is_left():
    before = kernels.current()

    def choose():
        kernels.use("numpy").__enter__()  # nothing is undone by forgetting it
        assert kernels.current().name == "numpy"
        with kernels.use(before):
            assert kernels.current() is before
        assert kernels.current().name == "numpy"

    contextvars.copy_context().run(choose)  # in a context of its own: all later tests would run on this choice
    assert kernels.current() is before

    @kernels.use(module(softmax=lambda x, axis: x * 0))
    def decorated(n):
        return kernels.softmax(X, -1).sum() if n == 0 else decorated(n - 1)

    assert decorated(2) == 0 and kernels.current() is before


def test_the_choice_belongs_to_the_context_not_to_the_process():
    seen = {}
    with kernels.use(module(softmax=lambda x, axis: x)):
        thread = threading.Thread(target=lambda: seen.update(other=kernels.current().name))
        thread.start()
        thread.join()
        seen["here"] = kernels.current().name
    assert seen["here"] == "mine" and seen["other"] != "mine"


@pytest.mark.parametrize("name", [name for name, reason in kernels.available("cpu").items() if not reason])
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.matmul(X, X), ValueError, "a .* has 3 columns but b .* has 1 rows"),
        (lambda: kernels.softmax(X.astype(np.int64), -1), TypeError, "softmax: x must be a float array, got int64"),
        (lambda: kernels.softmax([1.0], -1), TypeError, "got list"),
        (lambda: kernels.gelu_backward(X, X.astype(np.float64), "none"), TypeError, "x is float64 but dy is float32"),
        (lambda: kernels.random_bits(-1, 0, 3), ValueError, "random_bits: key and offset"),
        (lambda: kernels.random_bits(0, 0, -3), ValueError, "must not be negative"),
        (lambda: kernels.dropout(X, 1.5, 0, 0), ValueError, "dropout: p must lie in"),
        (lambda: kernels.embedding_backward(X, np.array([9]), 4), IndexError, r"indices\[0\] is 9, allowed are 0 to 3"),
    ],
)
def test_bad_input_raises_the_same_error_in_every_set(name, call, error, message):
    with kernels.use(name), pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("cudnn", ValueError, "no kernel set named 'cudnn'; known are numpy, native"),
        (
            module(attention_foward=len),
            ValueError,
            "defines no routine .*; did you mean attention_forward",
        ),
    ],
)
def test_an_unknown_set_is_refused(which, error, message):
    with pytest.raises(error, match=message), kernels.use(which):
        pass


def test_the_optimiser_step_refuses_what_it_cannot_edit_in_place():
    p = np.ones((2, 3), np.float32)
    options = {"step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="parameter is updated in place and must be C-contiguous"):
        kernels.adamw_step(p.T, p.T, p.T.copy(), p.T.copy(), **options)
    with pytest.raises(ValueError, match="step counts from 1"):
        kernels.adamw_step(p, p, p.copy(), p.copy(), **{**options, "step": 0})


def test_without_the_extension_everything_runs_on_numpy():
    code = (
        "import sys; sys.modules['minitransformer.kernels.native._native'] = None\n"
        "import minitransformer as mt, numpy as np\n"
        "assert mt.kernels.current().name == 'numpy', mt.kernels.current()\n"
        "reason = mt.kernels.available()['native']\n"
        "assert reason, reason\n"
        "x = mt.tensor([[1.0, 2.0]], requires_grad=True)\n"
        "mt.gelu(mt.softmax(x)).sum().backward()\n"
        "try:\n    mt.kernels.use('native').__enter__()\nexcept RuntimeError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the native kernels are not available: ")


def test_the_module_documents_itself():
    assert "Normalised" in (mt.function.OPS["Softmax"].__doc__ or "")
    assert kernels.softmax.__doc__ == ROUTINES["softmax"].__doc__
