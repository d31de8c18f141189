"""The thread pool: no result depends on its size, it survives a fork, and several Python threads may call at once."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from minitransformer.kernels import native

pytestmark = pytest.mark.skipif(native.ROUTINES is None, reason=f"native kernels: {native.REASON}")


@pytest.fixture(autouse=True)
def as_before():
    count = native.thread_count()
    yield
    native.set_thread_count(count)


def _outputs(dtype):
    """Results of routines that sum over rows, over columns and over k, large enough to be shared among threads."""
    rng = np.random.default_rng(1)
    x, weight, dy = (rng.standard_normal(s).astype(dtype) for s in ((600, 130), (517, 130), (600, 517)))
    run = native.ROUTINES
    results = [run["matmul"](x, weight.T), run["linear"](x, weight, dy[0]), *run["linear_backward"](dy, x, weight)]
    results.append(run["matmul"](x.reshape(30, 20, 130), x.reshape(30, 20, 130).swapaxes(1, 2)))
    results += [run["softmax"](dy, -1), np.float64(run["squared_norm"](dy))]
    y, mean, rstd = run["layer_norm_forward"](x, weight[0], weight[1], 1e-5)
    return [*results, y, *run["layer_norm_backward"](x, y, weight[0], mean, rstd)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_bit_equal_for_any_number_of_threads(dtype):
    native.set_thread_count(1)
    expected = _outputs(dtype)
    for count in (2, 3, 5):
        native.set_thread_count(count)
        assert native.thread_count() == count
        for _ in range(3):
            for got, want in zip(_outputs(dtype), expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_several_python_threads_may_call_at_once_and_resize_meanwhile():
    native.set_thread_count(2)
    expected = _outputs(np.float32)
    failures = []

    def work():
        for _ in range(10):
            for got, want in zip(_outputs(np.float32), expected, strict=True):
                if not np.array_equal(got, want):
                    failures.append(want.shape)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for count in (3, 1, 2):
            native.set_thread_count(count)
        threads[0].join(0.01)
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_with_threads_of_its_own():
    native.set_thread_count(2)
    expected = _outputs(np.float32)  # the parent's pool is running
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                same = all(np.array_equal(g, w) for g, w in zip(_outputs(np.float32), expected, strict=True))
                status = 0 if same and len(os.listdir("/proc/self/task")) == 2 else 2
            finally:
                os._exit(status)
        for got, want in zip(_outputs(np.float32), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_a_senseless_number_of_threads_is_refused(count):
    with pytest.raises(ValueError, match=r"n must lie in 1\.\.1024"):
        native.set_thread_count(count)


def _in_new_process(code, **environment):
    code = f"from minitransformer.kernels import native\n{code}"
    command, environment = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    return done.stdout.strip() or (done.stderr.strip().splitlines() or [f"ended by {done.returncode}"])[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_fewer_threads_than_wanted_are_enough():
    """Where the system starts no more threads the kernel runs with those it has, and the pool still obeys."""
    code = """
import resource, numpy as np
x = np.ones((500, 500), np.float32)
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)  # room for the stacks of a few of them
native.set_thread_count(200)
assert (native.ROUTINES["matmul"](x, x) == 500).all()
native.set_thread_count(2)
assert (native.ROUTINES["matmul"](x, x) == 500).all()
print("done")
"""
    assert _in_new_process(code) == "done"


@pytest.mark.parametrize("call", ['native.ROUTINES["matmul"](x, x)', "native.set_thread_count(2)"])
def test_a_daemon_thread_in_the_extension_does_not_disturb_the_end(call):
    code = """
import threading, time, numpy as np
x = np.ones((300, 300), np.float32)
def work():
    while True:
        CALL
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("done", flush=True)
"""
    code = f"from minitransformer.kernels import native\n{code.replace('CALL', call)}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "done", "")


def test_threads_that_are_added_during_a_call_find_no_room_and_take_none():
    """The product makes room for its threads, rounds the inputs and only then starts most of them. Each call is made by
    a thread of its own, whose memory is new."""
    code = """
import threading, time, numpy as np
from minitransformer.kernels.quantized_weight import QuantizedWeight
rng = np.random.default_rng(0)
x = rng.standard_normal((3000, 2048)).astype(np.float32)
weight = QuantizedWeight.quantize(rng.standard_normal((128, 2048)), "q4_0")
def work():
    called.set()
    results.append(native.ROUTINES["quantized_gemm"](x, weight, inputs="int8"))
results = []
for _ in range(8):
    native.set_thread_count(1)
    called, thread = threading.Event(), threading.Thread(target=work)
    thread.start()
    called.wait()
    time.sleep(0.0005)
    native.set_thread_count(12)
    thread.join()
print(all(np.array_equal(results[0], y) for y in results))
"""
    assert _in_new_process(code) == "True"


def test_integers_that_another_thread_changes_during_a_call_are_those_of_its_start():
    """The kernel makes addresses of them, without the GIL: it must not see what nobody has checked."""
    code = """
import threading, time, numpy as np
native.set_thread_count(1)
run, rng = native.ROUTINES, np.random.default_rng(0)
x, weight, indices = np.ones((300, 4096), np.float32), np.ones((64, 4096), np.float32), np.arange(15000) % 64
q, k = (rng.standard_normal((1, 4, T, 64)).astype(np.float32) for T in (2, 50000))
spans, table, lengths = np.array([[[100, 49000], [200, 50000]]]), np.arange(500)[None], np.array([50000])
pool = k.reshape(4, 500, 100, 64).swapaxes(0, 1).copy()
paged = lambda: run["paged_attention_forward"](q, pool, pool, table, lengths, scale=0.1)[0]
for call, given in (
    (lambda: run["gathered_linear"](x, weight, indices.reshape(300, 50)), indices),
    (lambda: run["attention_forward"](q, k, k, scale=0.1, spans=spans)[0], spans),
    (paged, table),
    (paged, lengths),
):
    right, expected, done = given.copy(), call(), 0
    def work():
        global done
        called.set()
        try:
            assert np.array_equal(call(), expected)
            done += 1
        except (IndexError, ValueError):  # changed too early
            pass
    while done < 6:
        called, thread = threading.Event(), threading.Thread(target=work)
        thread.start()
        called.wait()
        time.sleep(0.001)
        given[...] = np.arange(given.size)[::-1].reshape(given.shape) + 2**40
        thread.join()
        given[...] = right
print("done")
"""
    assert _in_new_process(code) == "done"


def test_the_environment_sets_threads_and_instruction_set():
    assert _in_new_process("print(native.thread_count())", MINITRANSFORMER_NUM_THREADS="3") == "3"
    assert _in_new_process("print(native.isa())", MINITRANSFORMER_ISA="portable") == "portable"
    refused = _in_new_process("print(native.REASON)", MINITRANSFORMER_NUM_THREADS="many")
    assert "MINITRANSFORMER_NUM_THREADS must be an integer from 1 to 1024, got many" in refused
    refused = _in_new_process("print(native.REASON)", MINITRANSFORMER_ISA="mmx")
    assert "MINITRANSFORMER_ISA must be one of" in refused and "got mmx" in refused


def test_freed_memory_is_kept_on_request():
    """A large array freed and made again then costs no page fault. Run elsewhere: it holds for the whole process."""
    code = """
import resource, numpy as np
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 23, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = native.keep_freed_memory()
np.ones(1 << 23, np.uint8)
print(kept, faults() < 1000)
"""
    assert _in_new_process(code) in ("True True", "False False", "False True")
