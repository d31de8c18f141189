#include "quantized_gemm.hpp"

#include <array>

#include "activations.hpp"
#include "arrays.hpp"

namespace mt {
namespace {

// A Python QuantizedWeight, once more checked: its bytes are all that its shape and format need. The bytes themselves
// are not looked at, which would be to read a large weight twice: no address depends on them, and a zero-point above 15,
// which Python refuses, spoils the group that it belongs to and no other.
struct HeldWeight {
    QuantizedWeight weight;
    py::array data;  // keeps the bytes alive
};

HeldWeight weight_of(const py::object& object) {
    constexpr std::array names = {"int8", "int4", "int4_zero", "q8_0", "q4_0", "q4_1", "float16", "bfloat16"};
    const auto wrong = [](const std::string& what) { throw py::value_error("quantized_gemm: weight " + what); };
    HeldWeight held;
    QuantizedWeight& w = held.weight;
    try {
        const auto format = object.attr("format").cast<std::string>();
        const auto layout = object.attr("layout").cast<std::string>();
        size_t at = 0;
        while (at < names.size() && format != names[at]) at++;
        if (at == names.size()) wrong("has the unknown format " + format);
        if (layout != "rows" && layout != "panels") wrong("has the unknown layout " + layout);
        w.format = WeightFormat(at);
        w.panels = layout == "panels";
        const auto [N, K] = object.attr("shape").cast<std::pair<long, long>>();
        w.N = N, w.K = K, w.group = object.attr("group").cast<long>();
        held.data = object.attr("data").cast<py::array>();
    } catch (const py::cast_error&) {
        throw py::type_error("quantized_gemm: weight must be a QuantizedWeight");
    } catch (const py::error_already_set&) {
        throw py::type_error("quantized_gemm: weight must be a QuantizedWeight");
    }
    const py::array& data = held.data;
    if (data.ndim() != 1 || data.itemsize() != 1 || (data.shape(0) > 1 && data.strides(0) != 1))
        wrong("has data that are not contiguous bytes");
    // No length below can wrap: rows and bytes of a row are bounded before they multiply.
    constexpr long large = 1L << 40;
    if (w.N < 0 || w.K < 0 || w.N > large || w.K > large) wrong("has the impossible shape " + text({w.N, w.K}));
    if (has_one_group(w.format) ? w.group != w.K : (w.group != 32 && w.group != 64 && w.group != 128) || w.K % w.group)
        wrong("has a group of " + std::to_string(w.group) + " for K = " + std::to_string(w.K));
    const long blocks = w.panels ? panels_of(w) : w.N;
    if (__int128(blocks) * groups_of(w) * stored_block(w) != __int128(data.shape(0)))
        wrong("has " + std::to_string(data.shape(0)) + " bytes, not those of its format and shape " + text({w.N, w.K}));
    w.data = static_cast<const uint8_t*>(data.data());
    return held;
}

void check_float32(const char* routine, const char* name, const py::array& x) {
    if (is<float>(x)) return;
    unsupported(std::string(routine) + ": the native kernel takes float32, got " + std::string(py::str(x.dtype())) +
                " for " + name);
}

float scale_of(const char* routine, const char* name, const std::optional<double>& scale) {
    if (!scale) return 0;
    const float rounded = float(*scale);
    if (!(rounded > 0) || rounded > 3.4028234e38f)
        throw py::value_error(std::string(routine) + ": " + name + " must be positive and finite");
    return rounded;
}

py::array quantized_gemm(const py::array& x, const py::object& weight, OptionalArray bias,
                         const std::optional<std::string>& activation, const std::string& inputs,
                         const std::optional<double>& input_scale) {
    const char* name = "quantized_gemm";
    check_float32(name, "x", x);
    check_rank(name, "x", x, 1);
    const HeldWeight held = weight_of(weight);
    const QuantizedWeight& w = held.weight;
    Shape shape = shape_of(x);
    shape.back() = w.K;
    check_shape(name, "x", x, shape);
    if (bias) {
        check_dtype<float>(name, "bias", *bias);
        check_shape(name, "bias", *bias, {w.N});
        bias = contiguous<float>(*bias);
    }
    const Activation f = activation_of(name, activation);
    if (inputs != "float" && inputs != "int8")
        throw py::value_error("quantized_gemm: inputs must be \"float\" or \"int8\", got \"" + inputs + '"');
    const bool integer = inputs == "int8";
    if (integer && is_half(w.format))
        throw py::value_error("quantized_gemm: a weight in half precision takes inputs=\"float\"");
    if (integer && w.format == WeightFormat::int8 && w.K > 1L << 17)
        unsupported("quantized_gemm: sums of more than 2**17 products of int8 do not fit 32 bits");
    const float scale = scale_of(name, "input_scale", input_scale);
    const py::array in = contiguous<float>(x);
    shape.back() = w.N;
    py::array y = empty<float>(shape);
    long M = 1;
    for (int i = 0; i + 1 < x.ndim(); i++) M *= x.shape(i);
    WithoutGil guard(double(M) * double(w.N) * double(w.K));
    quantized_kernels<float>().multiply({M, data<float>(in), w.K, w, bias ? data<float>(*bias) : nullptr, f,
                                         integer, scale, mutable_data<float>(y)});
    return y;
}

py::tuple quantize_rows(const py::array& x, const std::optional<double>& scale) {
    check_float32("quantize_rows", "x", x);
    check_rank("quantize_rows", "x", x, 1);
    const float given = scale_of("quantize_rows", "scale", scale);
    const py::array in = contiguous<float>(x);
    Shape shape = shape_of(x);
    py::array codes = empty<int8_t>(shape);
    const long K = shape.back();
    shape.pop_back();
    py::array scales = empty<float>(shape);
    long M = 1;
    for (py::ssize_t n : shape) M *= n;
    {
        WithoutGil guard(double(M) * double(K));
        quantized_kernels<float>().quantize_rows(M, K, data<float>(in), K, given, mutable_data<int8_t>(codes),
                                                 mutable_data<float>(scales));
    }
    return py::make_tuple(codes, scales);
}

}  // namespace

void bind_quantized_gemm(py::module_& m) {
    m.def("quantized_gemm", &quantized_gemm, py::arg("x"), py::arg("weight"), py::arg("bias") = py::none(),
          py::arg("activation") = py::none(), py::arg("inputs") = "float", py::arg("input_scale") = py::none());
    m.def("quantize_rows", &quantize_rows, py::arg("x"), py::arg("scale") = py::none());
}

}  // namespace mt
