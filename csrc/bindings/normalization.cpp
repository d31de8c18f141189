#include "normalization.hpp"

#include <memory>

#include "arrays.hpp"

namespace mt {
namespace {

// x as rows of its last axis; the arrays along that axis and those with one number a row, by name
struct Norm {
    const char* routine;
    Shape shape, row_shape;
    long rows, width;

    Norm(const char* name, const py::array& x) : routine(name) {
        check_rank(routine, "x", x, 1);
        shape = shape_of(x);
        row_shape = Shape(shape.begin(), shape.end() - 1);
        rows = 1, width = long(shape.back());
        for (py::ssize_t n : row_shape) rows *= long(n);
    }
    template <class T> py::array along(const char* name, const py::array& a) const {
        return checked<T>(name, a, {width});
    }
    template <class T> py::array one_per_row(const char* name, const py::array& a) const {
        return checked<T>(name, a, row_shape);
    }
    template <class T> py::array like_x(const char* name, const py::array& a) const {
        return checked<T>(name, a, shape);
    }
    double work() const { return double(rows) * double(width); }

  private:
    template <class T> py::array checked(const char* name, const py::array& a, const Shape& expected) const {
        check_dtype<T>(routine, name, a);
        check_shape(routine, name, a, expected);
        return contiguous<T>(a);
    }
};

template <class T> std::unique_ptr<T[]> room_for_partial_sums(const Norm& n, long sums) {
    return std::unique_ptr<T[]>(new T[size_t(norm_blocks(n.rows)) * size_t(n.width) * size_t(sums)]);
}

py::tuple layer_norm_forward(const py::array& x, const py::array& weight, const OptionalArray& bias, double eps) {
    return with_float("layer_norm_forward", x, [&](auto zero) {
        using T = decltype(zero);
        const Norm n("layer_norm_forward", x);
        py::array in = contiguous<T>(x), w = n.along<T>("weight", weight), b = bias ? n.along<T>("bias", *bias) : w;
        py::array y = empty<T>(n.shape), mean = empty<T>(n.row_shape), rstd = empty<T>(n.row_shape);
        {
            WithoutGil guard(n.work());
            normalization_kernels<T>().layer_norm(n.rows, n.width, data<T>(in), data<T>(w), bias ? data<T>(b) : nullptr,
                                                  eps, mutable_data<T>(y), mutable_data<T>(mean),
                                                  mutable_data<T>(rstd));
        }
        return py::make_tuple(y, mean, rstd);
    });
}

py::tuple layer_norm_backward(const py::array& dy, const py::array& x, const py::array& weight, const py::array& mean,
                              const py::array& rstd) {
    return with_float("layer_norm_backward", x, [&](auto zero) {
        using T = decltype(zero);
        const Norm n("layer_norm_backward", x);
        py::array d = n.like_x<T>("dy", dy), in = contiguous<T>(x), w = n.along<T>("weight", weight);
        py::array means = n.one_per_row<T>("mean", mean), scales = n.one_per_row<T>("rstd", rstd);
        py::array dx = empty<T>(n.shape), dweight = empty<T>({n.width}), dbias = empty<T>({n.width});
        {
            WithoutGil guard(n.work());
            auto partial = room_for_partial_sums<T>(n, 2);
            normalization_kernels<T>().layer_norm_backward(
                n.rows, n.width, data<T>(d), data<T>(in), data<T>(w), data<T>(means), data<T>(scales),
                mutable_data<T>(dx), mutable_data<T>(dweight), mutable_data<T>(dbias), partial.get());
        }
        return py::make_tuple(dx, dweight, dbias);
    });
}

py::tuple rms_norm_forward(const py::array& x, const py::array& weight, double eps) {
    return with_float("rms_norm_forward", x, [&](auto zero) {
        using T = decltype(zero);
        const Norm n("rms_norm_forward", x);
        py::array in = contiguous<T>(x), w = n.along<T>("weight", weight), y = empty<T>(n.shape),
                  rstd = empty<T>(n.row_shape);
        {
            WithoutGil guard(n.work());
            normalization_kernels<T>().rms_norm(n.rows, n.width, data<T>(in), data<T>(w), eps, mutable_data<T>(y),
                                                mutable_data<T>(rstd));
        }
        return py::make_tuple(y, rstd);
    });
}

py::tuple rms_norm_backward(const py::array& dy, const py::array& x, const py::array& weight, const py::array& rstd) {
    return with_float("rms_norm_backward", x, [&](auto zero) {
        using T = decltype(zero);
        const Norm n("rms_norm_backward", x);
        py::array d = n.like_x<T>("dy", dy), in = contiguous<T>(x), w = n.along<T>("weight", weight);
        py::array scales = n.one_per_row<T>("rstd", rstd), dx = empty<T>(n.shape), dweight = empty<T>({n.width});
        {
            WithoutGil guard(n.work());
            auto partial = room_for_partial_sums<T>(n, 1);
            normalization_kernels<T>().rms_norm_backward(n.rows, n.width, data<T>(d), data<T>(in), data<T>(w),
                                                         data<T>(scales), mutable_data<T>(dx), mutable_data<T>(dweight),
                                                         partial.get());
        }
        return py::make_tuple(dx, dweight);
    });
}

}  // namespace

void bind_normalization(py::module_& m) {
    const auto dy = py::arg("dy"), x = py::arg("x"), weight = py::arg("weight"), mean = py::arg("mean"),
               rstd = py::arg("rstd");
    m.def("layer_norm_forward", layer_norm_forward, x, weight, py::arg("bias").none(true), py::arg("eps"));
    m.def("layer_norm_backward", layer_norm_backward, dy, x, weight, mean, rstd);
    m.def("rms_norm_forward", rms_norm_forward, x, weight, py::arg("eps"));
    m.def("rms_norm_backward", rms_norm_backward, dy, x, weight, rstd);
}

}  // namespace mt
