// Random words: word i is lane i % 4 of counter offset + i / 4. A thread makes the four of one counter.
#include "numbers.cuh"
#include "philox.cuh"

extern "C" __global__ void random_bits(unsigned long long key, unsigned long long offset, unsigned* words, long long n) {
    for (long long block = mt::first(); 4 * block < n; block += mt::all()) {
        const mt::Words four = mt::philox(key, offset + block);
        for (int lane = 0; lane < 4 && 4 * block + lane < n; lane++) words[4 * block + lane] = four.word[lane];
    }
}
