"""The kernels of these tests are CUDA: NVIDIA's compiler takes the same files."""

import pytest

from .nvcc import ARCHITECTURES, compile_with_nvcc


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_files_compile(arch, tmp_path, source):
    for name in ("blocks.cu", "warps.cu", "memory.cu", "numbers.cu", "bugs.cu"):
        path = tmp_path / name
        path.write_text(source(name), encoding="utf-8")
        kernels = compile_with_nvcc(path, arch)
        assert kernels and not any(k.spills or k.tensor_cores for k in kernels.values())
        if name == "blocks.cu":
            assert kernels["transpose"].static_shared == 16 * 17 * 4


@pytest.mark.parametrize("arch", ARCHITECTURES[-1:])
def test_tensor_cores(arch, tmp_path, source):
    path = tmp_path / "tensor_cores.cu"
    path.write_text(source("tensor_cores.cu"), encoding="utf-8")
    kernels = compile_with_nvcc(path, arch)
    products = {"bf16_rows_rows", "bf16_rows_columns", "half_columns_rows", "half_half", "bytes"}
    assert {name for name, k in kernels.items() if k.tensor_cores} == products
    assert all(16 <= kernels[name].registers <= 64 for name in products)
