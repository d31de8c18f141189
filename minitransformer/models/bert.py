"""BERT: read a whole text at once, and say what stands in its gaps.

    model = BERT(BERTConfig(vocab_size=1000, context=64, layers=4, heads=4, width=128, hidden=512))
    loss = model.loss(ids, targets)          # (B, T) integers each; a target is -100 where nothing was hidden

What differs from GPT:

    causal attention   ->  every token sees every other: good for understanding, useless for writing
    the next token     ->  tokens that were hidden, guessed from both sides; and whether two texts follow each other
    pre-norm           ->  post-norm, the order of the first transformer: x <- norm(x + f(x))
    one sum            ->  token + position + token type (0 first text, 1 second), and that sum is normalised

As in GPT, dropout on the attention probabilities is left out.
Source: Devlin et al. 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import kernels
from ..graph import is_grad_enabled, xp
from ..nn import Dropout, Embedding, FeedForward, LayerNorm, Linear, Module, MultiHeadAttention, Parameter, Recording
from ..nn.initialization import normal, zeros
from ..nn.module import check_fraction, check_size
from ..ops.activation import gelu, tanh
from ..ops.attention import key_spans
from ..ops.cross_entropy import cross_entropy
from ..random import Generator
from ..tensor import Tensor, as_tensor, plain

__all__ = ["BERT", "BERTConfig"]

IGNORED = -100  # a target that is not asked for


@dataclass(frozen=True)
class BERTConfig:
    """The sizes of a BERT; those of BERT-base are (30522, 512, 12, 12, 768, 3072).

    vocab_size V; context, the longest sequence; layers L; heads H; width D; hidden, the neurons of a feed-forward
    layer; token_types, kinds of texts in one sequence; dropout in [0, 1), while training; eps of the norms.
    Its heads, where a file may lack some: pooler; masked_head; next_head, which needs the pooler.
    Raises ValueError, in one line, for sizes that make no model.
    """

    vocab_size: int
    context: int = 512
    layers: int = 4
    heads: int = 4
    width: int = 128
    hidden: int = 512
    token_types: int = 2
    dropout: float = 0.0
    eps: float = 1e-12
    pooler: bool = True
    masked_head: bool = True
    next_head: bool = True

    def __post_init__(self):
        names = ("vocab_size", "context", "layers", "heads", "width", "hidden", "token_types")
        check_size("BERT", **{name: getattr(self, name) for name in names})
        check_fraction("BERT", dropout=self.dropout)
        if self.width % self.heads:
            raise ValueError(f"BERT: {self.heads} heads do not divide the width {self.width}")
        if self.next_head and not self.pooler:
            raise ValueError("BERT: next_head reads what the pooler makes; it needs pooler=True")


class BERTBlock(Module):
    """Post-norm: x <- norm₁(x + attention x),   x <- norm₂(x + feed_forward x):   x (B, T, D) -> (B, T, D)."""

    def __init__(self, config: BERTConfig, *, generator: Generator, init):
        c, options = config, {"generator": generator, "init": init}
        self.attention = MultiHeadAttention(c.width, c.heads, causal=False, **options)
        self.attention_norm = LayerNorm(c.width, c.eps)
        self.feed_forward = FeedForward(c.width, c.hidden, approximate="none", **options)
        self.feed_forward_norm = LayerNorm(c.width, c.eps)
        self.dropout = Dropout(c.dropout, generator)

    def forward(self, x, lengths=None, capture=False):
        """x (B, T, D) -> (B, T, D), or with `capture` (that, attention probabilities (B, H, T, T))."""
        attention = self.attention
        if not (is_grad_enabled() or capture or attention.head_mask is not None or (self.training and self.dropout.p)):
            return Tensor.wrap(self._on_arrays(x.data, lengths))
        y = attention(x, capture=capture, lengths=lengths)
        y, probabilities = y if capture else (y, None)
        x = self.attention_norm(x + self.dropout(y))
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return (x, probabilities) if capture else x

    def _on_arrays(self, x, lengths):
        """The same kernel by kernel, bit for bit: where nobody differentiates, and for one sentence the engine around
        an op takes as long as what it does."""
        attention, feed_forward, (B, T, D) = self.attention, self.feed_forward, x.shape
        heads = _product(attention.qkv, x).reshape(B, T, 3 * attention.heads, -1).swapaxes(1, 2)
        q, k, v = (heads[:, i * attention.heads : (i + 1) * attention.heads] for i in range(3))
        spans = {} if lengths is None else {"spans": key_spans(q, k, lengths)}
        o = kernels.attention_forward(q, k, v, scale=1.0 / math.sqrt(attention.head_width), **spans)[0]
        y = _product(attention.output, o.swapaxes(1, 2).reshape(B, T, D))
        x = _normalised(self.attention_norm, x + y)
        y = _product(feed_forward.down, kernels.gelu(_product(feed_forward.up, x), feed_forward.approximate))
        return _normalised(self.feed_forward_norm, x + y)


def _product(layer, x):
    return kernels.linear(x, layer.weight.data, layer.bias.data)


def _normalised(norm, x):
    return kernels.layer_norm_forward(x, norm.weight.data, norm.bias.data, norm.eps)[0]


class BERT(Module):
    """ids (B, T) -> the stream x (B, T, D): what each token means in its text.

    generator: draws the initial weights, then the dropout masks; `Generator(0)` unless given. init: in place of the
    normal start, e.g. `initialization.later` where the weights come from a file.
    """

    def __init__(self, config: BERTConfig, generator: Generator | None = None, init=None):
        c, init = config, init or partial(normal, std=0.02)
        self.config, self.generator = c, Generator(0) if generator is None else generator
        options = {"generator": self.generator, "init": init}
        self.token_embedding = Embedding(c.vocab_size, c.width, **options)
        self.position_embedding = Embedding(c.context, c.width, **options)
        self.type_embedding = Embedding(c.token_types, c.width, **options)
        self.norm = LayerNorm(c.width, c.eps)
        self.dropout = Dropout(c.dropout, self.generator)
        self.blocks = [BERTBlock(c, **options) for _ in range(c.layers)]
        self.pooler = Linear(c.width, c.width, **options) if c.pooler else None
        self.masked_head = MaskedHead(c, **options) if c.masked_head else None
        self.next_head = Linear(c.width, 2, **options) if c.next_head else None

    def forward(self, ids, token_types=None, lengths=None, capture_attention: bool = False):
        """ids (B, T) integers -> x (B, T, D). token_types (B, T): 0 unless given. lengths (B,): how many tokens of each
        row are real; no token sees those behind, so they may be anything.

        capture_attention: return (x, [one array (B, H, T, T) of probabilities for each layer]); a `Recording` in place
        of True is filled with these, the heads' values and outputs, and the stream between the blocks.
        Raises ValueError where ids are not (B, T), too many for the context or not of the shape of their types,
        IndexError for an id outside 0..V-1.
        """
        ids = as_tensor(ids)
        self._check(ids, token_types)
        x = self.embed(ids, token_types)  # (B, T, D)
        attentions, recording = [], capture_attention if isinstance(capture_attention, Recording) else None
        if recording:
            recording.streams.append(x)
        for block in self.blocks:
            if not capture_attention:
                x = block(x, lengths)
                continue
            x, probabilities = block(x, lengths, capture_attention)
            attentions.append(probabilities)
            if recording:
                recording.streams.append(x)
        return (x, attentions) if capture_attention else x

    def embed(self, ids, token_types=None) -> Tensor:
        """ids (B, T) -> (B, T, D): token, position and type, normalised."""
        np = xp(ids.data)
        types = np.zeros((1, 1), np.int64) if token_types is None else token_types
        positions = self.position_embedding(np.arange(ids.shape[1]))
        return self.dropout(self.norm(self.token_embedding(ids) + positions + self.type_embedding(types)))

    # ------------------------------------------------------------ heads

    def pooled(self, x) -> Tensor:
        """x (B, T, D) -> tanh(W x₀ + b) (B, D), of the first token, [CLS], which stands for the whole."""
        return tanh(self._head("pooler")(x[:, 0]))

    def masked_logits(self, x) -> Tensor:
        """x (..., D) -> (..., V): at every position the scores of the token that stands there."""
        return self._head("masked_head")(x, self.token_embedding)

    def next_logits(self, x) -> Tensor:
        """x (B, T, D) -> (B, 2): the scores of "the second text follows the first" (0), and of "it does not" (1)."""
        return self._head("next_head")(self.pooled(x))

    def loss(self, ids, targets, token_types=None, lengths=None, is_random=None) -> Tensor:
        """Mean cross-entropy, in nats, of the hidden tokens: targets (B, T), -100 where none was hidden; and, where
        is_random (B,) says 1 for second texts that do not follow the first, that of the next-sentence head."""
        x, targets = self(ids, token_types, lengths), np.asarray(plain(targets))
        if targets.shape != x.shape[:2] or targets.dtype.kind not in "iu":
            raise ValueError(f"BERT: targets must be integers {x.shape[:2]}, got {targets.dtype} of {targets.shape}")
        asked = np.nonzero(targets != IGNORED)  # a seventh of the positions: only these need V scores
        if not asked[0].size:
            raise ValueError(f"BERT: every target is {IGNORED}: hide at least one token")
        loss = cross_entropy(self.masked_logits(x[asked]), targets[asked])
        return loss if is_random is None else loss + cross_entropy(self.next_logits(x), is_random)

    # ------------------------------------------------------------ around it

    def _head(self, name):
        head = getattr(self, name)
        if head is None:
            raise ValueError(f"BERT: this model has no {name}; make it with BERTConfig({name}=True)")
        return head

    def _check(self, ids, token_types):
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] == 0:
            raise ValueError(f"BERT: ids must be integers (B, T) with T > 0, got {ids.dtype} of shape {ids.shape}")
        if ids.shape[1] > self.config.context:
            raise ValueError(f"BERT: {ids.shape[1]} tokens are more than the context of {self.config.context}")
        if token_types is not None and as_tensor(token_types).shape != ids.shape:
            raise ValueError(f"BERT: token_types must be of shape {ids.shape}, got {as_tensor(token_types).shape}")

    def extra_repr(self):
        return f"{self.parameter_count():,} parameters, context={self.config.context}"


class MaskedHead(Module):
    """x (..., D) -> norm(GELU(W x + b)) tableᵀ + bias (..., V); the table is that of the tokens."""

    def __init__(self, config: BERTConfig, *, generator: Generator, init):
        self.dense = Linear(config.width, config.width, generator=generator, init=init)
        self.norm = LayerNorm(config.width, config.eps)
        self.bias = Parameter(zeros(config.vocab_size))

    def forward(self, x, table: Embedding):
        return table.scores(self.norm(gelu(self.dense(x)))) + self.bias
