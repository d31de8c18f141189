"""What an onlooker records is what the fused kernel computed with."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn

from ..models.helpers import KERNEL_SETS, random_ids, small_gpt

B, T, H, d = 2, 11, 2, 8


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_captured_rows_are_those_of_the_fused_kernel(kernel_set, dtype, monkeypatch):
    """Rows times values give the fused output, and rows are exp(scores - lse) of the fused lse."""
    with kernels.use(kernel_set) as table:
        if table.source["attention_forward"] != kernel_set:
            pytest.skip(f"{kernel_set} does not define attention_forward")
    ran = []
    fused = kernels.attention_forward

    def spy(q, k, v, **options):
        o, lse = fused(q, k, v, **options)
        ran.append((q, k, v, o, lse))
        return o, lse

    monkeypatch.setattr(kernels, "attention_forward", spy)
    model, recording = small_gpt(dtype), nn.Recording()
    with kernels.use(kernel_set, strict=True):
        _, maps = model(random_ids(model, B, T), capture_attention=recording)
    assert len(ran) == 4 and all(np.array_equal(*pair) for a, b in (ran[:2], ran[2:]) for pair in zip(a, b))
    size = 64 * np.finfo(dtype).eps
    for (q, k, v, o, lse), p, values, outputs in zip(ran[::2], maps, recording.values, recording.outputs, strict=True):
        assert p.dtype == dtype and p.shape == (B, H, T, T)
        assert np.array_equal(values, v) and np.array_equal(outputs.numpy(), o)
        np.testing.assert_allclose(p @ v, o, rtol=0, atol=size * np.abs(v).max())
        scores = np.where(np.tri(T, dtype=bool), q.astype(float) @ k.swapaxes(2, 3) / np.sqrt(d), -np.inf)
        np.testing.assert_allclose(p, np.exp(scores - lse[..., None]), rtol=size * (1 + np.abs(lse).max()), atol=0)
        assert p.std() > 0.02


def test_the_streams_lead_from_the_embeddings_to_the_logits():
    model, recording = small_gpt(), nn.Recording()
    ids = random_ids(model, B, T)
    logits, maps = model(ids, capture_attention=recording)
    assert len(recording.streams) == 3 and all(a is b for a, b in zip(maps, recording.probabilities, strict=True))
    embedded = model.token_embedding(ids) + model.position_embedding(np.arange(T))
    assert np.array_equal(recording.streams[0].numpy(), embedded.numpy())
    for i, block in enumerate(model.blocks):
        assert np.array_equal(block(recording.streams[i]).numpy(), recording.streams[i + 1].numpy())
    assert np.array_equal(model.unembed(recording.streams[-1]).numpy(), logits.numpy())
    assert np.array_equal(model(ids).numpy(), logits.numpy())


def test_gradients_of_the_probabilities():
    """Against finite differences: a probability is nudged where it meets the values, and the loss is measured."""
    model, recording = small_gpt(), nn.Recording()
    ids, targets = random_ids(model, 1, T), random_ids(model, 1, T, seed=1)
    with pytest.raises(RuntimeError, match=r"run backward\(\)"):
        recording.attention_gradients()
    logits, _ = model(ids, capture_attention=recording)
    mt.cross_entropy(logits, targets).backward()
    gradients, nudged, eps = recording.attention_gradients(), np.ones((1, H, T, T)), 1e-5
    generator = Generator(3)
    for layer, p in enumerate(recording.probabilities):
        change = generator.normal((1, H, T, T), dtype=np.float64) * np.tri(T)
        losses = []
        for sign in (1, -1):
            x = recording.streams[layer].detach()
            for i in range(layer, 2):
                block = model.blocks[i]
                y = block.attention(block.attention_norm(x))
                if i == layer:  # P v, with P nudged, in place of the fused op
                    o = (p + sign * eps * change) @ recording.values[layer]
                    y = block.attention.output(mt.tensor(o.transpose(0, 2, 1, 3).reshape(1, T, -1)))
                x = x + y
                x = x + block.feed_forward(block.feed_forward_norm(x))
            losses.append(mt.cross_entropy(model.unembed(x), targets).item())
        numeric = (losses[0] - losses[1]) / (2 * eps)
        assert abs(numeric) > 1e-3
        np.testing.assert_allclose((gradients[layer] * change).sum(), numeric, rtol=1e-6)
        assert gradients[layer].shape == nudged.shape


def test_recording_with_a_cache_and_without_a_gradient():
    model, recording = small_gpt(), nn.Recording()
    ids, cache = random_ids(model, 1, T), model.new_cache()
    with mt.no_grad():
        model(ids[:, :-1], cache)
        model(ids[:, -1:], cache, capture_attention=recording)
        whole = model(ids, capture_attention=True)[1]
    for layer in range(2):
        assert recording.values[layer].shape == (1, H, T, d)
        np.testing.assert_allclose(recording.probabilities[layer], whole[layer][:, :, -1:], rtol=1e-11, atol=1e-14)
