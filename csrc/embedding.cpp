#include "embedding.hpp"

#include "rows.hpp"
#include "threads.hpp"

// Scattering dy_i into row indices_i needs locks or atomic adds, whose order changes from run to run. Gathering does
// not: a stable counting sort finds the i of each row, and whoever owns the row adds them up in registers and writes it
// once.

namespace mt::MT_ISA {
namespace {

template <class T>
void backward(long count, long width, long rows, const T* dy, const int64_t* indices, T* dweight, long* starts,
              long* order) {
    __builtin_memset(starts, 0, sizeof(long) * (rows + 1));
    for (long i = 0; i < count; i++) starts[indices[i] + 1]++;
    for (long r = 0; r < rows; r++) starts[r + 1] += starts[r];
    for (long i = 0; i < count; i++) order[starts[indices[i]]++] = i;  // starts[r] becomes the end of r's i
    // The work of a row is its i, of which a frequent token has many; writing a row counts as one more.
    const long per_chunk = larger(rows_per_chunk(width) * rows / larger(count + rows, 1L), 1L);
    parallel_for(rows, per_chunk, [=](long begin, long end) {
        for (long r = begin; r < end; r++) {
            const long *first = order + (r ? starts[r - 1] : 0), *last = order + starts[r];
            T* out = dweight + r * width;
            for_vectors<T>(width, [=](long column, auto part) {
                vec<T> sum = {};
                for (const long* i = first; i < last; i++) sum += part.get(dy + *i * width + column);
                part.put(out + column, sum);
            });
        }
    });
}

}  // namespace

template <class T> EmbeddingKernels<T> embedding_kernels() {
    return {backward<T>};
}
template EmbeddingKernels<float> embedding_kernels<float>();
template EmbeddingKernels<double> embedding_kernels<double>();

}  // namespace mt::MT_ISA
