// Warps: 32 lanes that exchange registers.
//
// The lanes that a mask names meet; the last to come does the exchange for all, while the others wait. As in CUDA a
// meeting does not order memory, except that of __syncwarp: a value that went through __shared__ needs one, although
// a shuffle stands between.
//
// CUDA leaves undefined, and we report: a lane that its own mask leaves out, lanes that meet under different masks, and
// lanes that meet in different shuffles. A value from a lane that does not take part is undefined as well: all bits
// set, which is NaN or -1.
#pragma once
#include <cstring>

#include "scheduler.h"

namespace cuda_emulator {

inline constexpr unsigned all_lanes = 0xffffffffu;

// If all that lane's mask names (and that have not returned) wait: the exchange, and they are ready again.
CUDA_EMULATOR_UNSEEN inline bool complete_meeting(Thread& lane) {
    Warp& warp = *lane.warp;
    const unsigned lanes = lane.mask & warp.alive;
    if ((warp.waiting & lanes) != lanes) return false;
    for (unsigned i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        const Thread& other = warp.lanes[i];
        const bool anywhere = lane.exchange == nullptr;  // __syncwarp may stand in both branches
        if (other.mask == lane.mask && other.waits_in == lane.waits_in &&
            (anywhere || other.waits_at == lane.waits_at)) continue;
        char masks[64];
        std::snprintf(masks, sizeof masks, " (masks %#x and %#x)", lane.mask, other.mask);
        fail(lane.waits_at, "lane " + std::to_string(lane.lane) + " in " + lane.waits_in + " meets lane " +
                                std::to_string(i) + " in " + other.waits_in + " at " + text(other.waits_at) + masks);
    }
    if (lane.exchange) {
        lane.exchange(warp, lanes);
    } else {
        for (unsigned i = 0; i < 32; i++)
            if (lanes >> i & 1) tsan::acquire(&warp.lanes[i].arrives);
        for (unsigned i = 0; i < 32; i++)
            if (lanes >> i & 1) tsan::release(&warp.lanes[i].leaves);
    }
    warp.waiting &= ~lanes;
    for (unsigned i = 0; i < 32; i++)
        if (lanes >> i & 1) make_ready(warp.lanes[i]);
    return true;
}

CUDA_EMULATOR_UNSEEN inline void meet(Thread& me, unsigned mask, const char* name, Place at,
                                      void (*exchange)(Warp&, unsigned)) {
    me.waits_in = name, me.waits_at = at, me.mask = mask, me.exchange = exchange;
    if (!(mask >> me.lane & 1)) fail(at, std::string(name) + ": the mask leaves out the lane that calls");
    me.warp->waiting |= 1u << me.lane;
    complete_meeting(me);
    wait(me);
}

// A lane that returns is no longer waited for.
CUDA_EMULATOR_UNSEEN inline void leave_warp(Thread& me) {
    Warp& warp = *me.warp;
    warp.alive &= ~(1u << me.lane);
    for (unsigned i = 0; i < 32; i++)
        if (warp.waiting >> i & 1) complete_meeting(warp.lanes[i]);
}

CUDA_EMULATOR_UNSEEN inline void warp_barrier(unsigned mask, Place at) {
    Thread& me = *running;
    tsan::release(&me.arrives);
    meet(me, mask, "__syncwarp", at, nullptr);
    tsan::acquire(&me.leaves);
}

// Gives 8 bytes to the meeting, and takes from it what `by` has left for this lane.
CUDA_EMULATOR_UNSEEN inline uint64_t exchange(void (*by)(Warp&, unsigned lanes), unsigned mask, uint64_t given,
                                              const char* name, Place at) {
    Thread& me = *running;
    me.given = given;
    meet(me, mask, name, at, by);
    return me.taken;
}

// ---------------------------------------------------------------- shuffles

CUDA_EMULATOR_UNSEEN inline void exchange_values(Warp& warp, unsigned lanes) {
    for (unsigned i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        Thread& lane = warp.lanes[i];
        lane.taken = lanes >> lane.from & 1 ? warp.lanes[lane.from].given : ~uint64_t(0);
    }
}

template <class T>
CUDA_EMULATOR_UNSEEN inline T take_from(int lane, T value, unsigned mask, const char* name, Place at) {
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
    Thread& me = *running;
    __builtin_memcpy(&me.given, &value, sizeof value);
    me.from = lane;
    meet(me, mask, name, at, exchange_values);
    __builtin_memcpy(&value, &me.taken, sizeof value);
    return value;
}

CUDA_EMULATOR_UNSEEN inline int lane_number() { return int(running->lane); }

// The warp is cut into segments of `width` lanes, and nobody takes from another segment: such a lane keeps its own.
// Of a distance between lanes the hardware reads five bits.
struct Segment {
    int lane, first, last;
    CUDA_EMULATOR_UNSEEN Segment(int width, const char* name, Place at) : lane(lane_number()) {
        if (width < 1 || width > 32 || (width & (width - 1)))
            fail(at, std::string(name) + ": width " + std::to_string(width) + " is none of 1, 2, 4, 8, 16, 32");
        first = lane & ~(width - 1), last = first + width - 1;
    }
};

// ---------------------------------------------------------------- votes

// The exchange for everything that all lanes get the same answer to.
template <uint64_t (*combine)(Warp&, unsigned lanes)>
CUDA_EMULATOR_UNSEEN inline void give_to_all(Warp& warp, unsigned lanes) {
    const uint64_t answer = combine(warp, lanes);
    for (unsigned i = 0; i < 32; i++)
        if (lanes >> i & 1) warp.lanes[i].taken = answer;
}

template <uint64_t (*combine)(Warp&, unsigned lanes)>
CUDA_EMULATOR_UNSEEN inline uint64_t ask_all(unsigned mask, uint64_t given, const char* name, Place at) {
    return exchange(give_to_all<combine>, mask, given, name, at);
}

CUDA_EMULATOR_UNSEEN inline uint64_t votes(Warp& warp, unsigned lanes) {
    uint64_t bits = 0;
    for (unsigned i = 0; i < 32; i++)
        if (lanes >> i & 1) bits |= uint64_t(warp.lanes[i].given & 1) << i;
    return bits;
}

template <class T, T (*operation)(T, T)>
CUDA_EMULATOR_UNSEEN inline uint64_t reduction(Warp& warp, unsigned lanes) {
    T total{};
    bool any = false;
    for (unsigned i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        total = any ? operation(total, T(warp.lanes[i].given)) : T(warp.lanes[i].given);
        any = true;
    }
    return uint64_t(total);
}

CUDA_EMULATOR_UNSEEN inline void match(Warp& warp, unsigned lanes) {
    for (unsigned i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        unsigned same = 0;
        for (unsigned j = 0; j < 32; j++)
            if (lanes >> j & 1) same |= unsigned(warp.lanes[j].given == warp.lanes[i].given) << j;
        warp.lanes[i].taken = same;
    }
}

template <class T> CUDA_EMULATOR_UNSEEN inline T sum_of(T a, T b) { return T(a + b); }
template <class T> CUDA_EMULATOR_UNSEEN inline T smaller_of(T a, T b) { return b < a ? b : a; }
template <class T> CUDA_EMULATOR_UNSEEN inline T larger_of(T a, T b) { return a < b ? b : a; }
inline unsigned and_of(unsigned a, unsigned b) { return a & b; }
inline unsigned or_of(unsigned a, unsigned b) { return a | b; }
inline unsigned xor_of(unsigned a, unsigned b) { return a ^ b; }

}  // namespace cuda_emulator

// ---------------------------------------------------------------- as CUDA calls it

inline void __syncwarp(unsigned mask = cuda_emulator::all_lanes, cuda_emulator::Place at = cuda_emulator::place()) {
    cuda_emulator::warp_barrier(mask, at);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                     cuda_emulator::Place at = cuda_emulator::place()) {
    const cuda_emulator::Segment s(width, "__shfl_sync", at);
    return cuda_emulator::take_from(s.first + (source & (width - 1)), value, mask, "__shfl_sync", at);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        cuda_emulator::Place at = cuda_emulator::place()) {
    const cuda_emulator::Segment s(width, "__shfl_up_sync", at);
    const int source = s.lane - int(delta & 31);
    return cuda_emulator::take_from(source >= s.first ? source : s.lane, value, mask, "__shfl_up_sync", at);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          cuda_emulator::Place at = cuda_emulator::place()) {
    const cuda_emulator::Segment s(width, "__shfl_down_sync", at);
    const int source = s.lane + int(delta & 31);
    return cuda_emulator::take_from(source <= s.last ? source : s.lane, value, mask, "__shfl_down_sync", at);
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                         cuda_emulator::Place at = cuda_emulator::place()) {
    const cuda_emulator::Segment s(width, "__shfl_xor_sync", at);
    const int source = s.lane ^ (bits & 31);  // a lower segment may be read, a higher one not
    return cuda_emulator::take_from(source <= s.last ? source : s.lane, value, mask, "__shfl_xor_sync", at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, cuda_emulator::Place at = cuda_emulator::place()) {
    return unsigned(cuda_emulator::ask_all<cuda_emulator::votes>(mask, predicate != 0, "__ballot_sync", at));
}
inline int __any_sync(unsigned mask, int predicate, cuda_emulator::Place at = cuda_emulator::place()) {
    return cuda_emulator::ask_all<cuda_emulator::votes>(mask, predicate != 0, "__any_sync", at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuda_emulator::Place at = cuda_emulator::place()) {
    return cuda_emulator::ask_all<cuda_emulator::votes>(mask, predicate == 0, "__all_sync", at) == 0;
}
inline unsigned __activemask() { return 1u << cuda_emulator::lane_number(); }  // who else runs is nobody's to know

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, cuda_emulator::Place at = cuda_emulator::place()) {
    static_assert(sizeof(T) <= 8);
    uint64_t given = 0;
    __builtin_memcpy(&given, &value, sizeof value);
    return unsigned(cuda_emulator::exchange(cuda_emulator::match, mask, given, "__match_any_sync", at));
}

#define CUDA_EMULATOR_REDUCE(name, T, operation)                                                                   \
    inline T name(unsigned mask, T value, cuda_emulator::Place at = cuda_emulator::place()) {                      \
        return T(cuda_emulator::ask_all<cuda_emulator::reduction<T, operation>>(mask, uint64_t(value), #name, at)); \
    }
CUDA_EMULATOR_REDUCE(__reduce_add_sync, unsigned, cuda_emulator::sum_of)
CUDA_EMULATOR_REDUCE(__reduce_add_sync, int, cuda_emulator::sum_of)
CUDA_EMULATOR_REDUCE(__reduce_min_sync, unsigned, cuda_emulator::smaller_of)
CUDA_EMULATOR_REDUCE(__reduce_min_sync, int, cuda_emulator::smaller_of)
CUDA_EMULATOR_REDUCE(__reduce_max_sync, unsigned, cuda_emulator::larger_of)
CUDA_EMULATOR_REDUCE(__reduce_max_sync, int, cuda_emulator::larger_of)
CUDA_EMULATOR_REDUCE(__reduce_and_sync, unsigned, cuda_emulator::and_of)
CUDA_EMULATOR_REDUCE(__reduce_or_sync, unsigned, cuda_emulator::or_of)
CUDA_EMULATOR_REDUCE(__reduce_xor_sync, unsigned, cuda_emulator::xor_of)
#undef CUDA_EMULATOR_REDUCE
