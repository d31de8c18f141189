from . import Case, cases


@cases("random_bits")
def random_bits(rng, dtype):
    for count in (0, 1, 3, 4, 7, 64, 1031, 50_001):
        yield Case((12345, 0, count))
    for key, offset in ((2**64 - 1, 2**64 - 1), (0, 2**32 - 3), (2**32, 2**33 + 1), (0xDEADBEEF12345678, 2**64 - 5)):
        yield Case((key, offset, 133))
