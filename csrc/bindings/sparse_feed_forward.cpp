#include "sparse_feed_forward.hpp"

#include "indices.hpp"

namespace mt {
namespace {

// a is x (tokens, width) of gathered_linear or a (tokens, k) of gathered_sum; the result has the other shape.
template <bool is_linear> py::array gathered(const py::array& a, const py::array& weight, const py::array& indices) {
    constexpr const char* routine = is_linear ? "gathered_linear" : "gathered_sum";
    constexpr const char* argument = is_linear ? "x" : "a";
    return with_float(routine, a, [&](auto zero) {
        using T = decltype(zero);
        check_rank(routine, "indices", indices, 2, 2);
        check_rank(routine, "weight", weight, 2, 2);
        check_dtype<T>(routine, "weight", weight);
        check_rank(routine, argument, a, 2, 2);
        const py::ssize_t tokens = a.shape(0), k = indices.shape(1), width = weight.shape(1);
        const bool shared = indices.shape(0) == 1;
        if (!shared) check_shape(routine, "indices", indices, {tokens, k});
        check_shape(routine, argument, a, {tokens, is_linear ? width : k});
        const py::array at = checked_indices(routine, "indices", indices, weight.shape(0));
        const py::array from = contiguous<T>(a), w = contiguous<T>(weight);
        const py::array y = empty<T>({tokens, is_linear ? k : width});
        const GatheredInput<T> in{data<T>(w), static_cast<const int64_t*>(at.data()), long(tokens), long(k),
                                  long(width), shared};
        const T* left = data<T>(from);
        T* out = mutable_data<T>(y);
        {
            WithoutGil guard(double(tokens) * double(k) * double(width));
            const auto& kernels = sparse_feed_forward_kernels<T>();
            (is_linear ? kernels.linear : kernels.sum)(in, left, out);
        }
        return y;
    });
}

}  // namespace

void bind_sparse_feed_forward(py::module_& m) {
    m.def("gathered_linear", gathered<true>, py::arg("x"), py::arg("weight"), py::arg("indices"));
    m.def("gathered_sum", gathered<false>, py::arg("a"), py::arg("weight"), py::arg("indices"));
}

}  // namespace mt
