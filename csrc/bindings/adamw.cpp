#include "adamw.hpp"

#include <cmath>

#include "arrays.hpp"

namespace mt {
namespace {

// Memory that is updated in place: a copy would be lost.
template <class T> T* in_place(const char* name, const py::array& x, const py::array& parameter) {
    check_dtype<T>("adamw_step", name, x);
    check_shape("adamw_step", name, x, shape_of(parameter));
    if (!(x.flags() & py::array::c_style) || !x.writeable() || !addressable<T>(x))
        throw py::value_error(std::string("adamw_step: ") + name +
                              " is updated in place and must be C-contiguous and writeable");
    return mutable_data<T>(x);
}

void step(const py::array& parameter, const py::array& gradient, const py::array& m, const py::array& v, long step,
          double lr, double beta1, double beta2, double eps, double weight_decay) {
    with_float("adamw_step", parameter, [&](auto zero) {
        using T = decltype(zero);
        T *to = in_place<T>("parameter", parameter, parameter), *first = in_place<T>("m", m, parameter);
        T* second = in_place<T>("v", v, parameter);
        check_dtype<T>("adamw_step", "gradient", gradient);
        check_shape("adamw_step", "gradient", gradient, shape_of(parameter));
        if (step < 1) throw py::value_error("adamw_step: step counts from 1, got " + std::to_string(step));
        py::array from = contiguous<T>(gradient);
        const double correction1 = 1 - std::pow(beta1, double(step)), correction2 = 1 - std::pow(beta2, double(step));
        const AdamW hyper{lr, beta1, beta2, eps, weight_decay, correction1, correction2};
        WithoutGil guard(double(parameter.size()));
        adamw_kernels<T>().step(long(parameter.size()), to, data<T>(from), first, second, hyper);
    });
}

double squared_norm(const py::array& x) {
    return with_float("squared_norm", x, [&](auto zero) {
        using T = decltype(zero);
        py::array in = contiguous<T>(x);
        WithoutGil guard(double(x.size()));
        return adamw_kernels<T>().squared_norm(long(x.size()), data<T>(in));
    });
}

}  // namespace

void bind_adamw(py::module_& m) {
    m.def("adamw_step", step, py::arg("parameter"), py::arg("gradient"), py::arg("m"), py::arg("v"), py::kw_only(),
          py::arg("step"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"));
    m.def("squared_norm", squared_norm, py::arg("x"));
}

}  // namespace mt
