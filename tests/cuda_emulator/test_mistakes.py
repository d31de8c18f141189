"""Planted bugs: each must be reported, by an order of threads, by the emulator or by a sanitizer, with its line."""

import shutil
import subprocess

import numpy as np
import pytest

from minitransformer.kernels.cuda import emulator, sanitize

X = np.arange(256, dtype=np.float32)


def ints():
    return np.zeros(128, np.int32)


def floats():
    return np.zeros(64, np.float32)


@pytest.mark.parametrize("kernel", ["neighbour", "overwritten"])
def test_a_missing_barrier_shows_in_some_order(module, kernel):
    """And in no order when it is there."""
    right = np.roll(X[:64], -1) if kernel == "neighbour" else X.reshape(4, 64)[:, ::-1].sum(0)
    args = (X, floats()) if kernel == "neighbour" else (X, floats(), np.int32(4))
    wrong = set()
    for options in ([], ["-DNO_BARRIER"]):
        function = module("bugs.cu", *options).get_function(kernel)
        for order in emulator.Schedule.ORDERS:
            with emulator.schedule(order=order, seed=1):
                function((1,), (64,), args)
            if not np.array_equal(args[1], right):
                assert options, f"{kernel} is right, and fails in order {order}"
                wrong.add(order)
    assert wrong


@pytest.mark.parametrize("order", emulator.Schedule.ORDERS)
@pytest.mark.parametrize(
    ("kernel", "comments", "what"),
    [
        ("divergent", ["divergent one", "divergent two"], "divergent barrier: threads 0-31 wait in __syncthreads at"),
        ("deadlock", ["deadlock at the barrier", "deadlock in the shuffle"], "deadlock: threads 0-39 wait in __sync"),
    ],
)
def test_divergence_and_deadlock(module, line, kernel, comments, what, order):
    function, y = module("bugs.cu").get_function(kernel), ints()
    for _ in range(3):  # threads that stand where they stood do no harm
        with pytest.raises(emulator.KernelError, match=what) as error, emulator.schedule(order=order, os_threads=2):
            function((3,), (64,), (y,))
        message = str(error.value)
        assert message.startswith("bugs.cu:") and message.endswith(f"in kernel {kernel}") and "\n" not in message
        assert all(line("bugs.cu", comment) in message for comment in comments)
    assert not y.any()


@pytest.mark.parametrize(
    ("shuffle", "what"),
    [
        (False, r"threads 0-15 wait in __syncthreads_or at one.cuh:7; threads 16-31 wait in .* at two.cuh:7"),
        (True, r"^two.cuh:7: lane 31 in __shfl_sync meets lane 0 in __shfl_sync at one.cuh:7"),
    ],
)
def test_the_same_line_of_another_file_is_another_place(module, shuffle, what):
    with pytest.raises(emulator.KernelError, match=what):
        module("bugs.cu").get_function("two_files")((1,), (32,), (ints(), np.bool_(shuffle)))


def test_a_write_behind_dynamic_shared_memory_is_seen_without_a_sanitizer(module):
    function = module("bugs.cu").get_function("beyond_dynamic")
    function((1,), (1,), (floats(), np.int32(3), np.int32(1)), shared_mem=16)
    with pytest.raises(emulator.KernelError, match="up to 4 bytes behind its dynamic shared memory"):
        function((1,), (1,), (floats(), np.int32(4), np.int32(1)), shared_mem=16)


# ---------------------------------------------------------------- sanitizers


@pytest.fixture(params=list(sanitize.SANITIZERS))
def sanitizer(request, tmp_path):
    return available(request.param, tmp_path)


def available(sanitizer, folder):
    source = folder / "empty.cpp"
    source.write_text("int main() {}\n", encoding="utf-8")
    command = [emulator.compiler()[0], *sanitize.SANITIZERS[sanitizer], str(source), "-o", str(folder / "empty")]
    if subprocess.run(command, capture_output=True, check=False).returncode or not shutil.which(str(folder / "empty")):
        pytest.skip(f"the compiler has no {sanitizer} sanitizer")
    return sanitizer


@pytest.fixture
def check(source):
    def run(kernel, args, sanitizer, *, file="bugs.cu", grid=(1,), block=(64,), shared_mem=0, options=()):
        return sanitize.run(
            source(file),
            kernel,
            grid,
            block,
            args,
            sanitizer=sanitizer,
            shared_mem=shared_mem,
            options=options,
            name=file,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["neighbour", "overwritten"])
def test_thread_sanitizer_names_both_lines_of_a_missing_barrier(check, line, kernel, tmp_path):
    available("thread", tmp_path)
    args = (X, floats()) if kernel == "neighbour" else (X, floats(), np.int32(4))
    assert check(kernel, args, "thread").clean
    assert np.array_equal(args[1], np.roll(X[:64], -1) if kernel == "neighbour" else X.reshape(4, 64)[:, ::-1].sum(0))
    report = check(kernel, args, "thread", options=["-DNO_BARRIER"])
    assert report.kind == "data race" and not report.clean
    assert {line("bugs.cu", f"{kernel} writes"), line("bugs.cu", f"{kernel} reads")} <= set(report.places)


@pytest.mark.slow
def test_thread_sanitizer_finds_a_race_across_blocks(check, line, tmp_path):
    available("thread", tmp_path)
    for _ in range(3):
        with emulator.schedule(os_threads=2):
            report = check("across_blocks", (floats(),), "thread", grid=(2,))
        assert report.kind == "data race" and line("bugs.cu", "across blocks") in report.places


@pytest.mark.slow
def test_a_shuffle_orders_no_memory(check, tmp_path):
    available("thread", tmp_path)
    x, y = np.arange(128, dtype=np.int32), ints()
    assert check("through_shared", (x, y), "thread", file="warps.cu", block=(128,)).clean
    assert (y == x ^ 1).all()
    report = check("through_shared", (x, y), "thread", file="warps.cu", block=(128,), options=["-DNO_SYNCWARP"])
    assert report.kind == "data race"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "args", "shared", "comment", "kind"),
    [
        ("beyond_dynamic", (4, 1), 16, "beyond dynamic, write", "use-after-poison"),
        ("beyond_dynamic", (4, 0), 16, "beyond dynamic, read", "use-after-poison"),
        ("beyond_static", (8, 1), 0, "beyond static, write", "index 8 out of bounds"),
        ("beyond_static", (-1, 0), 0, "beyond static, read", "index -1 out of bounds"),
        ("beyond_global", (1, 0), 0, "beyond global, read", "heap-buffer-overflow"),
        ("beyond_global", (0, 1), 0, "beyond global, write", "heap-buffer-overflow"),
        ("beyond_global", (0, -99999999), 0, "beyond global, write", "SEGV"),
        ("misaligned", (1,), 0, "misaligned", "misaligned address"),
    ],
)
def test_address_sanitizer_names_the_line(check, line, tmp_path, kernel, args, shared, comment, kind):
    available("address", tmp_path)
    arrays = (X[:64].copy(), floats()) if kernel in ("beyond_global", "misaligned") else (floats(),)
    report = check(kernel, (*arrays, *map(np.int32, args)), "address", shared_mem=shared)
    assert kind in report.kind and report.places[0] == line("bugs.cu", comment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "kernel", "grid", "block", "args", "shared"),
    [
        ("bugs.cu", "beyond_dynamic", 1, 1, (floats(), np.int32(3), np.int32(1)), 16),
        ("bugs.cu", "beyond_global", 1, 64, (floats(), floats(), np.int32(0), np.int32(0)), 0),
        ("blocks.cu", "row_sums", 5, 64, (np.ones((5, 99), np.float32), np.zeros(5, np.float32), np.int32(99)), 256),
        ("blocks.cu", "prefix_sums", 1, 128, (np.arange(99, dtype=np.int32), np.int32(99)), 512),
        ("blocks.cu", "early_return", 1, 128, (ints(), ints(), np.int32(50)), 0),
        ("blocks.cu", "untouched", 4, 1, (np.zeros((4, 2), np.float32),), 4),
        ("warps.cu", "halves", 1, 64, (ints(),), 0),
        ("memory.cu", "histogram", 3, 64, (np.zeros(500, np.uint8), np.zeros(256, np.int32), np.int32(500)), 0),
        ("memory.cu", "flag", 1, 64, (ints(),), 0),
        ("memory.cu", "last_block_adds", 5, 64,
         (np.ones(320, np.float32), np.zeros(5, np.float32), np.zeros(1, np.uint32), np.zeros(1, np.float32)), 0),
        ("tensor_cores.cu", "bytes", 1, 32, (*np.ones((2, 256), np.int8), *np.ones((2, 256), np.int32)), 0),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_right_kernels_are_clean(check, sanitizer, file, kernel, grid, block, args, shared):
    with emulator.schedule(os_threads=2, order="random"):
        report = check(kernel, args, sanitizer, file=file, grid=grid, block=block, shared_mem=shared)
    assert report.clean, report.text


@pytest.mark.slow
def test_a_deadlock_under_a_sanitizer(check, line, sanitizer):
    report = check("deadlock", (ints(),), sanitizer)
    assert "deadlock" in report.kind and line("bugs.cu", "deadlock at the barrier") in report.places


def test_bad_requests(check):
    with pytest.raises(ValueError, match="sanitizer 'memory' is none of thread, address"):
        check("neighbour", (X, floats()), "memory")
    with pytest.raises(TypeError, match="takes 2 arguments"):
        check("neighbour", (X,), "thread")
