// The names of the activations that a product can end with, as kernels/contract.py has them.
#pragma once
#include <optional>
#include <string>

#include "activation.hpp"
#include "arrays.hpp"

namespace mt {

inline Activation activation_of(const char* routine, const std::optional<std::string>& name) {
    if (!name) return Activation::none;
    if (*name == "relu") return Activation::relu;
    if (*name == "gelu") return Activation::gelu;
    if (*name == "gelu_tanh") return Activation::gelu_tanh;
    if (*name == "silu") return Activation::silu;
    throw py::value_error(std::string(routine) +
                          ": activation must be None, \"relu\", \"gelu\", \"gelu_tanh\" or \"silu\", got \"" + *name + '"');
}

}  // namespace mt
