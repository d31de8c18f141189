#include "activation.hpp"

#include "arrays.hpp"

namespace mt {
namespace {

template <class Pick> py::array forward(const char* routine, const py::array& x, Pick pick) {
    return with_float(routine, x, [&](auto zero) {
        using T = decltype(zero);
        py::array in = contiguous<T>(x), y = empty<T>(shape_of(x));
        const T* from = data<T>(in);
        T* to = mutable_data<T>(y);
        WithoutGil guard(double(x.size()));
        pick(activation_kernels<T>())(long(x.size()), from, to);
        return y;
    });
}

template <class Pick> py::array backward(const char* routine, const py::array& dy, const py::array& x, Pick pick) {
    return with_float(routine, x, [&](auto zero) {
        using T = decltype(zero);
        check_dtype<T>(routine, "dy", dy);
        check_shape(routine, "dy", dy, shape_of(x));
        py::array cotangent = contiguous<T>(dy), in = contiguous<T>(x), dx = empty<T>(shape_of(x));
        const T *d = data<T>(cotangent), *from = data<T>(in);
        T* to = mutable_data<T>(dx);
        WithoutGil guard(double(x.size()));
        pick(activation_kernels<T>())(long(x.size()), d, from, to);
        return dx;
    });
}

bool is_tanh(const char* routine, const std::string& approximate) {
    if (approximate != "none" && approximate != "tanh")
        throw py::value_error(std::string(routine) + ": approximate must be \"none\" or \"tanh\", got \"" +
                              approximate + '"');
    return approximate == "tanh";
}

}  // namespace

void bind_activation(py::module_& m) {
    const auto x = py::arg("x"), dy = py::arg("dy"), approximate = py::arg("approximate");
    m.def("gelu", [](const py::array& x, const std::string& approximate) {
        const bool tanh = is_tanh("gelu", approximate);
        return forward("gelu", x, [=](auto& k) { return tanh ? k.gelu_tanh : k.gelu; });
    }, x, approximate);
    m.def("gelu_backward", [](const py::array& dy, const py::array& x, const std::string& approximate) {
        const bool tanh = is_tanh("gelu_backward", approximate);
        return backward("gelu_backward", dy, x, [=](auto& k) { return tanh ? k.gelu_tanh_backward : k.gelu_backward; });
    }, dy, x, approximate);
    m.def("silu", [](const py::array& x) { return forward("silu", x, [](auto& k) { return k.silu; }); }, x);
    m.def("silu_backward", [](const py::array& dy, const py::array& x) {
        return backward("silu_backward", dy, x, [](auto& k) { return k.silu_backward; });
    }, dy, x);
}

}  // namespace mt
