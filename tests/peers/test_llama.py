"""Our Llama beside the one of `transformers`, with the same random weights, in both directions.

The weights are small enough that float32 itself is good for 1e-4 (at twice their size rounding alone makes 1.4e-4), and
large enough that attention is far from uniform."""

import numpy as np
import pytest

from minitransformer import Generator
from minitransformer.models import Llama, LlamaConfig

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `python start.py peers` installs and runs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed in this environment")
pytestmark = pytest.mark.peers

BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
SIZES = [
    {"heads": 4, "key_value_heads": 2, "tied": True},
    {"heads": 3, "key_value_heads": 1, "tied": False, "width": 48, "rope_base": 100_000.0},
    {"heads": 2, "key_value_heads": 2, "tied": False, "eps": 1e-3},
]


def theirs_of(config):
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.width, intermediate_size=config.hidden,
            num_hidden_layers=config.layers, num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads, max_position_embeddings=config.context,
            rms_norm_eps=config.eps, rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=config.tied, attn_implementation="eager", initializer_range=0.15,
        )
    )  # fmt: skip
    return made.float().eval()


def their_names(config):
    """our name -> theirs; the three maps of the attention are one matrix of ours."""
    names = {"token_embedding.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
    if not config.tied:
        names["output.weight"] = ["lm_head.weight"]
    for i in range(config.layers):
        names |= {f"blocks.{i}.{ours}": [f"model.layers.{i}.{theirs}"] for ours, theirs in BLOCK.items()}
        names[f"blocks.{i}.attention.qkv.weight"] = [f"model.layers.{i}.self_attn.{p}_proj.weight" for p in "qkv"]
    return names


def agree(mine, theirs, config):
    ids = Generator(3).integers(0, config.vocab_size, (2, config.context))
    with mine.evaluating(), torch.no_grad():
        a, b = mine(ids).numpy(), theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(b).max() > 1
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sizes", SIZES)
def test_logits_with_their_weights_in_ours_and_ours_in_theirs(sizes):
    config = LlamaConfig(**{"vocab_size": 50, "context": 40, "layers": 3, "width": 64, "hidden": 96, **sizes})
    mine, theirs = Llama(config, Generator(0)), theirs_of(config)
    state, names = theirs.state_dict(), their_names(config)
    mine.load_state_dict({ours: np.concatenate([state[n].numpy() for n in of]) for ours, of in names.items()})
    agree(mine, theirs, config)

    for i, parameter in enumerate(mine.parameters()):
        parameter.data += Generator(i).normal(parameter.shape, std=0.05)
    given, G = {}, config.key_value_heads * config.head_width
    for ours, of in names.items():
        array = mine.state_dict()[ours]
        cuts = [config.width, config.width + G] if len(of) == 3 else []
        given |= {n: torch.tensor(part) for n, part in zip(of, np.split(array, cuts))}
    missing, unexpected = theirs.load_state_dict(given, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    agree(mine, theirs, config)
