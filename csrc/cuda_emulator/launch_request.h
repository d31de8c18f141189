// What a launch is told: Python (kernels/cuda/emulator.py) has the same fields in the same order.
#pragma once
#include <cstdint>

namespace cuda_emulator {

struct Launch {
    unsigned grid[3], block[3];
    uint64_t shared_bytes;
    void** arguments;          // the address of each argument's value
    uint64_t seed;
    int order, os_threads;
    char* message;             // room for what went wrong
    uint64_t message_bytes;
};

}  // namespace cuda_emulator
