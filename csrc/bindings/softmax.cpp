#include "softmax.hpp"

#include "arrays.hpp"

namespace mt {
namespace {

AxisView view(const char* routine, const py::array& x, int axis) {
    const int rank = int(x.ndim());
    if (axis < -rank || axis >= rank)
        throw py::value_error(std::string(routine) + ": axis " + std::to_string(axis) + " is out of range for shape " +
                              text(shape_of(x)));
    if (axis < 0) axis += rank;
    AxisView v{1, long(x.shape(axis)), 1};
    for (int i = 0; i < axis; i++) v.outer *= long(x.shape(i));
    for (int i = axis + 1; i < rank; i++) v.inner *= long(x.shape(i));
    return v;
}

template <class Pick> auto forward(const char* routine, Pick pick) {
    return [=](const py::array& x, int axis) {
        return with_float(routine, x, [&](auto zero) {
            using T = decltype(zero);
            const AxisView shape = view(routine, x, axis);
            py::array in = contiguous<T>(x), y = empty<T>(shape_of(x));
            const T* from = data<T>(in);
            T* to = mutable_data<T>(y);
            WithoutGil guard(double(x.size()));
            if (x.size()) pick(softmax_kernels<T>())(shape, from, to);
            return y;
        });
    };
}

template <class Pick> auto backward(const char* routine, Pick pick) {
    return [=](const py::array& dy, const py::array& y, int axis) {
        return with_float(routine, y, [&](auto zero) {
            using T = decltype(zero);
            const AxisView shape = view(routine, y, axis);
            check_dtype<T>(routine, "dy", dy);
            check_shape(routine, "dy", dy, shape_of(y));
            py::array cotangent = contiguous<T>(dy), in = contiguous<T>(y), dx = empty<T>(shape_of(y));
            const T *d = data<T>(cotangent), *from = data<T>(in);
            T* to = mutable_data<T>(dx);
            WithoutGil guard(double(y.size()));
            if (y.size()) pick(softmax_kernels<T>())(shape, d, from, to);
            return dx;
        });
    };
}

}  // namespace

void bind_softmax(py::module_& m) {
    const auto x = py::arg("x"), dy = py::arg("dy"), y = py::arg("y"), axis = py::arg("axis");
    m.def("softmax", forward("softmax", [](auto& k) { return k.forward; }), x, axis);
    m.def("softmax_backward", backward("softmax_backward", [](auto& k) { return k.backward; }), dy, y, axis);
    m.def("log_softmax", forward("log_softmax", [](auto& k) { return k.log_forward; }), x, axis);
    m.def("log_softmax_backward", backward("log_softmax_backward", [](auto& k) { return k.log_backward; }), dy, y,
          axis);
}

}  // namespace mt
