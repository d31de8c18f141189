// NumPy arrays at the border: what a kernel is given has been checked here, so a wrong call from Python is an
// exception and never a wild read. The contract's own checks (kernels/contract.py) run before and word errors for
// people; these are the ones that memory safety needs, for callers who come past it. Messages name the routine and
// the argument.
#pragma once
#include <unistd.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace mt {

namespace py = pybind11;
using Shape = std::vector<py::ssize_t>;
using OptionalArray = std::optional<py::array>;

// Throws kernels.contract.Unsupported: the dispatcher then takes the next implementation.
[[noreturn]] inline void unsupported(const std::string& message) {
    PyErr_SetString(py::module_::import("minitransformer.kernels.contract").attr("Unsupported").ptr(), message.c_str());
    throw py::error_already_set();
}

inline Shape shape_of(const py::array& x) { return Shape(x.shape(), x.shape() + x.ndim()); }

inline std::string text(const Shape& shape) {
    std::string s = "(";
    for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + (shape.size() == 1 ? ",)" : ")");
}

inline void check_shape(const char* routine, const char* name, const py::array& x, const Shape& expected) {
    bool same = x.ndim() == py::ssize_t(expected.size());
    for (py::ssize_t i = 0; same && i < x.ndim(); i++) same = x.shape(i) == expected[i];
    if (!same)
        throw py::value_error(std::string(routine) + ": " + name + " must have shape " + text(expected) + ", got " +
                              text(shape_of(x)));
}

inline void check_rank(const char* routine, const char* name, const py::array& x, py::ssize_t least,
                       py::ssize_t most = 64) {
    if (x.ndim() < least || x.ndim() > most)
        throw py::value_error(std::string(routine) + ": " + name + " must have " + (least == most ? "" : "at least ") +
                              std::to_string(least) + " axes, got shape " + text(shape_of(x)));
}

// ---------------------------------------------------------------- dtypes

template <class T> bool is(const py::array& x) {
    constexpr int number = std::is_same_v<T, float> ? 11 : 12;  // NPY_FLOAT, NPY_DOUBLE
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    return x.dtype().num() == number && x.dtype().byteorder() == '=';
}

template <class T> void check_dtype(const char* routine, const char* name, const py::array& x) {
    if (!is<T>(x))
        throw py::type_error(std::string(routine) + ": " + name + " is " + std::string(py::str(x.dtype())) +
                             ", but must be " + (sizeof(T) == 4 ? "float32" : "float64") + " like the first array");
}

// f(T{}) with T the dtype of x, float or double; other dtypes are unsupported here.
template <class F> auto with_float(const char* routine, const py::array& x, F&& f) {
    if (is<float>(x)) return f(float{});
    if (is<double>(x)) return f(double{});
    unsupported(std::string(routine) + ": the native kernels take float32 and float64, got " +
                std::string(py::str(x.dtype())));
}

// ---------------------------------------------------------------- memory

// Stride of an axis in elements. Only for arrays that `addressable` accepts.
template <class T> long stride(const py::array& x, int axis) { return long(x.strides(axis) / py::ssize_t(sizeof(T))); }

// Whether x can be read as T* with whole strides: aligned, and no view into packed records.
template <class T> bool addressable(const py::array& x) {
    if (!(x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
    for (int i = 0; i < x.ndim(); i++)
        if (x.strides(i) % py::ssize_t(sizeof(T))) return false;
    return true;
}

// x itself where it is C-contiguous and aligned, else a copy that is.
template <class T> py::array contiguous(const py::array& x) {
    constexpr int wanted = int(py::array::c_style) | int(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    if ((x.flags() & wanted) == wanted && x.dtype().byteorder() == '=') return x;
    auto copy = py::array_t<T, py::array::c_style>::ensure(py::array(x.attr("copy")("C")));
    if (!copy) throw py::error_already_set();
    return copy;
}

template <class T> const T* data(const py::array& x) { return static_cast<const T*>(x.data()); }
// For arrays that we have just made; checks nothing.
template <class T> T* mutable_data(const py::array& x) { return const_cast<T*>(data<T>(x)); }

// A new C-ordered array. NumPy itself refuses negative sizes and sizes that overflow.
template <class T> py::array empty(const Shape& shape) { return py::array(py::dtype::of<T>(), shape); }
template <class T> py::array zeros(const Shape& shape) {
    py::array x = empty<T>(shape);
    if (x.size()) __builtin_memset(mutable_data<T>(x), 0, size_t(x.nbytes()));
    return x;
}

// Releases the GIL while a kernel runs, where there is enough work for another thread to make use of it.
class WithoutGil {
  public:
    explicit WithoutGil(double work) : state_(work > 20000 ? PyEval_SaveThread() : nullptr) {}
    // A daemon thread that comes back while the interpreter shuts down is ended by Python up to 3.13: its stack is
    // unwound, but the arrays there must not be let go without the GIL. So it sleeps until the process has gone.
    ~WithoutGil() {
        if (!state_) return;
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) ::pause();
        }
    }
    WithoutGil(const WithoutGil&) = delete;

  private:
    PyThreadState* state_;
};

}  // namespace mt
