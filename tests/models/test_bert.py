import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, no_grad
from minitransformer.models import BERT, BERTConfig
from minitransformer.nn import Recording

from .helpers import KERNEL_SETS, random_ids

SMALL = {"vocab_size": 11, "context": 12, "layers": 2, "heads": 2, "width": 16, "hidden": 20}
LENGTHS = np.array([12, 7, 1])


def small_bert(dtype="float64", seed=0, **options) -> BERT:
    """Weights far enough from zero that attention is not uniform."""
    model, noise = BERT(BERTConfig(**{**SMALL, **options}), Generator(seed)), Generator(seed + 1)
    for parameter in model.parameters():
        parameter.data += noise.normal(parameter.shape, std=0.3)
    return model.to(dtype)


def batch(model):
    ids, types = random_ids(model, 3, 12), Generator(5).integers(0, 2, (3, 12))
    targets = np.where(Generator(6).integers(0, 3, (3, 12)) == 0, random_ids(model, 3, 12, seed=7), -100)
    targets[np.arange(12) >= LENGTHS[:, None]] = -100
    targets[2, 0] = 3
    return {"ids": ids, "targets": targets, "token_types": types, "lengths": LENGTHS, "is_random": np.array([0, 1, 1])}


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_gradient_of_the_whole_model(kernel_set):
    """d loss / d θ of both objectives along a random direction, against central differences, with dropout."""
    model = small_bert(dropout=0.2)
    masks, inputs = model.generator.state_dict(), batch(model)

    def loss():
        model.generator.load_state_dict(masks)
        return model.loss(**inputs)

    with kernels.use(kernel_set):
        loss().backward()
        directions = [Generator(i).normal(p.shape, dtype=np.float64) for i, p in enumerate(model.parameters())]
        slope = sum(float((p.grad * v).sum()) for p, v in zip(model.parameters(), directions))
        step, values = 1e-6, []
        for sign in (1, -2):  # to θ + εv, to θ - εv
            for p, v in zip(model.parameters(), directions):
                p.data += sign * step * v
            values.append(loss().item())
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > 1e-2
    assert slope == pytest.approx(expected, rel=1e-7)
    assert all(np.abs(p.grad).max() > 0 for p in model.parameters())


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_changes_no_bit(dtype, kernel_set):
    model, inputs = small_bert(dtype), batch(small_bert())
    ids, types = inputs["ids"], inputs["token_types"]
    real = np.arange(12) < LENGTHS[:, None]
    with kernels.use(kernel_set), no_grad():
        before = model(ids, types, LENGTHS)
        changed = np.where(real, ids, (ids + 1 + Generator(9).integers(0, 9, ids.shape)) % 11)
        assert (changed != ids)[~real].all()
        after = model(changed, types, LENGTHS)
        assert np.array_equal(before.numpy()[real], after.numpy()[real])
        assert np.array_equal(model.pooled(before).numpy(), model.pooled(after).numpy())
        without = model(changed, types)
        assert not np.allclose(without.numpy()[1, 0], after.numpy()[1, 0])


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_a_batch_is_its_rows_one_at_a_time(dtype, tolerance, kernel_set):
    model, inputs = small_bert(dtype), batch(small_bert())
    ids, types = inputs["ids"], inputs["token_types"]
    with kernels.use(kernel_set), model.evaluating():
        together = model(ids, types, LENGTHS).numpy()
        for i, n in enumerate(LENGTHS):
            alone = model(ids[i : i + 1, :n], types[i : i + 1, :n]).numpy()[0]
            np.testing.assert_allclose(together[i, :n], alone, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_without_gradients_no_bit_differs(lengths, dtype, kernel_set):
    model = small_bert(dtype, dropout=0.3)
    ids = random_ids(model, 3, 12)
    with kernels.use(kernel_set):
        with no_grad():
            first, second = (model(ids, lengths=lengths).numpy() for _ in range(2))
            assert not np.array_equal(first, second), "dropout goes on while the model is training"
        model.eval()
        recorded = model(ids, lengths=lengths)
        assert recorded.requires_grad
        with no_grad():
            assert np.array_equal(model(ids, lengths=lengths).numpy(), recorded.numpy())
            model.blocks[0].attention.head_mask = mt.tensor(np.array([1, 0], dtype))
            assert not np.allclose(model(ids, lengths=lengths).numpy(), recorded.numpy())


def test_every_token_sees_every_other():
    model = small_bert()
    ids = random_ids(model, 1, 8)
    before = model(ids).numpy()
    for t in range(8):
        changed = ids.copy()
        changed[0, t] = (changed[0, t] + 1) % 11
        assert (np.abs(model(changed).numpy() - before).max(-1) > 1e-6).all()


def test_order_and_types_matter():
    model = small_bert()
    ids = np.array([[1, 2, 3, 4]])
    x = model(ids).numpy()
    assert np.array_equal(x, model(ids, np.zeros((1, 4), np.int64)).numpy())
    assert not np.allclose(x[:, 0], model(ids, np.array([[0, 0, 1, 1]])).numpy()[:, 0])
    assert not np.allclose(x[:, 0], model(np.array([[1, 3, 2, 4]])).numpy()[:, 0])


def test_captured_attention():
    model = small_bert()
    ids, recording = random_ids(model, 3, 12), Recording()
    x, attentions = model(ids, lengths=LENGTHS, capture_attention=True)
    assert np.array_equal(x.numpy(), model(ids, lengths=LENGTHS).numpy())
    assert [a.shape for a in attentions] == [(3, 2, 12, 12)] * 2
    for a in attentions:
        np.testing.assert_allclose(a.sum(-1), 1, rtol=1e-12)
        np.testing.assert_allclose(a[2, :, :, 0], 1, rtol=1e-12)
        assert a[1, :, :, 7:].max() == 0 and a[1, :, :, :7].min() > 0
    _, recorded = model(ids, lengths=LENGTHS, capture_attention=recording)
    assert all(np.array_equal(a, b) for a, b in zip(attentions, recorded)) and len(recording.streams) == 3
    for p, v, o in zip(recording.probabilities, recording.values, recording.outputs):
        np.testing.assert_allclose(p @ v, o.numpy(), rtol=1e-10, atol=1e-12)


def test_the_loss_is_that_of_the_hidden_tokens():
    model, inputs = small_bert(), batch(small_bert())
    x = model(inputs["ids"], inputs["token_types"], LENGTHS)
    logits, targets = model.masked_logits(x).numpy(), inputs["targets"]
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.mean([logits[i, t, targets[i, t]] for i, t in np.argwhere(targets != -100)])
    pairs = model.next_logits(x).numpy()
    pairs = pairs - np.log(np.exp(pairs).sum(-1, keepdims=True))
    both = expected - pairs[np.arange(3), inputs["is_random"]].mean()
    assert model.loss(**inputs).item() == pytest.approx(both, rel=1e-12)
    assert model.loss(**{**inputs, "is_random": None}).item() == pytest.approx(expected, rel=1e-12)


def test_a_fresh_model_guesses_evenly():
    model = BERT(BERTConfig(vocab_size=65, context=32, layers=6, heads=2, width=48, hidden=96))
    ids = Generator(1).integers(0, 65, (4, 32))
    assert model.loss(ids, ids).item() == pytest.approx(np.log(65), abs=0.1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 0}, "layers must be a positive integer, got 0"),
        ({"token_types": 0}, "token_types must be a positive integer"),
        ({"heads": 5}, "5 heads do not divide the width 16"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\)"),
        ({"pooler": False}, "it needs pooler=True"),
    ],
)
def test_sizes_that_make_no_model(sizes, message):
    with pytest.raises(ValueError, match=message):
        BERTConfig(**{**SMALL, **sizes})


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"ids": np.zeros((1, 13), np.int64)}, ValueError, "13 tokens are more than the context of 12"),
        ({"ids": np.zeros((1, 0), np.int64)}, ValueError, r"integers \(B, T\) with T > 0"),
        ({"ids": np.zeros((1, 4))}, ValueError, "got float64"),
        ({"ids": np.full((1, 4), 11)}, IndexError, "11"),
        ({"ids": np.zeros((1, 4), int), "token_types": np.zeros((1, 3), int)}, ValueError, r"of shape \(1, 4\), got"),
        ({"ids": np.zeros((1, 4), int), "token_types": np.full((1, 4), 2)}, IndexError, "2"),
        ({"ids": np.zeros((1, 4), int), "lengths": np.array([5])}, ValueError, r"must be 1 numbers in 0..4"),
    ],
)
def test_inputs_that_do_not_fit(inputs, error, message):
    with pytest.raises(error, match=message):
        small_bert()(**inputs)


def test_heads_that_are_not_there_and_targets_that_do_not_fit():
    model = small_bert(pooler=False, next_head=False, masked_head=False)
    x = model(np.zeros((1, 4), int))
    for head in (model.pooled, model.masked_logits, model.next_logits):
        with pytest.raises(ValueError, match="this model has no"):
            head(x)
    with pytest.raises(ValueError, match=r"targets must be integers \(1, 4\)"):
        small_bert().loss(np.zeros((1, 4), int), np.zeros((1, 3), int))
    with pytest.raises(ValueError, match="hide at least one token"):
        small_bert().loss(np.zeros((1, 4), int), np.full((1, 4), -100))
