// Launches one kernel of a built library: for sanitizers, which want a whole program (kernels/cuda/sanitize.py).
//
//   run_kernel REQUEST       a text file:
//       library kernel
//       gridx gridy gridz blockx blocky blockz shared_bytes order seed os_threads
//       array FILE BYTES | value HEX | null          one line an argument
//
// An array is allocated with exactly its bytes, so that AddressSanitizer sees the first one beyond, and written back to
// its file afterwards. Ends with 0, or with 3 and the launch's message.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "launch_request.h"

namespace {

struct Argument {
    std::string file;
    size_t bytes = 0;
    void* array = nullptr;
    unsigned char value[256] = {};
};

[[noreturn]] void stop(const std::string& why) {
    std::cerr << why << "\n";
    std::exit(2);
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) stop("usage: run_kernel REQUEST");
    std::ifstream request(words[1]);
    std::string library, kernel, kind;
    cuda_emulator::Launch launch{};
    std::getline(request, library);
    request >> kernel;
    for (unsigned& n : launch.grid) request >> n;
    for (unsigned& n : launch.block) request >> n;
    request >> launch.shared_bytes >> launch.order >> launch.seed >> launch.os_threads;
    if (!request) stop("the request cannot be read");

    std::vector<Argument> arguments;
    while (request >> kind) {
        Argument& argument = arguments.emplace_back();
        if (kind == "array") {
            request >> argument.bytes >> std::ws;
            std::getline(request, argument.file);
            if (posix_memalign(&argument.array, 256, argument.bytes)) stop("no memory");
            std::ifstream file(argument.file, std::ios::binary);
            file.read(static_cast<char*>(argument.array), std::streamsize(argument.bytes));
        } else if (kind == "value") {
            std::string hex;
            request >> hex;
            for (size_t i = 0; 2 * i + 1 < hex.size() && i < sizeof argument.value; i++)
                argument.value[i] = static_cast<unsigned char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
        }
    }
    std::vector<void*> addresses;
    for (Argument& argument : arguments)
        addresses.push_back(argument.file.empty() ? static_cast<void*>(argument.value) : &argument.array);

    void* const loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!loaded) stop(dlerror());
    using Run = int (*)(const cuda_emulator::Launch*);
    const auto run = reinterpret_cast<Run>(dlsym(loaded, (kernel + "_launch").c_str()));
    if (!run) stop(dlerror());
    char message[4096] = "";
    launch.arguments = addresses.data(), launch.message = message, launch.message_bytes = sizeof message;
    const int failed = run(&launch);
    if (failed) std::cerr << "KernelError: " << message << "\n";
    for (const Argument& argument : arguments) {
        if (argument.file.empty()) continue;
        std::ofstream file(argument.file, std::ios::binary);
        file.write(static_cast<char*>(argument.array), std::streamsize(argument.bytes));
    }
    return failed ? 3 : 0;
}
