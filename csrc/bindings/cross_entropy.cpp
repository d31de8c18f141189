#include "cross_entropy.hpp"

#include "indices.hpp"

namespace mt {
namespace {

py::array checked_targets(const char* routine, const py::array& logits, const py::array& targets, int64_t ignored,
                          double smoothing) {
    check_rank(routine, "logits", logits, 2, 2);
    check_shape(routine, "targets", targets, {logits.shape(0)});
    if (!(smoothing >= 0 && smoothing <= 1))
        throw py::value_error(std::string(routine) + ": label_smoothing must lie in [0, 1], got " +
                              std::to_string(smoothing));
    return checked_indices(routine, "targets", targets, logits.shape(1), &ignored);
}

py::tuple forward(const py::array& logits, const py::array& targets, int64_t ignore_index, double label_smoothing) {
    return with_float("cross_entropy_forward", logits, [&](auto zero) {
        using T = decltype(zero);
        py::array index = checked_targets("cross_entropy_forward", logits, targets, ignore_index, label_smoothing);
        py::array x = contiguous<T>(logits), losses = empty<T>({logits.shape(0)}), lse = empty<T>({logits.shape(0)});
        {
            WithoutGil guard(double(logits.size()));
            const Targets t{static_cast<const int64_t*>(index.data()), ignore_index, label_smoothing};
            cross_entropy_kernels<T>().forward(long(x.shape(0)), long(x.shape(1)), data<T>(x), t,
                                               mutable_data<T>(losses), mutable_data<T>(lse));
        }
        return py::make_tuple(losses, lse);
    });
}

py::array backward(const py::array& dlosses, const py::array& logits, const py::array& targets, const py::array& lse,
                   int64_t ignore_index, double label_smoothing) {
    return with_float("cross_entropy_backward", logits, [&](auto zero) {
        using T = decltype(zero);
        constexpr const char* routine = "cross_entropy_backward";
        py::array index = checked_targets(routine, logits, targets, ignore_index, label_smoothing);
        check_dtype<T>(routine, "dlosses", dlosses);
        check_dtype<T>(routine, "lse", lse);
        check_shape(routine, "dlosses", dlosses, {logits.shape(0)});
        check_shape(routine, "lse", lse, {logits.shape(0)});
        py::array d = contiguous<T>(dlosses), x = contiguous<T>(logits), l = contiguous<T>(lse);
        py::array dlogits = empty<T>(shape_of(logits));
        T* dx = mutable_data<T>(dlogits);
        WithoutGil guard(double(logits.size()));
        const Targets t{static_cast<const int64_t*>(index.data()), ignore_index, label_smoothing};
        cross_entropy_kernels<T>().backward(long(x.shape(0)), long(x.shape(1)), data<T>(d), data<T>(x), t, data<T>(l),
                                            dx);
        return dlogits;
    });
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
    const auto logits = py::arg("logits"), targets = py::arg("targets");
    m.def("cross_entropy_forward", forward, logits, targets, py::arg("ignore_index") = -100,
          py::arg("label_smoothing") = 0.0);
    m.def("cross_entropy_backward", backward, py::arg("dlosses"), logits, targets, py::arg("lse"),
          py::arg("ignore_index") = -100, py::arg("label_smoothing") = 0.0);
}

}  // namespace mt
