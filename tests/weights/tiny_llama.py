"""A GGUF of a Llama with random weights and a small tokenizer: everything that a real file has, in 100 kB."""

import numpy as np

from minitransformer.data.tokenizers.byte_letters import to_letters
from minitransformer.kernels.quantized_weight import QuantizedWeight

from . import gguf_file as made

TYPE_IDS = {"float16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 8, "bfloat16": 30}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "e r", "i n", "u s", "us er"]
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "Be kind<|im_end|>\n' }}{% endif %}…"
)
WIDTH, HIDDEN, HEADS, GROUPS, LAYERS, CONTEXT = 64, 96, 4, 2, 2, 200


def tokens():
    """Special tokens first, then the bytes in an order of their own, then what the merges make."""
    letters = sorted(to_letters(bytes([byte])) for byte in range(256))
    return [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in MERGES)]


def metadata():
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": GROUPS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 100.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens(),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (256 + len(MERGES)),
        "tokenizer.chat_template": TEMPLATE,
    }


def shapes(tied=True):
    V, kv = len(tokens()), WIDTH // HEADS * GROUPS
    named = {"token_embd.weight": (V, WIDTH), "output_norm.weight": (WIDTH,)}
    if not tied:
        named["output.weight"] = (V, WIDTH)
    for i in range(LAYERS):
        named |= {
            f"blk.{i}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (kv, WIDTH), "attn_v": (kv, WIDTH),
                "attn_output": (WIDTH, WIDTH), "ffn_norm": (WIDTH,), "ffn_gate": (HIDDEN, WIDTH),
                "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN),
            }.items()
        }  # fmt: skip
    return named


def weights(format="q4_1", tied=True, formats=()):
    """name -> (type id, shape, bytes), and name -> the numbers that they stand for."""
    draw, stored, numbers = np.random.default_rng(0), {}, {}
    for name, shape in shapes(tied).items():
        w = draw.normal(size=shape).astype(np.float32) * (0.3 if len(shape) == 2 else 0.1) + (len(shape) == 1)
        kind = dict(formats).get(name, format)
        if len(shape) == 1 or kind == "float32":
            stored[name], numbers[name] = made.float32(w), w
        else:
            weight = QuantizedWeight.quantize(w, kind)
            stored[name], numbers[name] = (TYPE_IDS[kind], shape, weight.data.tobytes()), weight.dequantize()
    return stored, numbers


def write(path, format="q4_1", tied=True, formats=(), without=(), change=None, entries=None):
    """A file; without: keys or tensors left out; change: {tensor: (type id, shape, bytes)}; entries: other metadata."""
    stored, _ = weights(format, tied, formats)
    meta = {**metadata(), **(entries or {})}
    meta = {key: value for key, value in meta.items() if key not in without}
    stored = {name: (change or {}).get(name, tensor) for name, tensor in stored.items() if name not in without}
    return made.write(path, meta, stored)
