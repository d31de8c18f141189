// What the ladders share: vectors as wide as this machine's registers, and threads.
//
// A ladder is compiled on first use for the processor it runs on (-march=native), and is no part of what is distributed
// as binary. A rung is a function of its own, introduced by a comment that the command line reads too:
//
//     // [3] cache blocks: what is new                      the ladder's third rung
//     // [3, failed] some idea: what was tried              left beside it, with the numbers that speak against it
#pragma once
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define MT_WIDTH 64
#elif defined(__AVX2__) && defined(__FMA__)
#define MT_WIDTH 32
#else
#define MT_WIDTH 16
#endif
#define MT_ISA ladder
#include <atomic>
#include <thread>
#include <vector>

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 says it of its own headers
#include "../dot4.hpp"
#include "../simd.hpp"

using namespace mt::ladder;  // vec<float>, load, store, splat, vexp …

constexpr int L = lanes<float>;

// 0 1 2 …, one number a lane
static inline vec<float> lane_numbers() {
    vec<float> x;
    for (int i = 0; i < L; i++) x[i] = float(i);
    return x;
}

extern "C" int ladder_threads;
int ladder_threads = 1;

// f(i) for 0 <= i < n, dealt out one by one. The shipped kernels keep a pool of threads (threads.hpp) instead of
// starting them: some 50 µs each.
template <class F> void parallel(long n, F f) {
    std::atomic<long> next{0};
    auto work = [&] {
        for (long i; (i = next++) < n;) f(i);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < ladder_threads; t++) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
}
