#include "topk_activation.hpp"

#include "rows.hpp"
#include "threads.hpp"

// Nothing is sorted. The bits of a float, read as an integer, are in the order of the floats; so the k-th largest key
// is found bit by bit from the top, as in long division: a bit belongs to it if at least k keys are that large. Each
// trial counts a row that lies in the L1 cache, a vector at a time; the first trial that leaves exactly k ends the
// search. What equals the k-th largest is taken in the order of the row until there are k.

namespace mt::MT_ISA {
namespace {

template <class T> using integer = typename vector_types<T>::integer;

// Keys that sort as the values do. -0 is 0, and NaN is larger than all.
template <class T> void keys_of(const T* x, long width, bool by_magnitude, T* keys) {
    constexpr int sign = int(sizeof(T)) * 8 - 1;
    constexpr integer<T> low = integer<T>(~(std::uint64_t(1) << 63) >> (63 - sign));  // all bits but the sign
    for_vectors<T>(width, [=](long i, auto part) {
        const vec<T> value = part.get(x + i) + T(0);
        const ints<T> bits = ints<T>(value);
        const ints<T> ordered = by_magnitude ? bits & low : bits ^ ((bits >> sign) & low);
        const ints<T> largest = (ints<T>{} + low);
        part.put(keys + i, vec<T>(value == value ? ordered : largest));
    });
}

template <class T> long count_from(const integer<T>* keys, long width, integer<T> least) {
    ints<T> count[2] = {};
    long i = 0, rest = 0;
    for (; i + 2 * lanes<T> <= width; i += 2 * lanes<T>)
        for (int j = 0; j < 2; j++) {
            ints<T> here;
            __builtin_memcpy(&here, keys + i + j * lanes<T>, sizeof here);
            count[j] -= here >= least;
        }
    for (; i < width; i++) rest += keys[i] >= least;
    const ints<T> both = count[0] + count[1];
    for (int j = 0; j < lanes<T>; j++) rest += long(both[j]);
    return rest;
}

// The largest key that at least k keys reach; or, found sooner, one that exactly k keys reach.
template <class T> integer<T> threshold(const integer<T>* keys, long width, long k) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    constexpr int sign = int(sizeof(T)) * 8 - 1;
    Bits found = Bits(1) << sign;  // the smallest integer, which all reach
    for (int bit = sign; bit >= 0; bit--) {
        const Bits trial = found + (Bits(1) << bit);
        const long count = count_from<T>(keys, width, integer<T>(trial));
        if (count >= k) found = trial;
        if (count == k) break;
    }
    return integer<T>(found);
}

template <class T>
void select(long rows, long width, long k, bool by_magnitude, const T* x, T* y, int32_t* indices) {
    const long room = (width + 15) / 16 * 16;
    T* memory = static_cast<T*>(thread_scratch(sizeof(T) * size_t(room) * size_t(thread_count())));
    parallel_for(rows, rows_per_chunk(8 * width), [=](long begin, long end, int thread) {
        T* bits = memory + thread * room;
        const auto* keys = reinterpret_cast<const integer<T>*>(bits);
        for (long r = begin; r < end; r++) {
            const T* from = x + r * width;
            T* to = y + r * width;
            int32_t* at = indices + r * k;
            keys_of(from, width, by_magnitude, bits);
            const integer<T> least = threshold<T>(keys, width, k);
            constexpr integer<T> top = integer<T>(~std::uint64_t(0) >> (65 - 8 * sizeof(T)));
            long ties = k - (least == top ? 0 : count_from<T>(keys, width, integer<T>(least + 1)));
            long i = 0;
            for (long kept = 0; kept < k; i++) {
                const bool tie = keys[i] == least, keep = keys[i] > least || (tie && ties > 0);
                ties -= tie;
                to[i] = keep ? from[i] : T(0);
                at[kept] = int32_t(i);
                kept += keep;
            }
            __builtin_memset(to + i, 0, sizeof(T) * size_t(width - i));
        }
    });
}

}  // namespace

template <class T> TopkActivationKernels<T> topk_activation_kernels() {
    return {select<T>};
}
template TopkActivationKernels<float> topk_activation_kernels<float>();
template TopkActivationKernels<double> topk_activation_kernels<double>();

}  // namespace mt::MT_ISA
