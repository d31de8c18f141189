"""Lesson 13: kernels that the emulator runs in every order of threads, and what an access pattern costs.

An answer is CUDA source. Its arrays lie between guards: what is read before or behind an input is NaN, which shows in
the result, and what is written before or behind the output is found.
"""

import numpy as np

from ...kernels.cuda import emulator
from . import Wrong, arrays, check, equal

GUARD, UNTOUCHED = 1 << 14, -1e30  # floats before and behind every array; what they hold around the output
SCHEDULES = ({"order": "first"}, {"order": "last"}, {"order": "random", "seed": 1}, {"order": "random", "seed": 2})


def _guarded(array, guard=np.nan):
    """A copy of the array between guards: (all of it, the array)."""
    whole = np.full(array.size + 2 * GUARD, guard, np.float32)
    whole[GUARD:-GUARD] = array.ravel()
    return whole, whole[GUARD:-GUARD].reshape(array.shape)


def _compiled(write_source, kernel):
    """The person's kernel, ready to launch."""
    source = write_source()
    if emulator.REASON:
        raise Wrong(f"this exercise is checked by running its CUDA, which cannot be done here: {emulator.REASON}")
    if not isinstance(source, str):
        raise Wrong(f"the function must return CUDA source, a str, not {type(source).__name__}")
    try:
        return emulator.RawModule(code=source, name=f"{kernel}.cu").get_function(kernel)
    except (RuntimeError, ValueError) as error:
        raise Wrong(str(error).splitlines()[0]) from None


def _in_every_order(function, grid, block, inputs, shape, sizes, expected, shared_mem=0):
    """Launch with inputs, an output of this shape and the sizes: right, and nothing outside, in every order."""
    about = f"grid {grid}, blockDim {block}, sizes {sizes}"
    for schedule in SCHEDULES:
        given = [_guarded(array)[1] for array in inputs]
        whole, out = _guarded(np.full(shape, np.nan), UNTOUCHED)
        order = f"{about}, threads in order {schedule['order']!r}"
        try:
            with emulator.schedule(**schedule):
                function(grid, block, (*given, out, *map(np.int32, sizes)), shared_mem=shared_mem)
        except (emulator.KernelError, TypeError) as error:
            raise Wrong(f"{error}\n{order}") from None
        for where, guard in (("before", whole[:GUARD]), ("behind", whole[-GUARD:])):
            if (guard != np.float32(UNTOUCHED)).any():
                raise Wrong(f"the kernel wrote {where} the end of its output\n{order}")
        try:
            equal("the output", out, expected.astype(np.float32), exact=True)
        except Wrong as wrong:
            raise Wrong(f"{wrong}\n{order} (NaN: never written, or read from outside)") from None


def _whole(seed, *shape):
    """Whole numbers in float32: sums are exact, whatever their order."""
    return np.random.default_rng(seed).integers(-99, 100, shape).astype(np.float32)


def _bias(add_bias_kernel, rows, columns, block):
    x, bias = _whole(rows, rows, columns), _whole(columns, columns)
    grid = (-(-columns // block[0]), -(-rows // block[1]))
    function = _compiled(add_bias_kernel, "add_bias")
    _in_every_order(function, grid, block, (x, bias), x.shape, (rows, columns), x + bias)


@check("13.1", "two rows of three, one block of 4 × 4")
def _(add_bias_kernel):
    _bias(add_bias_kernel, 2, 3, (4, 4))


@check("13.1", "threads hang over both edges; blocks that are not square")
def _(add_bias_kernel):
    for sizes in ((17, 70, (32, 4)), (5, 33, (8, 2)), (40, 3, (2, 16))):
        _bias(add_bias_kernel, *sizes)


@check("13.1", "one row, one column, and a matrix that fits exactly")
def _(add_bias_kernel):
    for sizes in ((1, 50, (16, 16)), (50, 1, (16, 16)), (16, 32, (16, 8))):
        _bias(add_bias_kernel, *sizes)


def _sums(block_sum_kernel, n, blocks, threads):
    x = _whole(n, n)
    padded = np.zeros(blocks * threads, np.float32)
    padded[:n] = x
    expected = padded.reshape(blocks, threads).sum(1)
    function = _compiled(block_sum_kernel, "block_sum")
    _in_every_order(function, (blocks,), (threads,), (x,), (blocks,), (n,), expected, shared_mem=4 * threads)


@check("13.2", "eight numbers, eight threads")
def _(block_sum_kernel):
    _sums(block_sum_kernel, 8, 1, 8)


@check("13.2", "a block of one thread, of two, of 1,024")
def _(block_sum_kernel):
    for n, blocks, threads in ((3, 3, 1), (4, 2, 2), (1024, 1, 1024)):
        _sums(block_sum_kernel, n, blocks, threads)


@check("13.2", "n ends inside a block, or before the last one")
def _(block_sum_kernel):
    for n, blocks, threads in ((5, 1, 8), (200, 4, 64), (33, 3, 32)):
        _sums(block_sum_kernel, n, blocks, threads)


@check("13.2", "the same bits of real numbers in every order")
def _(block_sum_kernel):
    (x,) = arrays(5, (256,), dtype=np.float32)
    function, results = _compiled(block_sum_kernel, "block_sum"), set()
    for schedule in SCHEDULES:
        out = np.zeros(1, np.float32)
        with emulator.schedule(**schedule):
            function((1,), (256,), (x, out, np.int32(256)), shared_mem=1024)
        results.add(float(out[0]))
    if len(results) > 1:
        raise Wrong(f"one input, {len(results)} sums in {len(SCHEDULES)} orders: {sorted(results)}")


def _lines(lines_touched, arguments, lines, share):
    got = lines_touched(*arguments)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Wrong(f"lines_touched must return (lines, share), got {got!r}")
    if got[0] != lines or abs(got[1] - share) > 1e-12:
        names = ("start", "stride", "size", "lanes", "line")
        given = ", ".join(f"{name}={value}" for name, value in zip(names, arguments, strict=False))
        raise Wrong(f"expected ({lines}, {share:.6g})\ngot      {got}\n{given}")


@check("13.3", "a row, a row one float late, a column: on paper")
def _(lines_touched):
    _lines(lines_touched, (0, 4, 4), 1, 1.0)
    _lines(lines_touched, (4, 4, 4), 2, 0.5)
    _lines(lines_touched, (0, 4096, 4), 32, 1 / 32)


@check("13.3", "float64, float4, every second, backwards, all the same")
def _(lines_touched):
    _lines(lines_touched, (0, 8, 8), 2, 1.0)
    _lines(lines_touched, (256, 16, 16), 4, 1.0)
    _lines(lines_touched, (0, 8, 4), 2, 0.5)
    _lines(lines_touched, (124, -4, 4), 1, 1.0)
    _lines(lines_touched, (512, 0, 4), 1, 1 / 32)


@check("13.3", "other lanes and lines")
def _(lines_touched):
    _lines(lines_touched, (96, 4, 4, 16, 32), 2, 1.0)
    _lines(lines_touched, (0, 100, 4, 10, 64), 10, 4 / 64)
    _lines(lines_touched, (60, 4, 4, 2, 64), 2, 8 / 128)


def _transposes(transpose_kernel, rows, columns):
    x = _whole(rows, rows, columns)
    function = _compiled(transpose_kernel, "transpose")
    grid = (1, -(-rows // 16))
    _in_every_order(function, grid, (16, 16), (x,), (columns, rows), (rows, columns), x.T)


@check("13.4", "one tile")
def _(transpose_kernel):
    _transposes(transpose_kernel, 16, 16)


@check("13.4", "many tiles, and edges inside of them")
def _(transpose_kernel):
    for rows, columns in ((16, 64), (20, 50), (3, 33), (40, 5)):
        _transposes(transpose_kernel, rows, columns)


@check("13.4", "two barriers, no more")
def _(transpose_kernel):
    code = "\n".join(line.partition("//")[0] for line in transpose_kernel().splitlines())
    if (count := code.count("__syncthreads")) != 2:
        raise Wrong(f"two barriers are enough and both are needed: there are {count} in the source")
