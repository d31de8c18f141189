"""Their models in ours and ours in theirs, through the files: the same logits."""

import numpy as np
import pytest

from minitransformer import Generator, load, no_grad
from minitransformer.data import WordPieceTokenizer, default_corpus
from minitransformer.models import BERT, GPT, BERTConfig, GPTConfig, Llama, LlamaConfig
from minitransformer.weights import save_folder

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `python start.py peers` installs and runs it")
transformers = pytest.importorskip("transformers", reason="`python start.py peers` installs it")
pytestmark = pytest.mark.peers

V, T, D, L = 37, 24, 32, 3
IDS = Generator(0).integers(0, V, (3, 20))
TYPES = Generator(1).integers(0, 2, (3, 20))
LENGTHS = np.array([20, 13, 1])
REAL = np.arange(20) < LENGTHS[:, None]

BERT_SIZES = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": L, "num_attention_heads": 4,
              "intermediate_size": 48, "max_position_embeddings": T}  # fmt: skip
THEIRS = {
    "BertModel": lambda: transformers.BertConfig(**BERT_SIZES),
    "BertForPreTraining": lambda: transformers.BertConfig(**BERT_SIZES),
    "BertForMaskedLM": lambda: transformers.BertConfig(**BERT_SIZES),
    "GPT2LMHeadModel": lambda: transformers.GPT2Config(
        vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=4, bos_token_id=None, eos_token_id=None
    ),
    "LlamaForCausalLM": lambda: transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=48, num_hidden_layers=L, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=T, tie_word_embeddings=False, rope_theta=500.0,
    ),
}  # fmt: skip
OURS = {
    "BertForPreTraining": lambda: BERT(BERTConfig(V, T, L, 4, D, 48)),
    "BertForMaskedLM": lambda: BERT(BERTConfig(V, T, L, 4, D, 48, pooler=False, next_head=False)),
    "BertModel": lambda: BERT(BERTConfig(V, T, L, 4, D, 48, masked_head=False, next_head=False)),
    "GPT2LMHeadModel": lambda: GPT(GPTConfig(V, T, L, 4, D)),
    "LlamaForCausalLM": lambda: Llama(LlamaConfig(V, T, L, 4, 2, D, 48, rope_base=500.0)),
}


def compare(ours, theirs):
    """Every output that both have, at the real tokens, within 1e-4 of its size."""
    theirs.eval()
    ids = torch.tensor(IDS)
    with torch.no_grad(), no_grad():
        if isinstance(ours, BERT):
            mask = {"attention_mask": torch.tensor(REAL.astype(np.int64)), "token_type_ids": torch.tensor(TYPES)}
            found, x = theirs(ids, **mask), ours(IDS, TYPES, LENGTHS)
            outputs = {
                "last_hidden_state": lambda: x.numpy()[REAL],
                "pooler_output": lambda: ours.pooled(x).numpy(),
                "prediction_logits": lambda: ours.masked_logits(x).numpy()[REAL],
                "logits": lambda: ours.masked_logits(x).numpy()[REAL],
                "seq_relationship_logits": lambda: ours.next_logits(x).numpy(),
            }
        else:
            found, outputs = theirs(ids), {"logits": lambda: ours(IDS).numpy()[REAL]}
    compared = 0
    for name, value in outputs.items():
        if getattr(found, name, None) is not None:
            expected = getattr(found, name).numpy()
            expected = expected[REAL] if expected.ndim == 3 else expected
            with no_grad():
                assert np.abs(value() - expected).max() <= 1e-4 * max(1, np.abs(expected).max()), name
            assert expected.std() > 1e-3
            compared += 1
    assert compared


def shaken(parameters):
    """Far enough from the start that attention is not uniform and no bias is 0."""
    noise = Generator(3)
    for p in parameters:
        p.data += (
            torch.tensor(noise.normal(tuple(p.shape), std=0.2))
            if torch.is_tensor(p)
            else noise.normal(p.shape, std=0.2)
        )


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize("name", THEIRS)
def test_their_weights_in_our_model(name, shard, tmp_path):
    theirs = getattr(transformers, name)(THEIRS[name]())
    shaken(theirs.parameters())
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    ours, tokenizer = load(tmp_path)
    assert tokenizer is None
    compare(ours, theirs)


@pytest.mark.parametrize("name", OURS)
def test_our_weights_in_their_model(name, tmp_path):
    ours = OURS[name]()
    shaken(ours.parameters())
    save_folder(ours, tmp_path)
    theirs, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    compare(ours, theirs)
    again, _ = load(tmp_path)
    state = ours.state_dict()
    assert all(np.array_equal(state[key], value) for key, value in again.state_dict().items())


@pytest.mark.parametrize("lowercase", [True, False])
def test_our_tokenizer_in_theirs(lowercase, tmp_path):
    tokenizer = WordPieceTokenizer.train(default_corpus()[:20_000], 500, lowercase)
    sizes = BERTConfig(tokenizer.vocab_size, T, 1, 4, D, 48)
    save_folder(BERT(sizes), tmp_path, tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "The Cat, élan 你好 unbelievable!"
    assert theirs(text)["input_ids"] == tokenizer.sequence(text)[0]
    assert load(tmp_path)[1] == tokenizer


@pytest.mark.parametrize("rule", ["gpt2", "smollm"])
def test_their_byte_pair_tokenizer_in_ours(rule, tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    theirs.pre_tokenizer, theirs.decoder = (digits if rule == "smollm" else level), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    theirs.train_from_iterator([default_corpus()[:30_000]], trainer)
    save_folder(GPT(GPTConfig(theirs.get_vocab_size(), T, 1, 2, 8)), tmp_path)
    theirs.save(str(tmp_path / "tokenizer.json"))
    _, ours = load(tmp_path)
    theirs.encode_special_tokens = True
    for text in (default_corpus()[30_000:60_000], "你好 🙂 12345, don't  x\n\n<|endoftext|>"):
        assert ours.encode(text) == theirs.encode(text).ids and ours.decode(ours.encode(text)) == text
    assert ours.special_ids == {"<|endoftext|>": 0}
