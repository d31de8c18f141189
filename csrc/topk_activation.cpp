#include "topk_activation.hpp"

#include "rows.hpp"
#include "threads.hpp"

// Nothing is sorted. The bits of a float, read as an integer, are in the order of the floats; so the k-th largest key
// is found bit by bit from the top, as in long division: a bit belongs to it if at least k keys are that large. Each
// trial counts a row that lies in the L1 cache, a vector at a time; the first trial that leaves exactly k ends the
// search. If more than k keys reach the k-th largest, the last of those equal to it are made smaller. So in the end a
// comparison says what is kept, and nothing has to be guessed: y is written a vector at a time, and every index is
// written where the next one belongs, a place that only what is kept moves on.

namespace mt::MT_ISA {
namespace {

template <class T> using integer = typename vector_types<T>::integer;

template <class T> MT_INLINE ints<T> load_keys(const integer<T>* keys) {
    ints<T> v;
    __builtin_memcpy(&v, keys, sizeof v);
    return v;
}

// Keys that sort as the values do. -0 is 0, and NaN is larger than all. Whole vectors are written.
template <class T> void keys_of(const T* x, long width, bool by_magnitude, integer<T>* keys) {
    constexpr int sign = int(sizeof(T)) * 8 - 1;
    constexpr integer<T> low = integer<T>(~(std::uint64_t(1) << 63) >> (63 - sign));  // all bits but the sign
    for_vectors<T>(width, [=](long i, auto part) {
        const vec<T> value = part.get(x + i) + T(0);
        const ints<T> bits = ints<T>(value);
        const ints<T> ordered = by_magnitude ? bits & low : bits ^ ((bits >> sign) & low);
        const ints<T> key = value == value ? ordered : ints<T>{} + low;
        __builtin_memcpy(keys + i, &key, sizeof key);
    });
}

template <class T> long count_from(const integer<T>* keys, long width, integer<T> least) {
    ints<T> count[2] = {};
    long i = 0, rest = 0;
    for (; i + 2 * lanes<T> <= width; i += 2 * lanes<T>)
        for (int j = 0; j < 2; j++) count[j] -= load_keys<T>(keys + i + j * lanes<T>) >= least;
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

// keys: room for whole vectors
template <class T>
void select_row(long width, long k, bool by_magnitude, const T* x, integer<T>* keys, T* y, int32_t* indices) {
    keys_of(x, width, by_magnitude, keys);
    const integer<T> least = threshold<T>(keys, width, k);
    long surplus = count_from<T>(keys, width, least) - k;
    for (long i = width; surplus > 0;)
        if (keys[--i] == least) keys[i]--, surplus--;  // no key is the smallest integer
    for_vectors<T>(width, [=](long i, auto part) {
        part.put(y + i, load_keys<T>(keys + i) >= least ? part.get(x + i) : vec<T>{});
    });
    for (long i = 0, kept = 0; kept < k; i++) {
        indices[kept] = int32_t(i);
        kept += keys[i] >= least;
    }
}

template <class T>
void select(long rows, long width, long k, bool by_magnitude, const T* x, T* y, int32_t* indices) {
    const int threads = thread_count();
    const long room = round_up(width, 16);
    auto* memory = static_cast<integer<T>*>(thread_scratch(sizeof(T) * size_t(room) * size_t(threads)));
    parallel_for(rows, rows_per_chunk(8 * width), [=](long begin, long end, int thread) {
        for (long r = begin; r < end; r++)
            select_row(width, k, by_magnitude, x + r * width, memory + thread * room, y + r * width, indices + r * k);
    }, threads);
}

}  // namespace

template <class T> TopkActivationKernels<T> topk_activation_kernels() {
    return {select<T>};
}
template TopkActivationKernels<float> topk_activation_kernels<float>();
template TopkActivationKernels<double> topk_activation_kernels<double>();

}  // namespace mt::MT_ISA
