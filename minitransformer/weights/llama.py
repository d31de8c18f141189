"""Llama in GGUF: its sizes from the metadata, and which tensors make which layer."""

from __future__ import annotations

import math

from ..models import Llama, LlamaConfig
from ..nn.initialization import later
from .gguf import GGUF, GGUFError

__all__ = ["llama_from_gguf"]

SIZES = {  # of LlamaConfig -> key below "llama."
    "context": "context_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "width": "embedding_length",
    "hidden": "feed_forward_length",
}
BLOCK = {  # a layer of ours -> the tensors that lie in it, one below the other
    "attention_norm": ["attn_norm"],
    "attention.qkv": ["attn_q", "attn_k", "attn_v"],
    "attention.output": ["attn_output"],
    "feed_forward_norm": ["ffn_norm"],
    "feed_forward.gate": ["ffn_gate"],
    "feed_forward.up": ["ffn_up"],
    "feed_forward.down": ["ffn_down"],
}


def llama_from_gguf(file: GGUF) -> tuple[Llama, dict[str, list[str]]]:
    """A Llama of the sizes that the file states, still without numbers, and layer -> names of its tensors in the file.

    The architecture "llama" of GGUF has interleaved RoPE: its makers permute queries and keys for that.
    Raises GGUFError for a key that is missing or of another kind, ValueError for sizes that make no model.
    """
    sizes = {ours: _number(file, key) for ours, key in SIZES.items()}
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise GGUFError(f"{file.path}: tensor 'token_embd.weight' is missing, or no table (vocabulary, width)")
    if sizes["layers"] * len(BLOCK) > len(file.tensors):
        raise GGUFError(
            f"{file.path}: metadata 'llama.block_count' is {sizes['layers']}, too many for {len(file.tensors)} tensors"
        )
    head_width = sizes["width"] // sizes["heads"] if sizes["heads"] else 0
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if _number(file, key, default=head_width) != head_width:
            raise GGUFError(f"{file.path}: metadata 'llama.{key}' must be width / heads = {head_width} to be read")
    asked = {key: file.metadata.get(key) for key in ("llama.rope.scaling.type", "llama.expert_count")}
    unread = [f"metadata {key!r}" for key, value in asked.items() if value not in (None, "none", 0)]
    unread += ["tensor 'rope_freqs.weight'"] if "rope_freqs.weight" in file.tensors else []
    if unread:
        raise GGUFError(f"{file.path}: {unread[0]} asks for what this Llama does not have")
    config = LlamaConfig(
        vocab_size=table.shape[0],
        **sizes,
        key_value_heads=_number(file, "attention.head_count_kv", default=sizes["heads"]),
        eps=_number(file, "attention.layer_norm_rms_epsilon", kind=float, default=1e-5),
        rope_base=_number(file, "rope.freq_base", kind=float, default=10_000.0),
        rope_interleaved=True,
        tied="output.weight" not in file.tensors,
    )
    names = {"token_embedding": ["token_embd"], "norm": ["output_norm"]}
    if not config.tied:
        names["output"] = ["output"]
    for i in range(config.layers):
        names |= {f"blocks.{i}.{layer}": [f"blk.{i}.{name}" for name in of] for layer, of in BLOCK.items()}
    missing = [f"{n}.weight" for of in names.values() for n in of if f"{n}.weight" not in file.tensors]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise GGUFError(f"{file.path}: tensor {missing[0]!r} is missing{more}")
    return Llama(config, init=later), {layer: [f"{name}.weight" for name in of] for layer, of in names.items()}


def _number(file, key, kind=int, default=None):
    """A number of the metadata. A size is an integer, at most 2**31."""
    value = file.metadata.get(f"llama.{key}", default)
    if value is None:
        raise GGUFError(f"{file.path}: metadata 'llama.{key}' is missing")
    if type(value) is not kind or not (0 < value <= 2**31 if kind is int else 0 < value < math.inf):
        raise GGUFError(f"{file.path}: metadata 'llama.{key}' must be a positive {kind.__name__}, got {value!r}")
    return value
