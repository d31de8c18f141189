"""CUDA kernels under ThreadSanitizer and AddressSanitizer.

    report = run(code, "softmax_forward", (rows,), (256,), (x, y, np.int32(width)), sanitizer="thread")
    report.clean, report.kind, report.places        # False, "data race", ["softmax.cu:31", "softmax.cu:27"]

"thread" finds memory that two CUDA threads use without a barrier between (threads of two blocks: with os_threads=2),
even where the result was right this time. "address" finds reads and writes beyond an array, beyond dynamic or static
shared memory, and addresses that are not aligned. Both want a program of their own: kernel and program are compiled
with the sanitizer, the arrays travel in files, and the results are copied back into the NumPy arrays of `args`.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import locate
from .build import build_library, library_file, program_file
from .emulator import Function, Schedule, current_schedule

__all__ = ["SANITIZERS", "Report", "run"]

SANITIZERS = {
    "thread": ("-fsanitize=thread",),
    "address": (
        "-fsanitize=address,bounds,alignment,integer-divide-by-zero",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ),
}
_OPTIONS = {
    "TSAN_OPTIONS": "exitcode=66 report_signal_unsafe=0",
    "ASAN_OPTIONS": "exitcode=67 detect_leaks=0 detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
_KINDS = (
    r"KernelError: (.+)",
    r"WARNING: ThreadSanitizer: ([\w -]+?)(?: \(|$)",
    r"ERROR: AddressSanitizer: ([\w-]+)",
    r"runtime error: (.+)",
)


@dataclass(frozen=True)
class Report:
    """kind: "" | "data race" | "heap-buffer-overflow" ...; places: the source's "file:line"s, first report first."""

    kind: str
    places: tuple[str, ...]
    text: str

    @property
    def clean(self) -> bool:
        return not self.kind


def run(
    code: str,
    kernel: str,
    grid,
    block,
    args: Sequence,
    *,
    sanitizer: str,
    shared_mem: int = 0,
    options: Sequence[str] = (),
    name: str = "kernel.cu",
) -> Report:
    """Launches the kernel once, in the order that `schedule` says. Raises RuntimeError where that cannot be done."""
    if sanitizer not in SANITIZERS:
        raise ValueError(f"sanitizer {sanitizer!r} is none of {', '.join(SANITIZERS)}")
    flags = ("-O1", "-g", *SANITIZERS[sanitizer])
    library, signatures = build_library(code, options, name)
    function = Function(library, signatures[kernel])
    function.max_dynamic_shared_size_bytes = shared_mem
    launch = function.prepare(grid, block, args, shared_mem)
    program = program_file(locate.csrc() / "cuda_emulator" / "run_kernel.cpp", SANITIZERS[sanitizer])
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.txt"
        lines, arrays = [str(library_file(code, options, name, flags))], {}
        plan = current_schedule()
        numbers = [
            *launch.grid,
            *launch.block,
            shared_mem,
            Schedule.ORDERS.index(plan.order),
            plan.seed,
            plan.os_threads,
        ]
        lines.append(" ".join(map(str, [kernel, *numbers])))
        for i, (parameter, arg, value) in enumerate(zip(function.signature.parameters, args, launch.values)):
            if parameter.word[0] not in "pP":
                lines.append(f"value {value.tobytes().hex()}")
            elif arg is None:
                lines.append("null")
            else:
                array = arg if isinstance(arg, np.ndarray) else arg.get()
                arrays[i] = Path(folder) / f"{i}.bin"
                arrays[i].write_bytes(array.tobytes())
                lines.append(f"array {array.nbytes} {arrays[i]}")
        request.write_text("\n".join(lines) + "\n", encoding="utf-8")
        text, code_of_exit = _execute([str(program), str(request)])
        for i, path in arrays.items():
            if isinstance(args[i], np.ndarray) and args[i].flags.writeable:
                args[i][...] = np.frombuffer(path.read_bytes(), args[i].dtype).reshape(args[i].shape)
    kind = next((found[1] for p in _KINDS if (found := re.search(p, text, re.MULTILINE))), "")
    if code_of_exit and not kind:
        raise RuntimeError(f"{name} could not be run under {sanitizer} sanitizer (exit {code_of_exit}): {text[-2000:]}")
    places = re.findall(rf"(?<![\w.]){re.escape(name)}:\d+", text)
    return Report(kind, tuple(dict.fromkeys(places)), text)


def _execute(command: list[str]) -> tuple[str, int]:
    environment = {**os.environ, **_OPTIONS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if "unexpected memory mapping" in done.stderr and shutil.which(
        "setarch"
    ):  # addresses too random for ThreadSanitizer
        command = ["setarch", platform.machine(), "--addr-no-randomize", *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    return done.stderr + done.stdout, done.returncode
