"""The whole path to a GPU, on the stand-in: a GPT trained, checked and sampled there is the one on the CPU."""

from collections import Counter

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import Generator, kernels, nn, optim
from minitransformer.data import CharTokenizer
from minitransformer.gradient_check import check_ops, gradcheck
from minitransformer.inference import generate, inspect
from minitransformer.kernels.cuda import standin
from minitransformer.training import Trainer, TrainingConfig, checkpoints

from ..models.helpers import random_ids, small_gpt

THERE = "cuda-emulated"
WITH_KERNELS = {
    "Softmax", "LogSoftmax", "LayerNorm", "RMSNorm", "GELU", "SiLU", "CrossEntropy", "SoftCrossEntropy", "Embedding",
    "Dropout", "MatMul", "Linear",
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("emulator")


def batch(model, T=9):
    ids = random_ids(model, 3, T + 1)
    return ids[:, :-1], ids[:, 1:]


@pytest.mark.parametrize("recompute", [False, True])
def test_a_training_step_moves_its_batch_in_and_its_loss_out_and_nothing_else(recompute):
    model = small_gpt("float32", dropout=0.1, recompute=recompute).to(THERE)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    x, y = batch(model)
    for _ in range(2):  # the first step makes the optimiser's state
        with standin.counting() as counts:
            optimizer.zero_grad()
            loss = model.loss(mt.tensor(x, device=THERE), mt.tensor(y, device=THERE))
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
        assert (counts.to_device, counts.bytes_to_device) == (2, x.nbytes + y.nbytes)
        assert (counts.from_device, counts.bytes_from_device) == (1, 4)
        assert counts.launches > 50


@pytest.mark.parametrize("recompute", [False, True])
def test_alibi_and_key_lengths_move_nothing_either(recompute, monkeypatch):
    model = small_gpt("float32", recompute=recompute)
    for block in model.blocks:
        block.attention = nn.MultiHeadAttention(16, 2, alibi=True, window=5, key_value_heads=1, generator=Generator(3))
    model.to(THERE)
    (x, y), n = batch(model), np.array([9, 4, 7])
    attend = nn.attention.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.attention, "scaled_dot_product_attention", lambda *qkv, **o: attend(*qkv, **{**o, "key_lengths": lengths})
    )
    for _ in range(2):
        with standin.counting() as counts:
            ids, targets, lengths = (mt.tensor(a, device=THERE) for a in (x, y, n))
            loss = model.loss(ids, targets)
            loss.backward()
            loss.item()
        assert (counts.to_device, counts.bytes_to_device) == (3, x.nbytes + y.nbytes + n.nbytes)
        assert (counts.from_device, counts.bytes_from_device) == (1, 4)
    assert any(name.endswith("attention.slopes") for name in model.state_dict())


def test_the_kernels_run_there_and_explain_says_so():
    model = small_gpt("float32", dropout=0.1).to(THERE)
    x, y = (mt.tensor(ids, device=THERE) for ids in batch(model))
    ran = Counter((call.routine, call.source) for call in kernels.explain(lambda: model.loss(x, y).backward()))
    for routine in ("layer_norm_forward", "layer_norm_backward", "gelu", "gelu_backward", "cross_entropy_forward",
                    "cross_entropy_backward", "embedding_backward", "dropout", "linear"):  # fmt: skip
        assert ran[routine, THERE] and not ran[routine, "numpy"], routine


def train(device, folder, steps, resume=None):
    model = small_gpt("float32", dropout=0.1).to(device)
    text = "abcabdab cab dab bad cab abba " * 20
    tokenizer = CharTokenizer.train(text)
    ids = np.array(tokenizer.encode(text)) % model.config.vocab_size
    config = TrainingConfig(steps=4, batch_size=4, accumulation=2, lr=1e-2, warmup=1, evaluate_every=2)
    trainer = Trainer(model, ids[:500], ids[500:], config, tokenizer=tokenizer, folder=folder)
    if resume is not None:
        trainer.restore(resume)
    trainer.run(until=steps)
    return trainer


def losses(trainer):
    h = trainer.history
    return np.concatenate([h.loss, h.gradient_norm, h.validation_loss])


def test_the_trainer_gives_the_same_there_and_resumes_from_one_device_on_another(tmp_path, caplog):
    here, away = train("cpu", None, 4), train(THERE, None, 4)
    assert np.allclose(losses(here), losses(away), rtol=2e-5)
    assert np.ptp(here.history.loss) > 0.05
    there = away.model.state_dict()
    for name, a in here.model.state_dict().items():
        kept = slice(None)
        if name.endswith("qkv.bias"):  # a key's bias moves no probability: its gradient is noise, which Adam enlarges
            kept = np.r_[: a.size // 3, 2 * a.size // 3 : a.size]
        assert np.allclose(a[kept], there[name][kept], atol=2e-4), name
    for first, second in (("cpu", THERE), (THERE, "cpu")):
        folder = tmp_path / first
        train(first, folder, 2)
        resumed = train(second, None, 4, checkpoints.latest(folder / "checkpoints"))
        assert np.allclose(losses(resumed), losses(here), rtol=2e-5)


def test_a_trainers_step_waits_once():
    trainer = train(THERE, None, 1)
    with standin.counting() as counts:
        trainer.train_step()
        assert (counts.to_device, counts.from_device) == (2 * trainer.config.accumulation, 1)


def test_the_gradient_of_the_whole_model_checked_there():
    model = small_gpt(dropout=0.1).to(THERE)
    start = model.generator.offset
    x, y = (mt.tensor(ids, device=THERE) for ids in batch(model, 5))

    def loss(*_):
        model.generator.offset = start
        return model.loss(x, y)

    result = gradcheck(loss, *model.parameters())
    assert result.passed and "direction" in result.method


def test_every_op_is_checked_there_in_array_expressions_and_in_kernels():
    for kernel_set in ("numpy", THERE):
        rows = list(check_ops(None, [kernel_set], device=THERE))
        assert all(row.passed in (True, None) for row in rows), [row.detail for row in rows if row.passed is False]
        ran = {row.op for row in rows if row.passed}
        assert ran >= ({row.op for row in rows} if kernel_set == "numpy" else WITH_KERNELS)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_there_gives_the_same_tokens(use_cache):
    model, options = small_gpt("float32"), {"temperature": 0.8, "top_k": 5, "use_cache": use_cache}
    here = list(generate(model, [1, 2, 3], 14, **options))
    away = generate(model.to(THERE), [1, 2, 3], 14, **options)
    with standin.counting() as counts:
        assert list(away) == here and len(set(here)) > 3
        assert (counts.to_device, counts.from_device) == (14, 14)  # a token in, a row of logits out
    with pytest.raises(TypeError, match=r"KV cache|Embedding"):
        model(np.array([[1]]))


def test_the_attention_page_reads_a_model_that_lives_there():
    model, tokenizer = small_gpt("float32"), CharTokenizer.train("abcdefghijk")
    ids = tokenizer.encode("abcabd")
    here, away = inspect(model, tokenizer, ids), inspect(model.to(THERE), tokenizer, ids)
    assert isinstance(away.attention, np.ndarray) and np.allclose(here.attention, away.attention, atol=1e-5)
    for name in here.maps:
        assert np.allclose(here.maps[name], away.maps[name], atol=1e-4), name


def test_heads_can_be_switched_off_there():
    model = small_gpt("float32")
    x, y = batch(model)
    with model.without_heads([(0, 1)]):
        here = model.loss(x, y).item()
    model.to(THERE)
    x, y = mt.tensor(x, device=THERE), mt.tensor(y, device=THERE)
    with model.without_heads([(0, 1)]):
        assert model.loss(x, y).item() == pytest.approx(here, rel=1e-5)


def test_the_command_line_trains_and_writes_there(run, tmp_path):
    sizes = "--layers 1 --heads 1 --width 16 --context 16 --batch 2 --steps 2".split()
    code, out, error = run("train", "--device", THERE, "--out", tmp_path / "run", *sizes)
    assert (code, error) == (0, "") and THERE in out
    written = [run("generate", "--device", d, "--model", tmp_path / "run", "--prompt", "a") for d in (THERE, "cpu")]
    assert written[0][0] == 0 and written[0][1] == written[1][1] and len(written[0][1]) > 100
    goes_on = ([], THERE), (["--device", "cpu"], "cpu"), ([], "cpu")  # where it was, unless told
    for steps, (options, where) in enumerate(goes_on, 3):
        assert run("train", "--resume", "--out", tmp_path / "run", "--steps", steps, *options)[0] == 0
        assert checkpoints.latest(tmp_path / "run" / "checkpoints").info["about"]["device"] == where


def test_kernels_that_do_not_serve_the_device_are_refused_before_anything_is_said(run, tmp_path):
    if kernels.available()["native"]:
        pytest.skip("no native kernels")
    for command in (["train", "--out", tmp_path / "run"], ["generate"]):
        code, out, error = run(*command, "--kernels", "native", "--device", THERE)
        assert (code, out) == (2, "") and error.count("\n") == 1
        assert "--kernels native takes no array that lives on cuda-emulated: give --device cpu" in error
    assert not (tmp_path / "run").exists()
