"""Learning a byte-pair encoding: again and again, make the most frequent pair of neighbouring tokens a token.

    merges = []
    while tokens are wanted:
        (left, right) = the pair with the largest count;  ties: the smallest left id, then the smallest right id
        merges.append((left, right)), and every left right becomes the new id 256 + len(merges) - 1

Recounting all pairs after each merge costs (text × merges). Three observations make it quick: equal pieces are merged
alike, so one of each with its count will do; a merge changes only the pieces that hold its pair, so an index from pair
to pieces finds them; and the count of an old pair only ever falls, so a heap may hold counts that are too large, and
correct one when it comes to the top.

Source: Sennrich et al. 2016, "Neural machine translation of rare words with subword units", algorithm 1.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from itertools import pairwise

from .pretokenize import pretokenize

__all__ = ["learn_merges", "merge_frequent_pairs"]

LONGEST = 64  # bytes; longer pieces (a genome, a data URL) are counted in parts, or each merge would rewrite them whole


def learn_merges(text: str, count: int) -> list[tuple[int, int]]:
    """At most `count` merges, in the order learned; fewer when no pair is left that occurs twice."""
    words, word_counts = _words(text)
    return merge_frequent_pairs(words, word_counts, 256, count)


def merge_frequent_pairs(words, word_counts, first: int, count: int) -> list[tuple[int, int]]:
    """At most `count` merges of words (lists of ids below `first`, changed in place) that occur so often; merge r makes
    the id first + r."""
    pair_counts: dict[tuple[int, int], int] = defaultdict(int)
    holders: dict[tuple[int, int], set[int]] = defaultdict(set)  # pair -> the words that have held it
    for index, (word, n) in enumerate(zip(words, word_counts)):
        for pair in pairwise(word):
            pair_counts[pair] += n
            holders[pair].add(index)
    heap = [(-n, pair) for pair, n in pair_counts.items()]
    heapq.heapify(heap)

    merges: list[tuple[int, int]] = []
    while heap and len(merges) < count:
        n, pair = heapq.heappop(heap)
        if -n != pair_counts[pair]:  # it fell since it was pushed
            heapq.heappush(heap, (-pair_counts[pair], pair))
            continue
        if -n < 2:
            break  # a pair seen once teaches nothing
        new = first + len(merges)
        merges.append(pair)
        born = set()
        for index in holders.pop(pair):
            word, n = words[index], word_counts[index]
            before, after = _merge(word, pair, new)
            for p in pairwise(before):
                pair_counts[p] -= n
            for p in pairwise(after):
                pair_counts[p] += n
                if new in p:
                    holders[p].add(index)
                    born.add(p)
        for p in born:
            heapq.heappush(heap, (-pair_counts[p], p))
    return merges


def _words(text):
    """The distinct pieces as lists of bytes, in the order of first occurrence, and how often each occurs."""
    counts = Counter(pretokenize(text))
    parts: Counter[bytes] = Counter()
    for piece, n in counts.items():
        data = piece.encode("utf-8")
        for start in range(0, len(data), LONGEST):
            parts[data[start : start + LONGEST]] += n
    return [list(part) for part in parts], list(parts.values())


def _merge(word, pair, new):
    """Replace each occurrence of the pair in `word`, from left to right, in place by the new id.

    Returns the stretch that changed, with one neighbour on either side, as it was and as it is; both empty if none did.
    """
    left, right = pair
    old, places, i = word[:], [], 0
    while i < len(word) - 1:
        if word[i] == left and word[i + 1] == right:
            word[i : i + 2] = [new]
            places.append(i)
        i += 1
    if not places:
        return [], []
    first, rest = max(places[0] - 1, 0), len(word) - places[-1] - 2  # `rest` tokens stand behind the right neighbour
    return old[first : len(old) - max(rest, 0)], word[first : len(word) - max(rest, 0)]
