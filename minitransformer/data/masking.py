"""Batches for masked language modelling: hide some tokens, and ask what stood there.

    ids      the cat  sat on the mat        15 % of the tokens are asked for; of these
    inputs   the [M]  sat on dog mat            80 % become [MASK],
    targets   -  cat   -  -  the  -             10 % another token, drawn evenly,
                                                10 % stay as they are

Were all of them [MASK], a model would learn nothing about tokens that are there, and later texts have no [MASK]: so it
can never trust what it sees, and keeps a meaning for every token.
Source: Devlin et al. 2019, §3.1 and appendix C.2.
"""

from __future__ import annotations

import numpy as np

__all__ = ["hide_tokens", "pad"]

IGNORED = -100  # what `BERT.loss` and `cross_entropy` do not ask for
MASKED, REPLACED = 0.8, 0.1  # shares of the hidden tokens; the rest stays


def hide_tokens(ids, tokenizer, generator, share: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """ids (B, T) -> (inputs, targets), both (B, T) int64; a target is the token where it is asked for, else -100.

    Every token is chosen by itself with probability `share`; special tokens, padding among them, never are, and none
    is put in place of another. A batch that no token is chosen of gets one. Raises ValueError for a share outside
    (0, 1], or ids without a token that may be hidden.
    """
    ids = np.array(ids, np.int64)
    if not 0 < share <= 1:
        raise ValueError(f"hide_tokens: share must be above 0 and at most 1, got {share}")
    special = np.array(sorted(tokenizer.special_ids.values()))
    ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), special)
    may = ~np.isin(ids, special)
    if not may.any():
        raise ValueError("hide_tokens: these ids hold nothing but special tokens")
    chosen = may & (generator.uniform(ids.shape) < share)
    if not chosen.any():
        places = np.flatnonzero(may)
        chosen.flat[places[int(generator.integers(0, len(places), (1,))[0])]] = True
    fate, others = generator.uniform(ids.shape), ordinary[generator.integers(0, len(ordinary), ids.shape)]
    inputs = np.where(chosen & (fate < MASKED), tokenizer.mask_id, ids)
    inputs = np.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), others, inputs)
    return inputs, np.where(chosen, ids, IGNORED)


def pad(sequences, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists of ids -> (ids (B, T), lengths (B,)): T is that of the longest; `pad_id` stands behind the others."""
    lengths = np.array([len(ids) for ids in sequences], np.int64)
    padded = np.full((len(lengths), lengths.max(initial=0)), pad_id, np.int64)
    for row, ids in zip(padded, sequences):
        row[: len(ids)] = ids
    return padded, lengths
