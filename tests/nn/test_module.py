import ml_dtypes
import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, nn


class Tree(nn.Module):
    """One of everything: a parameter, a buffer, lists, a frozen layer, a tied one."""

    def __init__(self):
        g = Generator(0)
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.counts = nn.Buffer(np.arange(3))
        self.layers = [nn.Linear(3, 4, generator=g), nn.Linear(4, 3, bias=False, generator=g)]
        self.twin = nn.Linear(3, 4, generator=g)
        self.twin.weight = self.layers[0].weight
        self.frozen = nn.LayerNorm(3).requires_grad_(False)
        self.note, self.numbers, self.plain = "not a layer", [1, 2], mt.ones(2)

    def forward(self, x):
        return self.frozen(x * self.scale)


NAMES = [
    "scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "twin.bias", "frozen.weight", "frozen.bias",
]  # fmt: skip


def test_what_belongs_to_a_module():
    tree = Tree()
    assert [name for name, _ in tree.named_parameters()] == NAMES
    assert {name for name, _ in tree.named_state()} == {*NAMES, "counts"}
    assert [name for name, _ in tree.named_modules()] == ["", "layers.0", "layers.1", "twin", "frozen"]
    assert list(tree.children()) == [*tree.layers, tree.twin, tree.frozen]
    assert tree.parameter_count() == 3 + 12 + 4 + 12 + 4 + 6
    assert tree.parameter_count(trainable=True) == tree.parameter_count() - 6


def test_a_module_that_holds_itself_ends():
    tree = Tree()
    tree.layers[0].parent = tree
    assert len(list(tree.modules())) == 5


def test_gradients_and_freezing():
    tree = Tree()
    tree(mt.tensor(Generator(1).normal((2, 3)))).backward(Generator(2).normal((2, 3)))
    assert tree.scale.grad is not None and tree.frozen.weight.grad is None
    tree.zero_grad()
    assert tree.scale.grad is None
    assert not any(p.requires_grad for p in tree.requires_grad_(False).parameters())


def test_modes_and_their_return():
    tree = Tree()
    assert tree.eval() is tree and not any(m.training for m in tree.modules())
    tree.train().frozen.eval()
    with tree.evaluating():
        assert not any(m.training for m in tree.modules()) and not mt.is_grad_enabled()
    assert [m.training for m in tree.modules()] == [True, True, True, True, False] and mt.is_grad_enabled()


def test_state_comes_back_into_the_same_memory():
    tree, other = Tree(), Tree()
    for i, (_, tensor) in enumerate(tree.named_state()):
        tensor.data = (Generator(i).normal(tensor.shape) * 10).astype(tensor.dtype)
    memory = [tensor.data for _, tensor in other.named_state()]
    assert other.load_state_dict(tree.state_dict()) == ([], [])
    for (name, a), (_, b), before in zip(tree.named_state(), other.named_state(), memory):
        assert np.array_equal(a.data, b.data), name
        assert b.data is before
    assert other.twin.weight is other.layers[0].weight
    snapshot = tree.state_dict()
    tree.scale.data[:] = 0
    assert snapshot["scale"].all()  # it does not follow the model


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ({"scale": None}, ValueError, "this state does not fit Tree: missing: scale"),
        ({"extra": np.ones(2)}, ValueError, "unexpected: extra"),
        ({"scale": np.ones(4)}, ValueError, r"wrong shape: scale is \(4,\), must be \(3,\)"),
        ({"scale": None, "a": 0, "b": 0}, ValueError, "missing: scale; unexpected: a, b"),
        ({name: None for name in NAMES}, ValueError, "missing: scale, .* and 2 more"),
        ({"scale": np.arange(3)}, TypeError, "scale must be float32, in this state it is int64"),
        ({"counts": np.ones(3)}, TypeError, "counts must be int64, in this state it is float64"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(edit, error, message):
    tree = Tree()
    before = tree.state_dict()
    state = {name: array * 2 for name, array in before.items()} | edit
    with pytest.raises(error, match=message) as caught:
        tree.load_state_dict({name: value for name, value in state.items() if value is not None})
    assert "\n" not in str(caught.value)
    for name, tensor in tree.named_state():
        assert np.array_equal(tensor.data, before[name]), name


def test_a_part_of_a_state():
    tree = Tree()
    missing, unexpected = tree.load_state_dict({"scale": np.full(3, 7.0), "extra": 0}, strict=False)
    assert set(missing) == {*NAMES, "counts"} - {"scale"}
    assert unexpected == ["extra"] and (tree.scale.data == 7).all()
    assert tree.scale.dtype == np.float32  # a float64 entry is converted


def test_to_another_dtype():
    tree = Tree()
    scale, shared = tree.scale, tree.layers[0].weight
    assert tree.to("float64") is tree
    assert tree.scale is scale and tree.twin.weight is tree.layers[0].weight is shared
    assert {p.dtype for p in tree.parameters()} == {np.dtype(np.float64)}
    assert tree.counts.dtype == np.int64  # integers stay
    assert tree(mt.ones(2, 3, dtype="float64")).dtype == np.float64
    assert tree.to("bfloat16").scale.dtype == ml_dtypes.bfloat16
    assert tree.to("cpu").scale is scale
    with pytest.raises(TypeError, match="a module computes in floats, not int32"):
        tree.to("int32")
    with pytest.raises(ValueError, match="no device named 'cuda:0'"):
        tree.to("cuda:0")


def test_the_repr_is_the_tree():
    g = Generator(0)
    assert repr(nn.Linear(3, 4, generator=g)) == "Linear(3, 4)"
    text = repr(Tree())
    assert text.startswith("Tree(") and text.endswith(")")
    assert "  layers.0: Linear(3, 4)\n  layers.1: Linear(4, 3, bias=False)\n  twin: Linear(3, 4)" in text
    stack = nn.Module()
    stack.layers = [nn.LayerNorm(4), nn.LayerNorm(4), nn.LayerNorm(4), nn.RMSNorm(4)]
    assert repr(stack) == "Module(\n  layers.0-2: each LayerNorm(4)\n  layers.3: RMSNorm(4)\n)"


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


def test_layers_in_nested_lists_and_dicts_are_found():
    class Holder(nn.Module):
        def __init__(self):
            self.by_name = {"a": nn.LayerNorm(2, bias=False)}
            self.rows = [[nn.LayerNorm(3, bias=False)], (nn.LayerNorm(4, bias=False),)]

    assert [name for name, _ in Holder().named_parameters()] == [
        "by_name.a.weight",
        "rows.0.0.weight",
        "rows.1.0.weight",
    ]
