#include "matmul_bfloat16.hpp"

#include "arrays.hpp"

namespace mt {
namespace {

// A matrix with one dense axis, copied first where it has none. An axis of one element counts as dense.
Matrix<const float> dense(py::array& x, int rows_axis) {
    const int m = rows_axis, n = rows_axis + 1;
    if (x.size() && addressable<float>(x)) {
        const long row = stride<float>(x, m), column = stride<float>(x, n);
        if (column == 1 || x.shape(n) == 1) return {data<float>(x), row, 1};
        if (row == 1 || x.shape(m) == 1) return {data<float>(x), 1, column};
    }
    x = contiguous<float>(x);
    return {data<float>(x), long(x.shape(n)), 1};
}

py::array matmul_bfloat16(py::array a, py::array b) {
    const char* name = "matmul_bfloat16";
    if (!is<float>(a))
        unsupported("matmul_bfloat16: the native kernel takes float32, got " + std::string(py::str(a.dtype())));
    check_dtype<float>(name, "b", b);
    check_rank(name, "a", a, 2);
    check_rank(name, "b", b, 2);
    if (b.ndim() > 2) unsupported("matmul_bfloat16: the native kernel takes one matrix b for all");
    const long K = b.shape(0), N = b.shape(1);
    Shape shape = shape_of(a);
    shape.back() = K;
    check_shape(name, "a", a, shape);
    shape.back() = N;
    py::array c = empty<float>(shape);
    if (c.size() == 0) return c;
    if (a.ndim() > 2) {  // leading axes become rows
        a = contiguous<float>(a);
        a = a.reshape({long(c.size() / N), K});
    }
    const Matrix<const float> left = dense(a, 0), right = dense(b, 0);
    const long M = a.shape(0);
    WithoutGil guard(double(M) * double(N) * double(K));
    matmul_bfloat16_kernels<float>().multiply({M, N, K, left, right, {mutable_data<float>(c), N, 1}});
    return c;
}

}  // namespace

void bind_matmul_bfloat16(py::module_& m) {
    m.def("matmul_bfloat16", &matmul_bfloat16, py::arg("a"), py::arg("b"));
}

}  // namespace mt
