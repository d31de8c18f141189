#include "dropout.hpp"

#include "arrays.hpp"

namespace mt {

void bind_dropout(py::module_& m) {
    m.def("dropout", [](const py::array& x, double p, uint64_t key, uint64_t offset) {
        return with_float("dropout", x, [&](auto zero) {
            using T = decltype(zero);
            if (!(p >= 0 && p < 1)) throw py::value_error("dropout: p must lie in [0, 1), got " + std::to_string(p));
            py::array in = contiguous<T>(x), y = empty<T>(shape_of(x));
            const T* from = data<T>(in);
            T* to = mutable_data<T>(y);
            WithoutGil guard(double(x.size()));
            dropout_kernels<T>().forward(long(x.size()), from, p, key, offset, to);
            return y;
        });
    }, py::arg("x"), py::arg("p"), py::arg("key"), py::arg("offset"));
}

}  // namespace mt
