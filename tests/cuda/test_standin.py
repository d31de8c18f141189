"""The stand-in is as strict as CuPy, counts what moves, and has nothing that CuPy lacks."""

import importlib.util
import inspect

import numpy as np
import pytest

from minitransformer.kernels.cuda import standin

HOST = np.arange(6.0).reshape(2, 3)


def there(array=HOST):
    return standin.asarray(array)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.asarray(x),
        lambda x: np.array([x, x]),
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: np.exp(x, out=HOST.copy()),
        lambda x: standin.concat([x, HOST]),
        lambda x: standin.where(HOST > 0, x, x),
        lambda x: x[np.array([0, 1])],
        lambda x: x.__setitem__(0, HOST[0]),
        lambda x: standin.maximum(x, HOST),
        lambda x: x.max(initial=0.0),
        lambda x: standin.sum(x, where=x > 0),
    ],
)
def test_it_refuses_what_cupy_refuses(call):
    with pytest.raises(TypeError):
        call(there())


@pytest.mark.parametrize("name", ["__array_namespace__", "__array_interface__", "__dlpack__", "to_device", "__index__"])
def test_it_lacks_what_cupy_lacks(name):
    assert not hasattr(there(), name)
    with pytest.raises(AttributeError):
        _ = there().flags.writeable


def test_numpys_functions_and_scalars_work_on_it():
    x = there()
    assert type(np.exp(x)) is type(np.sum(x, axis=0)) is type(np.float64(2) * x) is standin.ndarray
    assert np.array_equal((np.float64(2) * x - 1).get(), 2 * HOST - 1)


def test_a_reduction_stays_there_and_to_read_is_a_transfer():
    with standin.counting() as counts:
        x = there()
        total = x.sum()
        assert isinstance(total, standin.ndarray) and total.shape == ()
        assert (counts.to_device, counts.from_device, counts.bytes_to_device) == (1, 0, HOST.nbytes)
        assert total.item() == 15.0 and float(total) == 15.0 and bool(total > 14) and x[0].tolist() == [0.0, 1.0, 2.0]
        assert (counts.to_device, counts.from_device) == (1, 4)


def test_a_view_knows_whose_memory_it_sees():
    x = there()
    for view in (x[0], x.T, x.mT, x.reshape(-1), x[:, ::2][0], standin.permute_dims(x, (1, 0)), x.swapaxes(0, 1)[1:]):
        assert view.base is x
    for own in (x + 1, x.copy(), standin.exp(x), x.sum(axis=0), x.astype(np.float32)):
        assert own.base is None
    assert x.astype(np.float64, copy=False) is x and standin.asarray(x) is x
    y = x
    y += 1
    assert y is x and x.get()[0, 0] == 1.0


def test_a_kernel_takes_its_arrays_only(emulator):
    source = 'extern "C" __global__ void twice(float* x, int n) { if (threadIdx.x < n) x[threadIdx.x] *= 2; }'
    twice = standin.RawModule(code=source).get_function("twice")
    x = standin.arange(5, dtype=np.float32)
    with standin.counting() as counts:
        twice((1,), (32,), (x, np.int32(5)))
        assert counts.launches == 1 and counts.to_device == 0
    assert x.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        twice((1,), (32,), (np.zeros(5, np.float32), np.int32(5)))


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_has_every_name_that_the_standin_has():
    import cupy

    functions = (*standin.CREATION, *standin.FUNCTIONS, *standin.DTYPES, "asarray", "array", "RawModule", "cuda")
    assert [name for name in functions if not hasattr(cupy, name)] == []
    public = [name for name, _ in inspect.getmembers(standin.ndarray) if not name.startswith("_")]
    assert [name for name in public if name != "device_name" and not hasattr(cupy.ndarray, name)] == []
    for reduction in (cupy.sum, cupy.max, cupy.mean):
        assert not {"initial", "where"} & set(inspect.signature(reduction).parameters)
    assert not hasattr(cupy.ndarray, "__array_namespace__"), "then the stand-in may have it too"
