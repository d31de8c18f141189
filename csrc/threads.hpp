// One pool of threads for every kernel, because two pools in one process fight over the cores (measured: 2-3x slower).
//
//   parallel_for(rows, 64, [&](long begin, long end) { ... });      // chunks [0,64) [64,128) ...
//   parallel_region([&](Team& team) { ...; team.barrier(); ... });  // every thread runs the body
//
// Promises. Chunk borders never depend on the number of threads, so a kernel that owns its outputs chunk by chunk, or
// adds partial sums in chunk order, gives the same bits with any number. A call from inside a region, or while another
// Python thread is in one, runs on the calling thread alone. After a fork the child starts workers of its own. A body
// must not throw: allocate before the region.
#pragma once
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace mt {

// Threads of a region: set_thread_count, else MINITRANSFORMER_NUM_THREADS, else the CPUs allowed. Another Python thread
// may change it at any time: who makes room for each thread asks once, and passes the answer on as `most`.
int thread_count();
void set_thread_count(int n);  // 1 <= n <= 1024, else std::invalid_argument; waits for a running region

// The threads of one region, as one of them sees it. A worker that comes late finds less left to do, or the region
// closed: so work is divided by next_item() and never by the number of threads.
class Team {
  public:
    struct Shared {  // each counter has a cache line of its own
        // The region's number (32 bits), whether it is closed, and how many workers have entered.
        static constexpr std::uint64_t closed = 1u << 31;
        alignas(64) std::atomic<std::uint64_t> gate{0};
        bool enter(std::uint32_t region);
        int close();  // nobody enters any more; how many have
        alignas(64) std::atomic<long> next{0};
        alignas(64) std::atomic<int> arrived{0};
        alignas(64) std::atomic<unsigned> phase{0};
    };
    Team(Shared& shared, int thread) : shared_(shared), thread_(thread) {}
    int thread() const { return thread_; }
    long next_item() { return shared_.next.fetch_add(1, std::memory_order_relaxed); }  // 0, 1, 2 ... each to one thread
    void barrier();  // all arrive before any goes on; next_item() starts again at 0; later nobody joins

  private:
    Shared& shared_;
    int thread_;
};

// Memory of the calling thread, 64-byte aligned, kept for its next call, which gets the same. Throws std::bad_alloc.
void* thread_scratch(std::size_t bytes);

void run_region(int most, void (*body)(void*, Team&), void* context);
void run_chunks(long n, long grain, int most, void (*body)(void*, long, long, int), void* context);

// body(team) on up to min(thread_count(), most) threads, the caller being thread 0; returns when all have finished.
template <class F> void parallel_region(F&& body, int most = INT_MAX) {
    run_region(most, [](void* f, Team& team) { (*static_cast<std::remove_reference_t<F>*>(f))(team); }, (void*)&body);
}

// body(begin, end) or body(begin, end, thread) on the chunks of `grain` that make up [0, n), in any order, on at most
// `most` threads. Threads start on neighbouring chunks of their own, so that the next kernel finds its rows in the same
// core's cache, and then help the others.
template <class F> void parallel_for(long n, long grain, F&& body, int most = INT_MAX) {
    run_chunks(n, grain, most, [](void* f, long begin, long end, [[maybe_unused]] int thread) {
        auto& call = *static_cast<std::remove_reference_t<F>*>(f);
        if constexpr (std::is_invocable_v<F, long, long, int>) call(begin, end, thread);
        else call(begin, end);
    }, (void*)&body);
}

}  // namespace mt
