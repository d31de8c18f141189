#include "matmul.hpp"

#include "activations.hpp"
#include "arrays.hpp"

namespace mt {
namespace {

// The last two axes of x as the kernel takes them, x copied first where neither of them is laid out densely. An axis
// of one element has no distance, so it counts as dense; so does an empty x, which NumPy calls C-contiguous whatever
// its strides.
template <class T> Matrix<const T> matrix(py::array& x) {
    const int m = int(x.ndim()) - 2, n = m + 1;
    if (x.size() == 0) return {data<T>(x), x.shape(n), 1};
    for (;;) {
        if (addressable<T>(x)) {
            const long row = stride<T>(x, m), column = stride<T>(x, n);
            if (column == 1 || x.shape(n) <= 1) return {data<T>(x), row, 1};
            if (row == 1 || x.shape(m) <= 1) return {data<T>(x), 1, column};
        }
        x = contiguous<T>(x);
    }
}

// x (..., n) as a matrix (rows, n), copied first where its leading axes are no single one in memory.
template <class T> Matrix<const T> row_matrix(py::array& x) {
    const int last = int(x.ndim()) - 1;
    if (x.ndim() == 1) {
        if (addressable<T>(x) && (stride<T>(x, 0) == 1 || x.shape(0) <= 1)) return {data<T>(x), 0, 1};
    } else if (addressable<T>(x)) {
        bool one = true;
        for (int i = 0; i + 1 < last; i++)
            one &= x.shape(i) == 1 || stride<T>(x, i) == stride<T>(x, i + 1) * x.shape(i + 1);
        if (one) return matrix<T>(x);
    }
    x = contiguous<T>(x);
    return {data<T>(x), x.shape(last), 1};
}

long rows_of(const py::array& x) {
    long rows = 1;
    for (int i = 0; i + 1 < x.ndim(); i++) rows *= x.shape(i);
    return rows;
}

Shape with_last(const py::array& x, py::ssize_t last) {
    Shape shape = shape_of(x);
    shape.back() = last;
    return shape;
}

template <class T> void run(const Product<T>& product) {
    WithoutGil guard(double(product.M) * double(product.N) * double(product.K) * double(product.batch));
    matmul_kernels<T>().multiply(product);
}

// The leading axes that a and b broadcast to.
Shape broadcast(const py::array& a, const py::array& b) {
    const py::ssize_t axes = std::max(a.ndim(), b.ndim()) - 2;
    Shape shape(axes);
    for (py::ssize_t i = 0; i < axes; i++) {
        const py::ssize_t ia = i + a.ndim() - 2 - axes, ib = i + b.ndim() - 2 - axes;
        const py::ssize_t na = ia < 0 ? 1 : a.shape(ia), nb = ib < 0 ? 1 : b.shape(ib);
        if (na != nb && na != 1 && nb != 1)
            throw py::value_error("matmul: leading axes of " + text(shape_of(a)) + " and " + text(shape_of(b)) +
                                  " do not broadcast");
        shape[i] = na == 1 ? nb : na;
    }
    return shape;
}

// Where each matrix of x begins, for all of the leading shape.
template <class T> std::vector<long> starts(const py::array& x, const Shape& leading) {
    std::vector<long> start{0};
    const py::ssize_t missing = py::ssize_t(leading.size()) - (x.ndim() - 2);
    for (py::ssize_t axis = 0; axis < py::ssize_t(leading.size()); axis++) {
        const py::ssize_t i = axis - missing;
        const long distance = i < 0 || x.shape(i) == 1 ? 0 : stride<T>(x, int(i));
        std::vector<long> next;
        next.reserve(start.size() * size_t(leading[axis]));
        for (long s : start)
            for (py::ssize_t n = 0; n < leading[axis]; n++) next.push_back(s + n * distance);
        start.swap(next);
    }
    return start;
}

py::array matmul(py::array a, py::array b) {
    return with_float("matmul", a, [&](auto zero) {
        using T = decltype(zero);
        check_dtype<T>("matmul", "b", b);
        check_rank("matmul", "a", a, 2);
        check_rank("matmul", "b", b, 2);
        const long M = a.shape(a.ndim() - 2), K = a.shape(a.ndim() - 1), N = b.shape(b.ndim() - 1);
        if (b.shape(b.ndim() - 2) != K)
            throw py::value_error("matmul: a " + text(shape_of(a)) + " has " + std::to_string(K) + " columns but b " +
                                  text(shape_of(b)) + " has " + std::to_string(b.shape(b.ndim() - 2)) + " rows");
        Shape shape = broadcast(a, b);
        const Shape leading = shape;
        shape.insert(shape.end(), {M, N});
        py::array c = empty<T>(shape);
        if (c.size() == 0) return c;
        if (b.ndim() == 2) {  // one b for all: one large product
            Matrix<const T> rows = row_matrix<T>(a);
            run<T>({rows_of(a), N, K, rows, matrix<T>(b), {mutable_data<T>(c), N, 1}});
            return c;
        }
        Matrix<const T> one_a = matrix<T>(a), one_b = matrix<T>(b);
        const std::vector<long> a_start = starts<T>(a, leading), b_start = starts<T>(b, leading);
        run<T>({M, N, K, one_a, one_b, {mutable_data<T>(c), N, 1}, nullptr,
                long(a_start.size()), a_start.data(), b_start.data()});
        return c;
    });
}

py::array linear(py::array x, py::array weight, OptionalArray bias, const std::optional<std::string>& activation) {
    const Activation f = activation_of("linear", activation);
    return with_float("linear", x, [&](auto zero) {
        using T = decltype(zero);
        check_dtype<T>("linear", "weight", weight);
        check_rank("linear", "x", x, 1);
        check_rank("linear", "weight", weight, 2, 2);
        const long N = weight.shape(0), K = weight.shape(1);
        check_shape("linear", "x", x, with_last(x, K));
        if (bias) {
            check_dtype<T>("linear", "bias", *bias);
            check_shape("linear", "bias", *bias, {N});
            bias = contiguous<T>(*bias);
        }
        py::array y = empty<T>(with_last(x, N));
        const Matrix<const T> rows = row_matrix<T>(x), w = matrix<T>(weight);
        run<T>({rows_of(x), N, K, rows, {w.data, w.column, w.row}, {mutable_data<T>(y), N, 1},
                bias ? data<T>(*bias) : nullptr, 1, nullptr, nullptr, f});
        return y;
    });
}

py::tuple linear_backward(py::array dy, py::array x, py::array weight, const py::sequence& needs) {
    return with_float("linear_backward", dy, [&](auto zero) {
        using T = decltype(zero);
        check_dtype<T>("linear_backward", "x", x);
        check_dtype<T>("linear_backward", "weight", weight);
        check_rank("linear_backward", "x", x, 1);
        check_rank("linear_backward", "weight", weight, 2, 2);
        const long N = weight.shape(0), K = weight.shape(1), rows = rows_of(x);
        check_shape("linear_backward", "x", x, with_last(x, K));
        check_shape("linear_backward", "dy", dy, with_last(x, N));
        if (needs.size() != 3) throw py::value_error("linear_backward: needs must have 3 entries (dx, dweight, dbias)");
        const py::bool_ needs_dx(needs[0]), needs_dweight(needs[1]), needs_dbias(needs[2]);

        Matrix<const T> dy_rows = row_matrix<T>(dy);
        if (needs_dbias && dy_rows.column != 1) dy = contiguous<T>(dy), dy_rows = {data<T>(dy), N, 1};
        py::object dx = py::none(), dweight = py::none(), dbias = py::none();
        if (needs_dx) {
            py::array out = empty<T>(shape_of(x));
            run<T>({rows, K, N, dy_rows, matrix<T>(weight), {mutable_data<T>(out), K, 1}});
            dx = out;
        }
        if (needs_dweight) {
            py::array out = empty<T>({N, K});
            const Matrix<const T> transposed = {dy_rows.data, dy_rows.column, dy_rows.row};
            run<T>({N, K, rows, transposed, row_matrix<T>(x), {mutable_data<T>(out), K, 1}});
            dweight = out;
        }
        if (needs_dbias) {
            py::array out = empty<T>({N});
            WithoutGil guard(double(rows) * double(N));
            matmul_kernels<T>().sum_rows(rows, N, dy_rows, mutable_data<T>(out));
            dbias = out;
        }
        return py::make_tuple(dx, dweight, dbias);
    });
}

}  // namespace

void bind_matmul(py::module_& m) {
    m.def("matmul", &matmul, py::arg("a"), py::arg("b"));
    m.def("linear", &linear, py::arg("x"), py::arg("weight"), py::arg("bias") = py::none(),
          py::arg("activation") = py::none());
    m.def("linear_backward", &linear_backward, py::arg("dy"), py::arg("x"), py::arg("weight"),
          py::arg("needs") = py::make_tuple(true, true, true));
}

}  // namespace mt
