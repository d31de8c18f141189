"""Blocks: indices, barriers, shared memory, what a launch checks."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from minitransformer.kernels.cuda import emulator

RNG = np.random.default_rng(0)


def pack(v):
    return v[..., 0] + 100 * v[..., 1] + 10000 * v[..., 2]


@pytest.mark.parametrize(("grid", "block"), [((5,), (7,)), ((3, 2), (4, 5)), ((2, 3, 4), (3, 5, 7)), (2, 64)])
def test_indices(launch, grid, block):
    grid3, block3 = (((n,) if isinstance(n, int) else n) + (1, 1, 1) for n in (grid, block))
    grid3, block3 = grid3[:3], block3[:3]
    thread, where = np.zeros((2, np.prod(grid3), np.prod(block3)), np.int32)
    sizes = np.zeros(6, np.int32)
    launch("blocks.cu", "indices", grid, block, (thread, where, sizes))
    expected = [np.stack(np.unravel_index(np.arange(np.prod(s)), s[::-1])[::-1], -1) for s in (block3, grid3)]
    assert (thread == pack(expected[0])).all() and (where == pack(expected[1])[:, None]).all()
    assert tuple(sizes) == block3 + grid3


@pytest.mark.parametrize("threads", [1, 2, 32, 64, 256])
def test_row_sums(launch, threads):
    x, sums = RNG.integers(-50, 50, (5, 300)).astype(np.float32), np.zeros(5, np.float32)
    launch("blocks.cu", "row_sums", (5,), (threads,), (x, sums, np.int32(300)), shared_mem=4 * threads)
    assert (sums == x.sum(1)).all()


@pytest.mark.parametrize(("n", "threads"), [(1, 1), (31, 32), (100, 100), (1000, 1024)])
def test_prefix_sums(launch, n, threads):
    x = RNG.integers(-9, 9, n).astype(np.int32)
    expected = np.cumsum(x)
    launch("blocks.cu", "prefix_sums", (1,), (threads,), (x, np.int32(n)), shared_mem=4 * threads)
    assert (x == expected).all()


def test_transpose(launch):
    x, y = RNG.standard_normal((37, 50)).astype(np.float32), np.zeros((50, 37), np.float32)
    launch("blocks.cu", "transpose", (4, 3), (16, 16), (x, y, np.int32(37), np.int32(50)))
    assert (y == x.T).all()


@pytest.mark.parametrize("n", [1, 31, 33, 100])
def test_barriers_do_not_wait_for_threads_that_returned(launch, n):
    x, y = np.arange(128, dtype=np.int32), np.zeros(128, np.int32)
    launch("blocks.cu", "early_return", (1,), (128,), (x, y, np.int32(n)))
    assert (y[:n] == x[:n][::-1]).all() and not y[n:].any()


@pytest.mark.parametrize("values", [[0, 0, 0], [1, -1, 3], [6, 6, 6], [4, 9, 1]])
def test_barrier_votes(launch, values):
    x, answers = np.resize(np.int32(values), 99), np.zeros(3, np.int32)
    launch("blocks.cu", "barrier_votes", (1,), (99,), (x, answers))
    assert list(answers) == [(x > 0).sum(), (x > 5).any(), (x < 5).all()]


def test_every_block_finds_shared_memory_undefined(launch):
    seen = np.zeros((4, 2), np.float32)
    launch("blocks.cu", "untouched", (4,), (1,), (seen,), shared_mem=4)
    assert np.isnan(seen[:, 0]).all()
    if sys.platform == "linux":  # elsewhere static shared memory is not found
        assert np.isnan(seen[:, 1]).all()


def test_dynamic_arrays_share_their_memory(launch):
    y = np.zeros(32, np.int32)
    launch("blocks.cu", "same_memory", (1,), (32,), (y,), shared_mem=128)
    assert (y == 4 * np.arange(32)).all()


def test_kernels_made_by_macros_and_templates(module):
    made = module("blocks.cu")
    for kernel, dtype in (("scale_float", np.float32), ("scale_double", np.float64)):
        x = np.arange(4, dtype=dtype)
        made.get_function(kernel)((1,), (4,), (x, dtype(2.5)))
        assert (x == 2.5 * np.arange(4)).all()


def test_arguments_of_every_kind(module):
    out, pair = np.zeros(8, np.float32), np.array((3, 0.25), [("first", "i4"), ("second", "f4")])[()]
    args = [
        np.float32([1.5]),
        np.float64([2.5]),
        np.int16([-3]),
        np.uint8([200]),
        np.bool_(True),
        2**40,
        pair,
        None,
        out,
    ]
    kernel = module("blocks.cu").get_function("all_kinds")
    kernel((1,), (1,), args)
    assert list(out) == [1.5, 2.5, -3, 200, 1, 2.0**40, 3.25, 0]
    args[0], args[7] = None, out
    kernel((1,), (1,), args)
    assert out[0] == -1 and out[7] == 1


class OnDevice:
    """An array as CuPy's is: an address in .data.ptr."""

    class Memory:
        def __init__(self, ptr):
            self.ptr = ptr

    def __init__(self, array):
        self.array, self.dtype, self.data = array, array.dtype, self.Memory(array.ctypes.data)


def test_device_arrays(module):
    x = np.ones(4, np.float32)
    module("blocks.cu").get_function("scale_float")((1,), (4,), (OnDevice(x), np.float32(3)))
    assert (x == 3).all()


def read_only(array):
    array.flags.writeable = False
    return array


X = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("grid", "block", "args", "shared", "error", "message"),
    [
        ((1,), (4,), (X,), 0, TypeError, r"takes 2 arguments, 1 were given: scale_float\(float\* x, float factor\)"),
        ((1,), (4,), (X, 2.0), 0, TypeError, r"argument 1, `float factor` is float32, and the argument is float64"),
        ((1,), (4,), (X, np.int32(2)), 0, TypeError, "float32, and the argument is int32"),
        ((1,), (4,), (X, X), 0, TypeError, "passed by value"),
        ((1,), (4,), (np.float32(1), np.float32(2)), 0, TypeError, "is a pointer: pass an array, not float32"),
        ((1,), (4,), (X.astype(float), np.float32(2)), 0, TypeError, "points to float32, and the array is float64"),
        ((1,), (4,), (read_only(X.copy()), np.float32(2)), 0, ValueError, "read-only"),
        ((0,), (4,), (X, np.float32(2)), 0, ValueError, r"grid=\(0, 1, 1\)"),
        ((1, 65536), (4,), (X, np.float32(2)), 0, ValueError, "grid"),
        ((1, 1, 1, 1), (4,), (X, np.float32(2)), 0, ValueError, "1, 2 or 3 sizes"),
        ((1,), (1, 1, 65), (X, np.float32(2)), 0, ValueError, "block"),
        ((1,), (32, 33), (X, np.float32(2)), 0, ValueError, "1056 threads a block; it takes at most 1024"),
        ((1,), (4,), (X, np.float32(2)), 49153, ValueError, "max_dynamic_shared_size_bytes first"),
        ((1,), (4,), (X, np.float32(2)), -1, ValueError, "shared_mem=-1"),
    ],
)
def test_bad_launches(module, grid, block, args, shared, error, message):
    with pytest.raises(error, match=message):
        module("blocks.cu").get_function("scale_float")(grid, block, args, shared_mem=shared)


def test_launch_bounds_and_shared_memory_limits(module):
    sums = module("blocks.cu").get_function("row_sums")
    x, y = np.ones((1, 4), np.float32), np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="257 threads a block; it takes at most 256"):
        sums((1,), (257,), (x, y, np.int32(4)))
    sums.max_dynamic_shared_size_bytes = 227 * 1024
    sums((1,), (64,), (x, y, np.int32(4)), shared_mem=227 * 1024)
    assert y == 4
    sums.max_dynamic_shared_size_bytes = 10**6
    with pytest.raises(ValueError, match=r"at most 232448 bytes$"):
        sums((1,), (64,), (x, y, np.int32(4)), shared_mem=227 * 1024 + 1)


def test_unknown_kernel_and_sources_without_kernels(module):
    with pytest.raises(ValueError, match=r"blocks.cu has no kernel 'sums'; its extern \"C\" kernels: all_kinds, "):
        module("blocks.cu").get_function("sums")
    with pytest.raises(RuntimeError, match="has no kernels"):
        emulator.RawModule(code="__global__ void mangled() {}")
    with pytest.raises(RuntimeError, match=r"bad.cu does not compile: bad.cu:1:.*error"):
        emulator.RawModule(code='extern "C" __global__ void f(int* x) { x = 1.5; }', name="bad.cu")


def test_trap_and_assert(module, source):
    kernel = module("blocks.cu").get_function("asserts")
    kernel((2,), (3,), (np.int32(2),))
    with pytest.raises(emulator.KernelError, match=r"^blocks.cu:\d+: assertion failed: n != 3 \(block \(0, 0, 0\)"):
        kernel((2,), (3,), (np.int32(3),))
    with pytest.raises(emulator.KernelError, match=r"blocks.cu:\d+: the kernel called __trap"):
        kernel((2,), (3,), (np.int32(4),))
    kernel((2,), (3,), (np.int32(2),))


@pytest.mark.parametrize(("order", "last"), [("first", (0, 0)), ("last", (2**31 - 2, 65534))])
def test_a_large_grid_starts_at_once(module, order, last):
    y = np.zeros(2, np.int32)
    with pytest.raises(emulator.KernelError, match="__trap"), emulator.schedule(order=order):
        module("blocks.cu").get_function("first_block")((2**31 - 1, 65535), (1,), (y,))
    assert tuple(y) == last


def test_large_local_arrays(launch):
    y = np.zeros((2, 5), np.float32)
    for n in (1, 1000, 120 << 10):
        launch("blocks.cu", "large_array", (2,), (5,), (y, np.int32(n)))
        assert (y == n).all()


LIMITED = """
import resource, sys
import numpy as np
from minitransformer.kernels.cuda.emulator import KernelError, RawModule, schedule

code = 'extern "C" __global__ void number(int* y) { y[blockIdx.x] = blockIdx.x; }'
number, y = RawModule(code=code, name="number.cu").get_function("number"), np.zeros(64, np.int32)
with open("/proc/self/statm") as sizes:
    used = int(sizes.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[1]) << 20),) * 2)
try:
    with schedule(os_threads=5):
        number((64,), (1024,), (y,))
    print("right" if list(y) == list(range(64)) else y)
except KernelError as error:
    print(error)
"""
NOTHING = "the kernel cannot be started: no memory for the stacks of 1024 threads in kernel number"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
@pytest.mark.parametrize(
    ("megabytes", "stack", "says"),
    [(100, 8, NOTHING), (1700, 8, "right"), (8000, 2500, "right"), (8000, 10000, "right")],
    ids=["no stacks", "stacks for two", "one more thread", "no more threads"],
)
def test_without_memory_for_all_threads(megabytes, stack, says):
    """Fewer do the work; a thread of the operating system asks for as much as the limit of its stack says."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_STACK, ({stack << 20}, {stack << 20}))"
    start = f"{limit}; import os, sys; os.execv(sys.executable, [sys.executable, '-c', {LIMITED!r}, '{megabytes}'])"
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (says, 0), done.stderr


def test_schedules():
    assert emulator.current_schedule() == emulator.Schedule("first", 0, 1)
    with emulator.schedule(order="random", seed=3), emulator.schedule(os_threads=2) as both:
        assert both == emulator.Schedule("random", 3, 2) == emulator.current_schedule()
    for bad in ({"order": "up"}, {"seed": -1}, {"os_threads": 0}):
        with pytest.raises(ValueError, match=str(next(iter(bad.values())))), emulator.schedule(**bad):
            pass


def test_schedule_from_the_environment(monkeypatch):
    monkeypatch.setenv("MINITRANSFORMER_CUDA_ORDER", "last")
    monkeypatch.setenv("MINITRANSFORMER_CUDA_THREADS", "3")
    assert emulator.current_schedule() == emulator.Schedule("last", 0, 3)
    monkeypatch.setenv("MINITRANSFORMER_CUDA_SEED", "x")
    with pytest.raises(ValueError, match="MINITRANSFORMER_CUDA_SEED is 'x'"):
        emulator.current_schedule()


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1000,)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
def test_empty_is_aligned(shape, dtype):
    array = emulator.empty(shape, dtype)
    assert (
        (not array.size or array.ctypes.data % 256 == 0)
        and array.shape == shape
        and array.dtype == dtype
        and array.flags.writeable
    )
