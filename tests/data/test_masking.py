"""Masked language modelling: the shares that the paper states, and what is never hidden."""

import numpy as np
import pytest

from minitransformer import Generator
from minitransformer.data import WordPieceTokenizer, default_corpus, hide_tokens, pad
from minitransformer.models import BERT, BERTConfig
from minitransformer.optim import AdamW

TOKENIZER = WordPieceTokenizer.train(default_corpus()[:20_000], 400)
SPECIAL = list(TOKENIZER.special_ids.values())


def within(count, n, p):
    """A count of n draws of probability p lies within five standard deviations."""
    assert abs(count - n * p) < 5 * np.sqrt(n * p * (1 - p)), (count / n, p)


def test_the_shares():
    ids = Generator(0).integers(0, TOKENIZER.vocab_size, (400, 256))
    inputs, targets = hide_tokens(ids, TOKENIZER, Generator(1))
    may, asked = ~np.isin(ids, SPECIAL), targets != -100
    within(asked.sum(), may.sum(), 0.15)
    n = asked.sum()
    masked, same = asked & (inputs == TOKENIZER.mask_id), asked & (inputs == ids)
    ordinary = TOKENIZER.vocab_size - len(SPECIAL)
    within(masked.sum(), n, 0.8)
    within(same.sum(), n, 0.1 + 0.1 / ordinary)  # a token that is drawn may be the one that stood there
    within((asked & ~masked & ~same).sum(), n, 0.1 - 0.1 / ordinary)
    assert not (asked & ~may).any() and np.array_equal(targets[asked], ids[asked])
    assert np.array_equal(inputs[~asked], ids[~asked])
    drawn = np.bincount(inputs[asked & ~masked & ~same], minlength=TOKENIZER.vocab_size)
    assert not drawn[SPECIAL].any() and (drawn > 0).sum() > 0.9 * ordinary, "any ordinary token, no special one"


def test_one_seed_one_batch_and_at_least_one_token():
    ids = np.array([[TOKENIZER.start_id, 7, 8, TOKENIZER.end_id, TOKENIZER.pad_id]])
    places = set()
    for seed in range(40):
        first, second = (hide_tokens(ids, TOKENIZER, Generator(seed), 1e-9) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(first, second))
        assert (first[1] != -100).sum() == 1
        places.add(int(np.flatnonzero(first[1] != -100)[0]))
    assert places == {1, 2}
    assert (hide_tokens(ids, TOKENIZER, Generator(0), 1.0)[1] != -100).tolist() == [[False, True, True, False, False]]
    assert ids.tolist() == [[TOKENIZER.start_id, 7, 8, TOKENIZER.end_id, TOKENIZER.pad_id]]


def test_what_cannot_be_hidden():
    for share in (0, -1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share must be above 0"):
            hide_tokens([[7]], TOKENIZER, Generator(0), share)
    with pytest.raises(ValueError, match="nothing but special tokens"):
        hide_tokens([[TOKENIZER.start_id, TOKENIZER.end_id]], TOKENIZER, Generator(0))


def test_padding():
    ids, lengths = pad([[5, 6, 7], [8], []], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]] and lengths.tolist() == [3, 1, 0]
    assert pad([], 0)[0].shape == (0, 0)


def test_a_bert_learns_to_fill_gaps_from_both_sides():
    """Sentences that begin and end with the same word: what is hidden stands to the right, or to the left."""
    words = ["a", "b", "c", "d"]
    tokenizer = WordPieceTokenizer.train(" ".join(words), 9)
    ids, lengths = pad([tokenizer.sequence(f"{x} {y} {x}")[0] for x in words for y in words], tokenizer.pad_id)
    model = BERT(BERTConfig(tokenizer.vocab_size, 8, 2, 2, 32, 64), Generator(0))
    optimizer, generator = AdamW(model.parameters(), lr=3e-3), Generator(1)

    def loss_at(place):
        inputs, targets = ids.copy(), np.full_like(ids, -100)
        inputs[:, place], targets[:, place] = tokenizer.mask_id, ids[:, place]
        return model.loss(inputs, targets, lengths=lengths).item()

    before = loss_at(1), loss_at(3)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(*hide_tokens(ids, tokenizer, generator, 0.25), lengths=lengths).backward()
        optimizer.step()
    after = loss_at(1), loss_at(3)
    assert min(before) > 1.5 and max(after) < 0.3, (before, after)
