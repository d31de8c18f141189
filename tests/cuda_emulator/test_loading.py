"""Kernels run while other libraries are loaded: the loader's locks are taken in one order."""

import os
import subprocess
import sys
import textwrap

import pytest

from minitransformer.kernels.cuda import emulator

SOURCE = """
extern "C" __global__ void fill(float* x, int n) {{ if (threadIdx.x < n) x[threadIdx.x] = {number}; }}
"""


@pytest.mark.skipif(bool(emulator.REASON), reason=emulator.REASON)
def test_launches_beside_loading_finish():
    """Many first launches, each in a new thread, while another thread loads libraries: it hung in one run of three."""
    script = textwrap.dedent(f"""
        import threading, numpy as np
        from minitransformer.kernels.cuda import emulator
        source = {SOURCE!r}
        modules = [emulator.RawModule(code=source.format(number=i), name="fill.cu") for i in range(2)]

        def load():
            for _ in range(200):
                emulator.RawModule(code=source.format(number=1), name="fill.cu")

        def launch():
            x = np.zeros(4, np.float32)
            modules[0].get_function("fill")((1,), (4,), (x, np.int32(4)))

        loading = threading.Thread(target=load)
        loading.start()
        while loading.is_alive():
            one = threading.Thread(target=launch)
            one.start()
            one.join()
        print("finished")
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout == "finished\n", done.stderr
