// What this machine can do at most: what a ladder's rungs are measured against.
//
// Each function does its work on `ladder_threads` threads; the caller takes the time.
#include "ladder.hpp"

constexpr int SUMS = MT_WIDTH == 64 ? 24 : 12;  // independent, so that none waits for another; they fit into registers

// The compiler must believe that somebody wants the sums. Added up first: to show it the array itself would keep that
// in memory, and halve the int8 peak.
template <class V, int n> MT_INLINE void use(V (&sum)[n]) {
    V all = {};
#pragma GCC unroll 24
    for (int i = 0; i < n; i++) all += sum[i];
    asm volatile("" ::"m"(all));
}

// Rounds of SUMS × L fused multiply-adds a thread; returns the FLOPs. Nothing is read or written.
extern "C" double float_peak(long rounds) {
    parallel(ladder_threads, [=](long) {
        vec<float> sum[SUMS], x = splat(0.999f), y = splat(1e-3f);
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++) sum[i] = splat(float(i));  // all different, else one of them would do for all
        for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * x + y;
        }
        use(sum);
    });
    return 2.0 * L * SUMS * double(rounds) * ladder_threads;
}

// The same for sums of four products of bytes (dot4.hpp); a product and a sum are 2 operations.
extern "C" double int8_peak(long rounds) {
    parallel(ladder_threads, [=](long) {
        words sum[SUMS], x = words{} + 0x01020304u, y = words{} + 0x05060708u;
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++) sum[i] = words{} + unsigned(i);
        for (long r = 0; r < rounds; r++) {
            asm volatile("" : "+m"(x), "+m"(y));  // else the compiler would multiply once for all rounds
            const words a = x, b = y;
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; i++) dot4(sum[i], a, b);
        }
        use(sum);
    });
    return 8.0 * L * SUMS * double(rounds) * ladder_threads;
}

// Reads n floats, each thread its own part; returns the bytes.
extern "C" double read_memory(const float* x, long n) {
    const long part = n / ladder_threads / (4 * L) * (4 * L);
    parallel(ladder_threads, [=](long t) {
        vec<float> sum[4] = {};
        for (const float *p = x + t * part, *end = p + part; p < end; p += 4 * L)
            for (int i = 0; i < 4; i++) sum[i] += load(p + i * L);
        use(sum);
    });
    return 4.0 * double(part) * ladder_threads;
}
