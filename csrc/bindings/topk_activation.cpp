#include "topk_activation.hpp"

#include <climits>

#include "arrays.hpp"

namespace mt {
namespace {

py::tuple topk_activation(const py::array& x, py::ssize_t k, const std::string& by) {
    return with_float("topk_activation", x, [&](auto zero) {
        using T = decltype(zero);
        constexpr const char* routine = "topk_activation";
        check_rank(routine, "x", x, 1);
        const py::ssize_t width = x.shape(x.ndim() - 1);
        if (k < 1 || k > width)
            throw py::value_error("topk_activation: k must lie in 1.." + std::to_string(width) + ", got " +
                                  std::to_string(k));
        if (by != "value" && by != "magnitude")
            throw py::value_error("topk_activation: by must be \"value\" or \"magnitude\", got \"" + by + "\"");
        if (width > INT_MAX) unsupported("topk_activation: rows of more than 2**31 - 1 numbers");
        Shape shape = shape_of(x);
        py::array from = contiguous<T>(x), y = empty<T>(shape);
        shape.back() = k;
        py::array indices(py::dtype::of<int32_t>(), shape);
        T* to = mutable_data<T>(y);
        auto* at = static_cast<int32_t*>(indices.mutable_data());
        {
            WithoutGil guard(16.0 * double(x.size()));
            topk_activation_kernels<T>().select(long(x.size() / width), long(width), long(k), by == "magnitude",
                                                data<T>(from), to, at);
        }
        return py::make_tuple(y, indices);
    });
}

}  // namespace

void bind_topk_activation(py::module_& m) {
    m.def("topk_activation", topk_activation, py::arg("x"), py::arg("k"), py::arg("by") = "value");
}

}  // namespace mt
