#include "embedding.hpp"

#include <memory>

#include "indices.hpp"

namespace mt {
namespace {

py::array backward(const py::array& dy, const py::array& indices, int64_t rows) {
    return with_float("embedding_backward", dy, [&](auto zero) {
        using T = decltype(zero);
        constexpr const char* routine = "embedding_backward";
        check_rank(routine, "dy", dy, 1);
        const py::ssize_t width = dy.shape(dy.ndim() - 1);
        Shape expected = shape_of(indices);
        expected.push_back(width);
        check_shape(routine, "dy", dy, expected);
        if (rows < 0)
            throw py::value_error("embedding_backward: rows must not be negative, got " + std::to_string(rows));
        py::array at = checked_indices(routine, "indices", indices, rows), from = contiguous<T>(dy);
        py::array dweight = empty<T>({rows, width});
        T* to = mutable_data<T>(dweight);
        WithoutGil guard(double(dy.size()) + double(dweight.size()));
        const long count = long(at.size());
        std::unique_ptr<long[]> starts(new long[size_t(rows) + 1]), order(new long[size_t(count)]);
        embedding_kernels<T>().backward(count, long(width), long(rows), data<T>(from),
                                        static_cast<const int64_t*>(at.data()), to, starts.get(), order.get());
        return dweight;
    });
}

}  // namespace

void bind_embedding(py::module_& m) {
    m.def("embedding_backward", backward, py::arg("dy"), py::arg("indices"), py::arg("rows"));
}

}  // namespace mt
