"""What Hugging Face's folders call the parts of BERT, GPT-2 and Llama: sizes in config.json, tensors in safetensors.

Of an architecture, three functions:

    read(get, names)    config.json (through a checking `get`) and the names in the file -> our config
    write(config)       our config -> what config.json says
    names(config)       our parameter -> the tensors that lie in it, one below the other
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models import BERT, GPT, BERTConfig, GPTConfig, Llama, LlamaConfig

__all__ = ["ARCHITECTURES", "Architecture", "Part"]


@dataclass(frozen=True)
class Part:
    """A tensor of the file that makes `rows` rows of a parameter of ours (None: all); GPT-2's lie transposed."""

    name: str
    rows: int | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Architecture:
    """prefix: of the names of all but the heads, which files of the bare model lack. ignored: endings of tensors that
    say nothing new (buffers, and tables that are tied to another)."""

    model: type
    prefix: str
    read: callable
    write: callable
    names: callable
    ignored: tuple[str, ...]


def _layer(ours, theirs, **options):
    """weight and bias of a layer."""
    return {f"{ours}.{kind}": [Part(f"{theirs}.{kind}", **options)] for kind in ("weight", "bias")}


# ---------------------------------------------------------------- BERT


def read_bert(get, names) -> BERTConfig:
    get.must("hidden_act", "gelu", default="gelu")
    get.must("position_embedding_type", "absolute", default="absolute")
    get.must("is_decoder", False, default=False)
    get.must("tie_word_embeddings", True, default=True)
    return BERTConfig(
        vocab_size=get.size("vocab_size"),
        context=get.size("max_position_embeddings"),
        layers=get.size("num_hidden_layers"),
        heads=get.size("num_attention_heads"),
        width=get.size("hidden_size"),
        hidden=get.size("intermediate_size"),
        token_types=get.size("type_vocab_size", default=2),
        eps=get.positive("layer_norm_eps", default=1e-12),
        pooler=any(name.endswith("pooler.dense.weight") for name in names),
        masked_head="cls.predictions.transform.dense.weight" in names,
        next_head="cls.seq_relationship.weight" in names,
    )


def write_bert(c: BERTConfig) -> dict:
    heads = {(True, True): "BertForPreTraining", (True, False): "BertForMaskedLM",
             (False, True): "BertForNextSentencePrediction", (False, False): "BertModel"}  # fmt: skip
    return {
        "model_type": "bert", "architectures": [heads[c.masked_head, c.next_head]], "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "hidden_size": c.width, "intermediate_size": c.hidden, "type_vocab_size": c.token_types,
        "layer_norm_eps": c.eps, "hidden_act": "gelu", "position_embedding_type": "absolute",
        "hidden_dropout_prob": c.dropout, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip


def bert_names(c: BERTConfig) -> dict[str, list[Part]]:
    names = {
        f"{ours}_embedding.weight": [Part(f"bert.embeddings.{theirs}_embeddings.weight")]
        for ours, theirs in {"token": "word", "position": "position", "type": "token_type"}.items()
    }
    names |= _layer("norm", "bert.embeddings.LayerNorm")
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}", f"bert.encoder.layer.{i}"
        for kind in ("weight", "bias"):
            names[f"{ours}.attention.qkv.{kind}"] = [
                Part(f"{theirs}.attention.self.{one}.{kind}", c.width) for one in ("query", "key", "value")
            ]
        names |= _layer(f"{ours}.attention.output", f"{theirs}.attention.output.dense")
        names |= _layer(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        names |= _layer(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense")
        names |= _layer(f"{ours}.feed_forward.down", f"{theirs}.output.dense")
        names |= _layer(f"{ours}.feed_forward_norm", f"{theirs}.output.LayerNorm")
    if c.pooler:
        names |= _layer("pooler", "bert.pooler.dense")
    if c.masked_head:
        names |= _layer("masked_head.dense", "cls.predictions.transform.dense")
        names |= _layer("masked_head.norm", "cls.predictions.transform.LayerNorm")
        names["masked_head.bias"] = [Part("cls.predictions.bias")]
    if c.next_head:
        names |= _layer("next_head", "cls.seq_relationship")
    return names


# ---------------------------------------------------------------- GPT-2


def read_gpt2(get, names) -> GPTConfig:
    width = get.size("n_embd")
    if get.config.get("n_inner") is not None:
        get.must("n_inner", 4 * width)
    if get.config.get("activation_function") != "gelu_pytorch_tanh":  # another name of the same
        get.must("activation_function", "gelu_new", default="gelu_new")
    get.must("layer_norm_epsilon", 1e-5, default=1e-5)
    for key, value in {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
                       "add_cross_attention": False, "tie_word_embeddings": True}.items():  # fmt: skip
        get.must(key, value, default=value)
    return GPTConfig(
        vocab_size=get.size("vocab_size"),
        context=get.size("n_positions"),
        layers=get.size("n_layer"),
        heads=get.size("n_head"),
        width=width,
    )


def write_gpt2(c: GPTConfig) -> dict:
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": c.vocab_size,
        "n_positions": c.context, "n_layer": c.layers, "n_head": c.heads, "n_embd": c.width,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "resid_pdrop": c.dropout,
        "embd_pdrop": c.dropout, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def gpt2_names(c: GPTConfig) -> dict[str, list[Part]]:
    names = {
        "token_embedding.weight": [Part("transformer.wte.weight")],
        "position_embedding.weight": [Part("transformer.wpe.weight")],
    }
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}", f"transformer.h.{i}"
        names |= _layer(f"{ours}.attention_norm", f"{theirs}.ln_1")
        names |= _layer(f"{ours}.feed_forward_norm", f"{theirs}.ln_2")
        for mine, other in {"attention.qkv": "attn.c_attn", "attention.output": "attn.c_proj",
                            "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}.items():  # fmt: skip
            names |= _layer(f"{ours}.{mine}", f"{theirs}.{other}", transposed=True)
    return names | _layer("norm", "transformer.ln_f")


# ---------------------------------------------------------------- Llama


def read_llama(get, names) -> LlamaConfig:
    heads, width = get.size("num_attention_heads"), get.size("hidden_size")
    get.must("hidden_act", "silu", default="silu")
    for key in ("attention_bias", "mlp_bias"):
        get.must(key, False, default=False)
    if get.config.get("head_dim") is not None:
        get.must("head_dim", width // heads)
    get.must("rope_scaling", None, default=None)
    rope = get.part("rope_parameters")  # since transformers 5; before, rope_theta stood by itself
    rope.must("rope_type", "default", default="default")
    return LlamaConfig(
        vocab_size=get.size("vocab_size"),
        context=get.size("max_position_embeddings"),
        layers=get.size("num_hidden_layers"),
        heads=heads,
        key_value_heads=get.size("num_key_value_heads", default=heads),
        width=width,
        hidden=get.size("intermediate_size"),
        eps=get.positive("rms_norm_eps", default=1e-6),
        rope_base=rope.positive("rope_theta", default=get.positive("rope_theta", default=10_000.0)),
        tied=get.boolean("tie_word_embeddings", default=False),
    )


def write_llama(c: LlamaConfig) -> dict:
    if c.rope_interleaved:
        raise ValueError("save: Hugging Face's Llama turns halves of a head; this one has rope_interleaved=True")
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.key_value_heads, "hidden_size": c.width, "intermediate_size": c.hidden,
        "rms_norm_eps": c.eps, "hidden_act": "silu", "tie_word_embeddings": c.tied, "attention_bias": False,
        "mlp_bias": False, "rope_theta": c.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_base},
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def llama_names(c: LlamaConfig) -> dict[str, list[Part]]:
    names = {"token_embedding.weight": [Part("model.embed_tokens.weight")]}
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        narrow = c.key_value_heads * c.head_width
        names |= {
            f"{ours}.attention_norm.weight": [Part(f"{theirs}.input_layernorm.weight")],
            f"{ours}.attention.qkv.weight": [
                Part(f"{theirs}.self_attn.{one}_proj.weight", rows)
                for one, rows in {"q": c.width, "k": narrow, "v": narrow}.items()
            ],
            f"{ours}.attention.output.weight": [Part(f"{theirs}.self_attn.o_proj.weight")],
            f"{ours}.feed_forward_norm.weight": [Part(f"{theirs}.post_attention_layernorm.weight")],
        }
        for one in ("gate", "up", "down"):
            names[f"{ours}.feed_forward.{one}.weight"] = [Part(f"{theirs}.mlp.{one}_proj.weight")]
    names["norm.weight"] = [Part("model.norm.weight")]
    return names if c.tied else names | {"output.weight": [Part("lm_head.weight")]}


ARCHITECTURES = {
    "bert": Architecture(
        BERT, "bert.", read_bert, write_bert, bert_names,
        (".position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    ),
    "gpt2": Architecture(GPT, "transformer.", read_gpt2, write_gpt2, gpt2_names,
                         (".attn.bias", ".attn.masked_bias", "lm_head.weight")),
    "llama": Architecture(Llama, "model.", read_llama, write_llama, llama_names, ("rotary_emb.inv_freq",)),
}  # fmt: skip
