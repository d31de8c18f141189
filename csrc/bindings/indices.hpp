// Integer arrays as kernels take them: int64, in one piece, every value within bounds.
#pragma once
#include <cstdint>

#include "arrays.hpp"

namespace mt {

// The caller may change its array from another thread while a kernel runs without the GIL: what addresses are made of is
// checked and read in a copy of our own.
inline py::array own_indices(const py::array& x) {
    const py::array copy = x.attr("astype")(py::dtype::of<int64_t>(), "C", "unsafe", /* subclasses: */ false);
    return copy;
}

// Raises TypeError for a dtype that is not integer, IndexError for a value outside [0, limit) that is not `except`.
inline py::array checked_indices(const char* routine, const char* name, const py::array& x, int64_t limit,
                                 const int64_t* except = nullptr) {
    const char kind = x.dtype().kind();
    if (kind != 'i' && kind != 'u')
        throw py::type_error(std::string(routine) + ": " + name + " must be an integer array, got " +
                             std::string(py::str(x.dtype())));
    const py::array indices = own_indices(x);
    const int64_t* at = static_cast<const int64_t*>(indices.data());
    for (py::ssize_t i = 0; i < indices.size(); i++)
        if (uint64_t(at[i]) >= uint64_t(limit) && !(except && at[i] == *except))
            throw py::index_error(std::string(routine) + ": " + name + " holds " + std::to_string(at[i]) +
                                  ", allowed are 0 to " + std::to_string(limit - 1));
    return indices;
}

}  // namespace mt
