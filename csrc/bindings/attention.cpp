#include "attention.hpp"

#include "indices.hpp"

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

// The options of a call as Python gives them.
struct Options {
    double scale;
    bool causal;
    std::optional<int64_t> window, offset;
    OptionalArray mask, slopes, spans;
};

constexpr int64_t FAR = int64_t(1) << 31;  // positions and windows beyond it could overflow

int64_t bounded(const char* name, const char* argument, int64_t value, int64_t least) {
    if (value < least || value > FAR)
        throw py::value_error(std::string(name) + ": " + argument + " must lie in " + std::to_string(least) + ".." +
                              std::to_string(FAR) + ", got " + std::to_string(value));
    return value;
}

// The inputs of one call, checked; it holds the copies that had to be made.
template <class T>
struct Inputs {
    py::array q, k, v, mask, slopes, spans;
    AttentionInput<T> in{};

    // Without values (attention_probabilities) v is k.
    Inputs(const char* name, const py::array& q_, const py::array& k_, const py::array& v_, const char* k_name = "k",
           const char* v_name = "v") {
        check_rank(name, "q", q_, 4, 4);
        check_rank(name, k_name, k_, 4, 4);
        check_rank(name, v_name, v_, 4, 4);
        check_dtype<T>(name, k_name, k_);
        check_dtype<T>(name, v_name, v_);
        check_shape(name, k_name, k_, {k_.shape(0), k_.shape(1), k_.shape(2), q_.shape(3)});
        q = with_rows<T>(q_);
        k = with_rows<T>(k_);
        v = with_rows<T>(v_);
        in.batches = q.shape(0), in.heads = q.shape(1), in.groups = k.shape(1);
        in.queries = q.shape(2), in.keys = k.shape(2), in.width = q.shape(3), in.value_width = v.shape(3);
        in.q = heads<T>(q), in.k = heads<T>(k), in.v = heads<T>(v);
        if (in.groups ? in.heads % in.groups : in.heads)
            throw py::value_error(std::string(name) + ": " + std::to_string(in.groups) +
                                  " key/value heads do not divide " + std::to_string(in.heads) + " query heads");
    }

    Inputs(const char* name, const py::array& q_, const py::array& k_, const py::array& v_, const Options& options)
        : Inputs(name, q_, k_, v_) {
        check_shape(name, "k", k_, {in.batches, in.groups, in.keys, in.width});
        check_shape(name, "v", v_, {in.batches, in.groups, in.keys, in.value_width});
        set(name, options.scale, options.causal, options.window, options.slopes);
        in.sight.offset = options.offset ? bounded(name, "offset", *options.offset, -FAR) : in.keys - in.queries;
        if (options.mask) add_mask(name, *options.mask);
        if (options.spans) add_spans(name, *options.spans);
    }

    void set(const char* name, double scale, bool causal, std::optional<int64_t> window, const OptionalArray& given) {
        in.scale = scale;
        in.sight.causal = causal;
        in.sight.window = window ? bounded(name, "window", *window, 1) : 0;
        if (!given) return;
        check_dtype<T>(name, "slopes", *given);
        check_shape(name, "slopes", *given, {in.heads});
        slopes = contiguous<T>(*given);
        in.slopes = data<T>(slopes);
    }

    void add_mask(const char* name, const py::array& given) {
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

    // The kernel keeps every end within the keys, but it relies on ends that do not decrease.
    void add_spans(const char* name, const py::array& given) {
        if (given.dtype().kind() != 'i' || given.itemsize() != sizeof(int64_t))
            throw py::type_error(std::string(name) + ": spans must be an int64 array, got " +
                                 std::string(py::str(given.dtype())));
        const py::ssize_t batches = given.ndim() && given.shape(0) == 1 ? 1 : in.batches;
        check_shape(name, "spans", given, {batches, in.queries, 2});
        spans = own_indices(given);
        in.sight.spans = static_cast<const int64_t*>(spans.data());
        for (py::ssize_t n = 2; n < spans.size(); n++)
            if (n % (2 * in.queries) > 1 && in.sight.spans[n] < in.sight.spans[n - 2])
                throw py::value_error(std::string(name) + ": spans must not decrease from one query to the next");
        in.sight.spans_batch = batches == 1 ? 0 : 2 * in.queries;
    }

    Shape rows(long queries, long width) const { return {in.batches, in.heads, queries, width}; }
    double work() const { return double(in.batches) * in.heads * in.queries * in.keys * (in.width + in.value_width); }
};

// An array of the forward pass that backward gets again.
template <class T>
void check_saved(const char* name, const char* argument, const py::array& x, const Shape& shape) {
    check_dtype<T>(name, argument, x);
    check_shape(name, argument, x, shape);
}

template <class T>
py::tuple run_forward(const Inputs<T>& given) {
    py::array o = merged<T>(given.rows(given.in.queries, given.in.value_width));
    py::array lse = empty<T>({given.in.batches, given.in.heads, given.in.queries});
    const Heads<T> out = heads_of<T>(o);
    T* levels = mutable_data<T>(lse);
    {
        WithoutGil guard(given.work());
        attention_kernels<T>().forward(given.in, out, levels);
    }
    return py::make_tuple(o, lse);
}

py::tuple forward(const py::array& q, const py::array& k, const py::array& v, double scale, bool causal,
                  std::optional<int64_t> window, std::optional<int64_t> offset, const OptionalArray& mask,
                  const OptionalArray& slopes, const OptionalArray& spans) {
    const char* name = "attention_forward";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        return run_forward(Inputs<T>(name, q, k, v, Options{scale, causal, window, offset, mask, slopes, spans}));
    });
}

py::tuple paged_forward(const py::array& q, const py::array& keys, const py::array& values, const py::array& table,
                        const py::array& lengths, double scale, std::optional<int64_t> window,
                        const OptionalArray& slopes) {
    const char* name = "paged_attention_forward";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        Inputs<T> given(name, q, keys, values, "keys", "values");
        AttentionInput<T>& in = given.in;
        check_shape(name, "values", values, {keys.shape(0), in.groups, in.keys, in.value_width});
        given.set(name, scale, true, window, slopes);
        const long pages = keys.shape(0), size = in.keys;
        check_rank(name, "table", table, 2, 2);
        const long row = table.shape(1);
        check_shape(name, "table", table, {in.batches, row});
        check_shape(name, "lengths", lengths, {in.batches});
        if (size == 0)
            throw py::value_error(std::string(name) + ": a page must hold at least one token, got keys of shape " +
                                  text(shape_of(keys)));
        const py::array counts = checked_indices(name, "lengths", lengths, int64_t(row) * size + 1);
        if (table.dtype().kind() != 'i' && table.dtype().kind() != 'u')
            throw py::type_error(std::string(name) + ": table must be an integer array, got " +
                                 std::string(py::str(table.dtype())));
        const py::array numbers = own_indices(table);
        const int64_t *at = static_cast<const int64_t*>(numbers.data()),
                      *count = static_cast<const int64_t*>(counts.data());
        in.keys = 0;
        for (long b = 0; b < in.batches; b++) {
            for (long i = 0; i * size < count[b]; i++)
                if (at[b * row + i] < 0 || at[b * row + i] >= pages)
                    throw py::index_error(std::string(name) + ": table[" + std::to_string(b) + ", " +
                                          std::to_string(i) + "] is " + std::to_string(at[b * row + i]) +
                                          ", allowed are 0 to " + std::to_string(pages - 1));
            in.keys = count[b] > in.keys ? count[b] : in.keys;
        }
        in.pages = {at, count, row, size};
        return run_forward(given);
    });
}

py::tuple backward(const py::array& dout, const py::array& q, const py::array& k, const py::array& v,
                   const py::array& o, const py::array& lse, double scale, bool causal, std::optional<int64_t> window,
                   std::optional<int64_t> offset, const OptionalArray& mask, const OptionalArray& slopes,
                   const OptionalArray& spans) {
    const char* name = "attention_backward";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        Inputs<T> given(name, q, k, v, Options{scale, causal, window, offset, mask, slopes, spans});
        const AttentionInput<T>& in = given.in;
        check_saved<T>(name, "do", dout, given.rows(in.queries, in.value_width));
        check_saved<T>(name, "o", o, given.rows(in.queries, in.value_width));
        check_saved<T>(name, "lse", lse, {in.batches, in.heads, in.queries});
        const py::array dout_rows = with_rows<T>(dout), o_rows = with_rows<T>(o), lse_row = contiguous<T>(lse);
        py::array dq = merged<T>(given.rows(in.queries, in.width));
        py::array dk = merged<T>({in.batches, in.groups, in.keys, in.width});
        py::array dv = merged<T>({in.batches, in.groups, in.keys, in.value_width});
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

// The numbers wanted, all of 0 .. count - 1 if none are named.
py::array chosen(const char* name, const char* argument, const OptionalArray& given, long count) {
    if (given) {
        check_rank(name, argument, *given, 1, 1);
        return checked_indices(name, argument, *given, count);
    }
    py::array_t<int64_t> all(count);
    for (long i = 0; i < count; i++) all.mutable_at(i) = i;
    return all;
}

py::array probabilities(const py::array& q, const py::array& k, const py::array& lse, double scale, bool causal,
                        std::optional<int64_t> window, std::optional<int64_t> offset, const OptionalArray& mask,
                        const OptionalArray& slopes, const OptionalArray& spans, const OptionalArray& heads,
                        const OptionalArray& rows) {
    const char* name = "attention_probabilities";
    return with_float(name, q, [&](auto zero) {
        using T = decltype(zero);
        Inputs<T> given(name, q, k, k, Options{scale, causal, window, offset, mask, slopes, spans});
        const AttentionInput<T>& in = given.in;
        check_saved<T>(name, "lse", lse, {in.batches, in.heads, in.queries});
        const py::array lse_row = contiguous<T>(lse);
        const py::array which_heads = chosen(name, "heads", heads, in.heads);
        const py::array which_rows = chosen(name, "rows", rows, in.queries);
        const Chosen wanted{static_cast<const int64_t*>(which_heads.data()),
                            static_cast<const int64_t*>(which_rows.data()), long(which_heads.size()),
                            long(which_rows.size())};
        py::array p = empty<T>({in.batches, wanted.head_count, wanted.row_count, in.keys});
        const T* levels = data<T>(lse_row);
        T* out = mutable_data<T>(p);
        {
            WithoutGil guard(given.work());
            attention_kernels<T>().probabilities(in, levels, wanted, out);
        }
        return p;
    });
}

}  // namespace

void bind_attention(py::module_& m) {
    using py::arg;
    const auto scale = arg("scale");
    const auto causal = arg("causal") = false;
    const auto window = arg("window") = py::none(), offset = arg("offset") = py::none();
    const auto mask = arg("mask") = py::none(), slopes = arg("slopes") = py::none(), spans = arg("spans") = py::none();
    m.def("attention_forward", &forward, arg("q"), arg("k"), arg("v"), py::kw_only(), scale, causal, window, offset,
          mask, slopes, spans);
    m.def("attention_backward", &backward, arg("do"), arg("q"), arg("k"), arg("v"), arg("o"), arg("lse"), py::kw_only(),
          scale, causal, window, offset, mask, slopes, spans);
    m.def("attention_probabilities", &probabilities, arg("q"), arg("k"), arg("lse"), py::kw_only(), scale, causal,
          window, offset, mask, slopes, spans, arg("heads") = py::none(), arg("rows") = py::none());
    m.def("paged_attention_forward", &paged_forward, arg("q"), arg("keys"), arg("values"), arg("table"),
          arg("lengths"), py::kw_only(), scale, window, slopes);
}

}  // namespace mt
