"""SmolLM2 in plain NumPy and float64, from the numbers that the file's blocks stand for: what the exact path must say.

    python -m tests.weights.greedy_tokens            # 20 prompts, 200 tokens each, and what 8-bit activations cost

Nothing of the package takes part but the reader and the decoding of blocks. One forward pass over a whole text checks
all of its greedy tokens: if each is the likeliest after those before it, they are the greedy continuation.
"""

from __future__ import annotations

import pydoc_data.topics
import sys

import numpy as np

from minitransformer import Generator
from minitransformer.inference import generate
from minitransformer.weights import CATALOGUE, load, open_gguf
from minitransformer.weights.download import kept

PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child.",
    "List three prime numbers and say why they are prime.",
    "def fibonacci(n):",
    "Translate 'good morning' into Spanish.",
    "Why is the sky blue?",
    "Tell me a short story about a dragon who could not fly.",
    "What is 17 + 25?",
    "Give me a recipe for pancakes.",
    "Who wrote Hamlet, and when?",
    "Summarize the theory of relativity in two sentences.",
    "How do I sort a list in Python?",
    "你好，你是谁？",
    "What should I pack for a week in Norway in winter?",
    "Describe the water cycle.",
    "What is the difference between a virus and a bacterium?",
    "Write an email asking for a day off.",
    "Name the planets in order from the Sun. 🪐",
    "Complete: The quick brown fox",
]


class Float64Llama:
    """logits(ids (T,)) -> (T, V), every product in float64."""

    def __init__(self, path):
        file = open_gguf(path)
        number = {key.removeprefix("llama."): value for key, value in file.metadata.items()}
        self.layers, self.heads = number["block_count"], number["attention.head_count"]
        self.groups, self.base = number["attention.head_count_kv"], number["rope.freq_base"]
        self.eps = number["attention.layer_norm_rms_epsilon"]
        self.weights = {
            name: (file.array(name) if t.type == "F32" else file.weight(name).dequantize(np.float64)).astype(np.float64)
            for name, t in file.tensors.items()
        }

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[f"{name}.weight"]

    def attend(self, x, block):
        T, d = len(x), x.shape[1] // self.heads
        q, k, v = (
            (x @ self.weights[f"{block}.attn_{part}.weight"].T).reshape(T, -1, d).swapaxes(0, 1) for part in "qkv"
        )
        angle = np.exp(1j * np.outer(np.arange(T), self.base ** (-np.arange(0, d, 2) / d)))  # pairs as complex numbers
        q, k = ((np.ascontiguousarray(a).view(np.complex128) * angle).view(np.float64) for a in (q, k))
        k, v = (np.repeat(a, self.heads // self.groups, axis=0) for a in (k, v))
        scores = q @ k.swapaxes(1, 2) / np.sqrt(d) + np.triu(np.full((T, T), -np.inf), 1)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        o = (p / p.sum(-1, keepdims=True)) @ v
        return o.swapaxes(0, 1).reshape(T, -1) @ self.weights[f"{block}.attn_output.weight"].T

    def transform(self, x, block):
        gate, up = (x @ self.weights[f"{block}.ffn_{part}.weight"].T for part in ("gate", "up"))
        return (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{block}.ffn_down.weight"].T

    def logits(self, ids):
        x = self.weights["token_embd.weight"][np.asarray(ids)]
        for i in range(self.layers):
            x = x + self.attend(self.norm(x, f"blk.{i}.attn_norm"), f"blk.{i}")
            x = x + self.transform(self.norm(x, f"blk.{i}.ffn_norm"), f"blk.{i}")
        return self.norm(x, "output_norm") @ self.weights["token_embd.weight"].T


def greedy(model, tokenizer, prompt, count):
    """(ids of the prompt in its template, `count` greedy tokens): the end of a turn is a token like any other here."""
    ids = tokenizer.chat.render(tokenizer, [{"role": "user", "content": prompt}])
    return ids, list(generate(model, ids, count, temperature=0.0, cache=model.new_cache(), generator=Generator(0)))


def first_difference(reference, ids, tokens):
    """(None, smallest margin) where all tokens are greedy; else the first that is not, and how far it is from that."""
    logits = reference.logits(ids + tokens)[len(ids) - 1 : -1]
    chosen = np.take_along_axis(logits, np.array(tokens)[:, None], 1)[:, 0]
    wrong = np.flatnonzero(chosen < logits.max(1))
    if len(wrong):
        return int(wrong[0]), float(logits[wrong[0]].max() - chosen[wrong[0]])
    second = np.partition(logits, -2, axis=1)[:, -2]
    return None, float((chosen - second).min())


def log_probabilities(logits, targets):
    """ln p of each target (T,) under logits (T, V)."""
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(1, keepdims=True)
    return np.take_along_axis(logits, np.asarray(targets)[:, None], 1)[:, 0] - np.log(np.exp(logits).sum(1))


def main(prompts=20, count=200):
    path = kept(CATALOGUE["smollm2"])
    if path is None:
        sys.exit("SmolLM2 is not here: `minitransformer models smollm2` gets it")
    reference = Float64Llama(path)
    exact, tokenizer = load(path)
    fast, _ = load(path, inputs="int8")
    equal = 0
    for prompt in PROMPTS[:prompts]:
        ids, tokens = greedy(exact, tokenizer, prompt, count)
        at, margin = first_difference(reference, ids, tokens)
        equal += at is None
        said = f"equal, smallest margin {margin:.1e}" if at is None else f"differs at {at}, by {margin:.1e}"
        rounded = greedy(fast, tokenizer, prompt, count)[1]
        fast_at = next((i for i, (a, b) in enumerate(zip(tokens, rounded)) if a != b), "none")
        print(f"{prompt[:40]:<40} exact: {said}; int8: first difference {fast_at}", flush=True)
    print(f"exact path: {equal} of {prompts} prompts equal for {count} tokens")

    ids = tokenizer.encode(pydoc_data.topics.topics["assignment"])[:512]
    p = log_probabilities(reference.logits(ids[:-1]), ids[1:])
    print(f"perplexity of {len(p)} tokens of English: float64 {np.exp(-p.mean()):.4f}")
    for name, model in (("exact path", exact), ("int8 activations", fast)):
        with model.evaluating():
            mine = log_probabilities(model(np.array([ids[:-1]])).numpy()[0], ids[1:])
        difference = np.abs(mine - p)
        print(
            f"  {name}: {np.exp(-mine.mean()):.4f}, |Δ ln p| mean {difference.mean():.1e}, max {difference.max():.1e}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
