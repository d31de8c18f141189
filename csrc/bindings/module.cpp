// The extension minitransformer.kernels.native._native: a function for each routine of kernels/contract.py, with its
// name and arguments.
#include <atomic>
#include <chrono>
#include <climits>
#include <cmath>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "arrays.hpp"
#include "dispatch.hpp"
#include "source_hash.hpp"
#include "threads.hpp"

namespace mt {
#define BIND(concept_name) void bind_##concept_name(py::module_&);
MT_BINDINGS
#undef BIND
}  // namespace mt

PYBIND11_MODULE(_native, m) {
    using namespace mt;
    m.attr("source_hash") = MT_SOURCE_HASH;
    isa();  // a wrong MINITRANSFORMER_ISA or MINITRANSFORMER_NUM_THREADS is an error here, not amid a kernel
    thread_count();

    m.def("thread_count", &thread_count);
    m.def("set_thread_count", [](int n) {
        WithoutGil guard(HUGE_VAL);  // it waits for a running kernel
        set_thread_count(n);
    }, py::arg("n"));
    m.def("isa", [] { return isa_name(isa()); });
    m.def("isas", [] {
        py::list names;
        for (Isa i : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_vnni, Isa::avx512_bf16})
            if (isa_runs(i)) names.append(isa_name(i));
        return names;
    });
    // Seconds of a region in which every thread waits until it sees all the others (or gives up: somebody else may have
    // their CPU): how fast the cores hear of each other at the moment.
    m.def("region_seconds", [](int times) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < times; i++) {
            std::atomic<int> here{0};
            parallel_region([&](Team&) {
                here++;
                for (int tries = 0; here.load() < thread_count() && tries < 100'000;) tries++;
            });
        }
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / times;
    }, py::arg("times"), py::call_guard<py::gil_scoped_release>());
    m.def("keep_freed_memory", [] {
#if defined(__GLIBC__)
        return mallopt(M_MMAP_THRESHOLD, 1 << 30) == 1 && mallopt(M_TRIM_THRESHOLD, INT_MAX) == 1;
#else
        return false;
#endif
    });

#define BIND(concept_name) bind_##concept_name(m);
    MT_BINDINGS
#undef BIND
}
