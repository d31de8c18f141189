#include "attention.hpp"

#include "arrays.hpp"

namespace mt {
namespace {

// x itself where its rows are unit-stride, else a copy.
template <class T>
py::array with_rows(const py::array& x) {
    bool unit = addressable<T>(x) && (x.shape(3) < 2 || stride<T>(x, 3) == 1);
    return unit ? x : contiguous<T>(x);
}

template <class T>
Heads<const T> heads(const py::array& x) {
    return {data<T>(x), stride<T>(x, 0), stride<T>(x, 1), stride<T>(x, 2)};
}

// A new (B, H, T, width) array that lies in memory as (B, T, H, width): merging the heads again needs no copy.
template <class T>
py::array merged(const Shape& shape) {
    const py::ssize_t row = shape[1] * shape[3] * py::ssize_t(sizeof(T)), head = shape[3] * py::ssize_t(sizeof(T));
    return py::array(py::dtype::of<T>(), shape, Shape{shape[2] * row, head, row, py::ssize_t(sizeof(T))});
}

template <class T>
Heads<T> heads_of(const py::array& x) {
    return {mutable_data<T>(x), stride<T>(x, 0), stride<T>(x, 1), stride<T>(x, 2)};
}

// The inputs of one call, checked; it holds the copies that had to be made.
template <class T>
struct Inputs {
    py::array q, k, v, mask;
    AttentionInput<T> in{};

    // Without values (attention_probabilities) v is k.
    Inputs(const char* name, const py::array& q_, const py::array& k_, const py::array& v_, double scale, bool causal,
           const OptionalArray& mask_) {
        check_rank(name, "q", q_, 4, 4);
        check_rank(name, "k", k_, 4, 4);
        check_rank(name, "v", v_, 4, 4);
        check_dtype<T>(name, "k", k_);
        check_dtype<T>(name, "v", v_);
        check_shape(name, "k", k_, {q_.shape(0), q_.shape(1), k_.shape(2), q_.shape(3)});
        check_shape(name, "v", v_, {q_.shape(0), q_.shape(1), k_.shape(2), v_.shape(3)});
        q = with_rows<T>(q_);
        k = with_rows<T>(k_);
        v = with_rows<T>(v_);
        in = {q.shape(0),  q.shape(1),  q.shape(2),  k.shape(2), q.shape(3), v.shape(3),
              heads<T>(q), heads<T>(k), heads<T>(v), {},         scale,      causal};
        if (mask_) add(name, *mask_);
    }

    void add(const char* name, const py::array& given) {
        check_dtype<T>(name, "mask", given);
        const Shape scores{in.batches, in.heads, in.queries, in.keys};
        const int missing = 4 - int(given.ndim());
        bool fits = missing >= 0;
        for (int i = 0; fits && i < given.ndim(); i++)
            fits = given.shape(i) == 1 || given.shape(i) == scores[missing + i];
        if (!fits)
            throw py::value_error(std::string(name) + ": mask " + text(shape_of(given)) +
                                  " does not broadcast to the scores " + text(scores));
        mask = addressable<T>(given) ? given : contiguous<T>(given);
        long along[4] = {};
        for (int i = 0; i < mask.ndim(); i++)
            if (mask.shape(i) > 1) along[missing + i] = stride<T>(mask, i);
        in.mask = {data<T>(mask), along[0], along[1], along[2], along[3]};
    }

    Shape rows(long queries_or_keys, long width) const { return {in.batches, in.heads, queries_or_keys, width}; }
    double work() const { return double(in.batches) * in.heads * in.queries * in.keys * (in.width + in.value_width); }
};

// An array of the forward pass that backward gets again.
template <class T>
void check_saved(const char* name, const char* argument, const py::array& x, const Shape& shape) {
    check_dtype<T>(name, argument, x);
    check_shape(name, argument, x, shape);
}

py::tuple forward(const py::array& q, const py::array& k, const py::array& v, double scale, bool causal,
                  const OptionalArray& mask) {
    const char* name = "attention_forward";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        Inputs<T> given(name, q, k, v, scale, causal, mask);
        py::array o = merged<T>(given.rows(given.in.queries, given.in.value_width));
        py::array lse = empty<T>({given.in.batches, given.in.heads, given.in.queries});
        const Heads<T> out = heads_of<T>(o);
        T* levels = mutable_data<T>(lse);
        {
            WithoutGil guard(given.work());
            attention_kernels<T>().forward(given.in, out, levels);
        }
        return py::make_tuple(o, lse);
    });
}

py::tuple backward(const py::array& dout, const py::array& q, const py::array& k, const py::array& v,
                   const py::array& o, const py::array& lse, double scale, bool causal, const OptionalArray& mask) {
    const char* name = "attention_backward";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        Inputs<T> given(name, q, k, v, scale, causal, mask);
        const AttentionInput<T>& in = given.in;
        check_saved<T>(name, "do", dout, given.rows(in.queries, in.value_width));
        check_saved<T>(name, "o", o, given.rows(in.queries, in.value_width));
        check_saved<T>(name, "lse", lse, {in.batches, in.heads, in.queries});
        const py::array dout_rows = with_rows<T>(dout), o_rows = with_rows<T>(o), lse_row = contiguous<T>(lse);
        py::array dq = merged<T>(given.rows(in.queries, in.width));
        py::array dk = merged<T>(given.rows(in.keys, in.width));
        py::array dv = merged<T>(given.rows(in.keys, in.value_width));
        const Heads<const T> cotangent = heads<T>(dout_rows), output = heads<T>(o_rows);
        const Heads<T> to_q = heads_of<T>(dq), to_k = heads_of<T>(dk), to_v = heads_of<T>(dv);
        const T* levels = data<T>(lse_row);
        {
            WithoutGil guard(given.work());
            attention_kernels<T>().backward(in, cotangent, output, levels, to_q, to_k, to_v);
        }
        return py::make_tuple(dq, dk, dv);
    });
}

py::array probabilities(const py::array& q, const py::array& k, const py::array& lse, double scale, bool causal,
                        const OptionalArray& mask) {
    const char* name = "attention_probabilities";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        Inputs<T> given(name, q, k, k, scale, causal, mask);
        const AttentionInput<T>& in = given.in;
        check_saved<T>(name, "lse", lse, {in.batches, in.heads, in.queries});
        const py::array lse_row = contiguous<T>(lse);
        py::array p = empty<T>({in.batches, in.heads, in.queries, in.keys});
        const T* levels = data<T>(lse_row);
        T* out = mutable_data<T>(p);
        {
            WithoutGil guard(given.work());
            attention_kernels<T>().probabilities(in, levels, out);
        }
        return p;
    });
}

}  // namespace

void bind_attention(py::module_& m) {
    using py::arg;
    const auto scale = arg("scale");
    const auto causal = arg("causal") = false;
    const auto mask = arg("mask") = py::none();
    m.def("attention_forward", &forward, arg("q"), arg("k"), arg("v"), py::kw_only(), scale, causal, mask);
    m.def("attention_backward", &backward, arg("do"), arg("q"), arg("k"), arg("v"), arg("o"), arg("lse"), py::kw_only(),
          scale, causal, mask);
    m.def("attention_probabilities", &probabilities, arg("q"), arg("k"), arg("lse"), py::kw_only(), scale, causal,
          mask);
}

}  // namespace mt
