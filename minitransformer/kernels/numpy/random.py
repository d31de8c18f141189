"""Philox 4×32-10: a random function of (key, counter) instead of a generator with a state.

Any word can be computed by itself, in any order, by any thread, again in backward. Ten rounds of multiply and exclusive
or turn a 128-bit counter into 128 random bits.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

import numpy

from ..devices import device as _device

_MULTIPLIERS = numpy.uint64(0xD2511F53), numpy.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85  # golden ratio and √3 - 1: what a round adds to the key
_LOW, _HALF = numpy.uint64(0xFFFFFFFF), numpy.uint64(32)


def philox(counter, key):
    """Ten rounds. counter: four uint64 arrays holding 32-bit words; key: two integers below 2³² -> four such arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # 32 × 32 -> 64 bits, exact
        c0, c1, c2, c3 = (b >> _HALF) ^ c1 ^ numpy.uint64(k0), b & _LOW, (a >> _HALF) ^ c3 ^ numpy.uint64(k1), a & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_bits(key, offset, count, device="cpu"):
    """uint32 words; word i is lane i % 4 of counter offset + i // 4. The 64-bit counter wraps round."""
    np, key, offset = _device(device).arrays, int(key), int(offset)
    words = np.empty(((count + 3) // 4, 4), np.uint32)
    for start in range(0, len(words), 1 << 13):  # in blocks, so that the temporaries stay in the cache
        block = words[start : start + (1 << 13)]
        counter = np.arange(start, start + len(block), dtype=np.uint64) + numpy.uint64(offset)
        zero = np.zeros_like(counter)
        lanes = philox((counter & _LOW, counter >> _HALF, zero, zero), (key & 0xFFFFFFFF, key >> 32))
        block[:] = np.stack(lanes, axis=1)
    return words.reshape(-1)[:count].copy()
