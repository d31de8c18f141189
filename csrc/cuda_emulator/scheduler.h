// Threads, warps and blocks; who runs next; the block's barrier; and what is said when nobody can run.
//
// A block keeps a line of threads that are ready. A thread that has to wait picks the next one from the line and
// changes to it; whoever completes a barrier puts all that waited back into the line. If the line is empty, those who
// wait will wait for ever: that is a deadlock, and we know where each of them stands.
//
// CUDA promises no order, so a right kernel gives the same result in all of these:
//   first    threads go on first to last, each as far as the next barrier
//   last     last to first; it shows, for instance, a tile that is overwritten while others still read it
//   random   anyone, drawn from a seed; atomics let others in between, too
#pragma once
#include <cstdio>
#include <cstring>
#include <string>

#include "fiber.h"
#include "vector_types.h"

namespace cuda_emulator {

// A line of the kernel: as a default argument, place() is the line of the call.
struct Place {
    const char* file = "";
    int line = 0;
    CUDA_EMULATOR_UNSEEN friend bool operator==(Place a, Place b) {
        return a.line == b.line && std::strcmp(a.file, b.file) == 0;
    }
};
constexpr Place place(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

enum class Order { first, last, random };

struct Block;
struct Warp;

struct Thread {
    Fiber fiber;
    uint3 index{};               // threadIdx
    unsigned number = 0;         // its place in the block, x fastest
    unsigned lane = 0;           // its place in the warp
    Warp* warp = nullptr;
    Block* block = nullptr;
    bool finished = false;
    const char* waits_in = "";   // what it called last, and where
    Place waits_at;

    // What a meeting of lanes needs (warp.h).
    unsigned mask = 0;
    uint64_t given = 0, taken = 0;
    int from = 0;
    void (*exchange)(Warp&, unsigned lanes) = nullptr;
    char arrives = 0, leaves = 0;  // for ThreadSanitizer: addresses that order memory
};

struct Warp {
    Thread* lanes = nullptr;     // 32 of them, or as many as the block has left
    unsigned alive = 0;          // one bit a lane
    unsigned waiting = 0;
};

struct Block {
    uint3 index{};               // blockIdx
    dim3 size, grid;             // blockDim, gridDim
    unsigned count = 0, alive = 0;
    Thread* threads = nullptr;
    Warp* warps = nullptr;
    Thread os_thread;            // who starts the block, and goes on when it has finished

    Order order = Order::first;
    uint64_t random = 1;
    unsigned* ready = nullptr;   // a ring of thread numbers
    unsigned head = 0, waiting_to_run = 0;  // where it begins, how many are in it
    unsigned atomics = 0;

    unsigned arrived = 0;        // at the barrier
    int sum = 0, result = 0;     // of __syncthreads_count
    char starts = 0, arrives = 0, leaves = 0, finishes = 0;

    void (*kernel)(const void*) = nullptr;
    const void* arguments = nullptr;
    void (*report)(void*, const std::string&) = nullptr;
    void* report_to = nullptr;
    bool failed = false;
    Thread* left = nullptr;      // who ran before the one that runs now
};

inline thread_local Thread* running;  // the CUDA thread that this OS thread runs now

// ---------------------------------------------------------------- who runs next

CUDA_EMULATOR_UNSEEN inline void switch_to(Thread& me, Thread& next, bool finished = false) {
    me.block->left = &me;
    running = &next;
    change(me.fiber, next.fiber, finished);
    arrive(me.fiber, me.block->left->fiber);
}

CUDA_EMULATOR_UNSEEN inline uint64_t draw(Block& block) {  // Knuth's linear congruences: the high bits are good
    block.random = block.random * 6364136223846793005u + 1442695040888963407u;
    return block.random >> 33;
}

// Where the i-th of the line stands.
CUDA_EMULATOR_UNSEEN inline unsigned in_ring(const Block& block, unsigned i) {
    const unsigned at = block.head + i;
    return at < block.count ? at : at - block.count;
}

CUDA_EMULATOR_UNSEEN inline void make_ready(Thread& thread) {
    Block& block = *thread.block;
    block.ready[in_ring(block, block.waiting_to_run++)] = thread.number;
}

CUDA_EMULATOR_UNSEEN inline Thread* next_ready(Block& block) {
    if (block.waiting_to_run == 0) return nullptr;
    const unsigned others = --block.waiting_to_run;
    if (block.order == Order::last) return &block.threads[block.ready[in_ring(block, others)]];
    unsigned at = block.head;
    if (block.order == Order::random) at = in_ring(block, unsigned(draw(block) % (others + 1)));
    const unsigned number = block.ready[at];
    block.ready[at] = block.ready[block.head];
    if (++block.head == block.count) block.head = 0;
    return &block.threads[number];
}

// ---------------------------------------------------------------- when it goes wrong

CUDA_EMULATOR_UNSEEN inline std::string text(Place place) {
    return std::string(place.file) + ":" + std::to_string(place.line);
}
CUDA_EMULATOR_UNSEEN inline std::string text(uint3 v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

// Ends the block. Its threads stay where they stand and are never run again: their stacks are used anew.
[[noreturn]] CUDA_EMULATOR_COLD inline void fail(Place place, const std::string& what) {
    Block& block = *running->block;
    block.failed = true;
    block.report(block.report_to, text(place) + ": " + what + " (block " + text(block.index) + ", thread " +
                                      text(running->index) + ")");
    tsan::release(&block.finishes);
    switch_to(*running, block.os_thread, true);
    __builtin_unreachable();
}

// "threads 0-31 wait in __syncthreads at file:12; thread 32 waits in __shfl_sync at file:20"
CUDA_EMULATOR_COLD inline std::string who_waits(const Block& block) {
    std::string said;
    int groups = 0;
    for (unsigned i = 0; i < block.count;) {
        const Thread& first = block.threads[i];
        unsigned end = i + 1;
        const auto same = [&](const Thread& t) CUDA_EMULATOR_UNSEEN {
            return t.finished == first.finished && t.waits_in == first.waits_in && t.waits_at == first.waits_at;
        };
        while (end < block.count && same(block.threads[end])) end++;
        if (!first.finished && ++groups <= 6) {
            const bool one = end == i + 1;
            said += said.empty() ? "" : "; ";
            said += (one ? "thread " : "threads ") + std::to_string(i) + (one ? "" : "-" + std::to_string(end - 1)) +
                    (one ? " waits in " : " wait in ") + first.waits_in + " at " + text(first.waits_at);
        }
        i = end;
    }
    if (groups > 6) said += "; and so on";
    if (block.alive < block.count) said += "; " + std::to_string(block.count - block.alive) + " have returned";
    return said;
}

[[noreturn]] CUDA_EMULATOR_COLD inline void deadlock(Block& block) {
    const Thread* first = block.threads;
    while (first->finished) first++;
    fail(first->waits_at, "deadlock: " + who_waits(block));
}

// ---------------------------------------------------------------- waiting

// Lets others run until somebody makes this thread ready.
CUDA_EMULATOR_UNSEEN inline void wait(Thread& me) {
    tsan::release(&me.block->finishes);  // should the block fail, it ends here
    Thread* next = next_ready(*me.block);
    if (!next) deadlock(*me.block);
    if (next != &me) switch_to(me, *next);
}

// Whoever else is ready runs first: with Order::last that is from the line's end, so this thread goes to its head.
CUDA_EMULATOR_UNSEEN inline void yield() {
    Block& block = *running->block;
    if (block.order == Order::last) {
        block.head = (block.head ? block.head : block.count) - 1;
        block.ready[block.head] = running->number;
        block.waiting_to_run++;
    } else {
        make_ready(*running);
    }
    wait(*running);
}

// Everybody who is alive stands at the barrier, and at the same one: CUDA leaves undefined what comes of two.
CUDA_EMULATOR_UNSEEN inline void open_barrier(Block& block) {
    const Thread* first = nullptr;
    for (unsigned i = 0; i < block.count; i++) {
        const Thread& thread = block.threads[i];
        if (thread.finished) continue;
        if (!first) first = &thread;
        if (thread.waits_at != first->waits_at || thread.waits_in != first->waits_in)
            fail(thread.waits_at, "divergent barrier: " + who_waits(block));
    }
    tsan::acquire(&block.arrives);
    tsan::release(&block.leaves);
    block.result = block.sum;
    block.arrived = 0, block.sum = 0;
    for (unsigned i = 0; i < block.count; i++)
        if (!block.threads[i].finished) make_ready(block.threads[i]);
}

// __syncthreads: returns the sum of everybody's `value`.
CUDA_EMULATOR_UNSEEN inline int block_barrier(int value, const char* name, Place at) {
    Thread& me = *running;
    Block& block = *me.block;
    me.waits_in = name, me.waits_at = at;
    tsan::release(&block.arrives);
    block.sum += value;
    if (++block.arrived == block.alive) {
        open_barrier(block);
    }
    wait(me);
    tsan::acquire(&block.leaves);
    return block.result;
}

}  // namespace cuda_emulator
