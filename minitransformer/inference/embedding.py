"""Embeddings: what a text means, as the direction of a vector.

    model, tokenizer = mt.load("minilm")
    x = embed(model, tokenizer, ["A cat sat.", "Ein Hund."])     # (2, 384), each of length 1
    x @ x.T                                                      # cosines: how alike they are

A BERT gives a vector for every token; the mean of them, marks included, is that of the text (mean pooling).
Source: Reimers & Gurevych 2019.
"""

from __future__ import annotations

import numpy as np

from ..data import pad
from ..graph import no_grad
from ..models import BERT

__all__ = ["embed"]

TOKENS = 4096  # of a batch; more gains nothing, and its activations take memory


def embed(model: BERT, tokenizer, texts, max_tokens: int = 256, normalize: bool = True) -> np.ndarray:
    """texts (n,) -> (n, D) float32: the mean of each text's last hidden states, of length 1 unless normalize=False.

    A text is cut to max_tokens, marks included, or to the model's context if that is shorter; MiniLM was made for 256.
    Texts of like length are computed together; padding is seen by none and counted in none, so a text's vector does
    not depend on its neighbours beyond rounding. Raises TypeError for texts that are no sequence of str.
    """
    one, texts = isinstance(texts, str), list(texts)
    if one or not all(isinstance(text, str) for text in texts):
        raise TypeError("embed: texts must be a list of strings; of one text, [text]")
    most = min(max_tokens, model.config.context)
    sequences = [tokenizer.sequence(text, most=most)[0] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(sequences[i]))
    found = np.empty((len(texts), model.config.width), np.float32)
    with model.evaluating() if model.training else no_grad():
        for rows in _batches(order, sequences):
            found[rows] = _means(model, [sequences[i] for i in rows], tokenizer.pad_id)
    return found / np.linalg.norm(found, axis=1, keepdims=True) if normalize else found


def _batches(order, sequences):
    """Rows of rising length, as many as make TOKENS tokens with their padding."""
    rows = []
    for i in order:
        if rows and (len(rows) + 1) * len(sequences[i]) > TOKENS:
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows


def _means(model, sequences, pad_id):
    """(n, D): the mean over the real tokens of each sequence."""
    ids, lengths = pad(sequences, pad_id)  # (n, T), (n,)
    T = ids.shape[1]
    padded = lengths.min() < T
    x = model(ids, lengths=lengths if padded else None).numpy()  # (n, T, D)
    if not padded:
        return x.mean(axis=1)
    real = (np.arange(T) < lengths[:, None]) / lengths[:, None]  # (n, T), weights of a mean
    return np.einsum("nt,ntd->nd", real.astype(x.dtype), x)
