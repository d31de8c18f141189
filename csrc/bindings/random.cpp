#include "random.hpp"

#include "arrays.hpp"

namespace mt {

void bind_random(py::module_& m) {
    m.def("random_bits", [](uint64_t key, uint64_t offset, py::ssize_t count, const std::string& device) {
        if (device != "cpu") unsupported("random_bits: the native kernels make words on the CPU, not on " + device);
        if (count < 0) throw py::value_error("random_bits: count must not be negative, got " + std::to_string(count));
        py::array words = empty<uint32_t>({count});
        uint32_t* to = static_cast<uint32_t*>(words.mutable_data());
        WithoutGil guard{double(count)};
        random_kernels<uint32_t>().bits(key, offset, long(count), to);
        return words;
    }, py::arg("key"), py::arg("offset"), py::arg("count"), py::arg("device") = "cpu");
}

}  // namespace mt
