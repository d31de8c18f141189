// A fiber is a stack that can be left and returned to.
//
// To leave: push the registers that a function must preserve, and note where the stack ends now. To return to another
// one: take its end for the stack pointer and pop its registers; the `ret` that follows goes back to wherever *that*
// fiber once left. A new fiber's stack is laid out as if it had just left the first line of its entry function.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "sanitizers.h"

#if !defined(CUDA_EMULATOR_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CUDA_EMULATOR_UCONTEXT 1  // portable, and ten times slower: it asks the kernel to save the signal mask
#endif

#if CUDA_EMULATOR_UCONTEXT
#include <ucontext.h>
#else
#if defined(__APPLE__)
#define CUDA_EMULATOR_SYMBOL "_cuda_emulator_switch_stack"
#else
#define CUDA_EMULATOR_SYMBOL "cuda_emulator_switch_stack"
#endif
// void cuda_emulator_switch_stack(void** left, void* entered)
#if defined(__x86_64__)
asm(R"(
.text
.globl )" CUDA_EMULATOR_SYMBOL R"(
)" CUDA_EMULATOR_SYMBOL R"(:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq  %rsp, (%rdi)
    movq  %rsi, %rsp
    popq  %r15
    popq  %r14
    popq  %r13
    popq  %r12
    popq  %rbx
    popq  %rbp
    ret
)");
inline constexpr int cuda_emulator_return_word = 6, cuda_emulator_frame_words = 8;
#else
asm(R"(
.text
.balign 4
.globl )" CUDA_EMULATOR_SYMBOL R"(
)" CUDA_EMULATOR_SYMBOL R"(:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8,  d9,  [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8,  d9,  [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
inline constexpr int cuda_emulator_return_word = 11, cuda_emulator_frame_words = 20;
#endif
extern "C" __attribute__((visibility("hidden"))) void cuda_emulator_switch_stack(void** left, void* entered);
#endif

namespace cuda_emulator {

// Memory for `count` stacks, each with room for the 512 KB of local memory that CUDA gives a thread. Below it lie pages
// that nobody may touch: an overflow stops at once instead of writing into the neighbour, also one by a whole array,
// since -fstack-clash-protection (kernels/cuda/build.py) makes large frames touch their memory in steps of 64 KB or
// less. Pages that are never used cost nothing.
class Stacks {
  public:
    static constexpr size_t bytes = CUDA_EMULATOR_TSAN || CUDA_EMULATOR_ASAN ? 1024 << 10 : 576 << 10;

    explicit Stacks(unsigned count)
        : guard_(17 * size_t(sysconf(_SC_PAGESIZE))),  // odd: stacks an even number of pages apart share cache lines
          total_(count * (bytes + guard_)) {
        const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* memory = mmap(nullptr, total_, PROT_READ | PROT_WRITE, how, -1, 0);
        memory_ = static_cast<char*>(memory);
        bool well = memory != MAP_FAILED;
        for (unsigned i = 0; well && i < count; i++)
            well = mprotect(memory_ + i * (bytes + guard_), guard_, PROT_NONE) == 0;
        if (well) return;
        if (memory != MAP_FAILED) munmap(memory, total_);
        throw std::runtime_error("no memory for the stacks of " + std::to_string(count) + " threads");
    }
    Stacks(const Stacks&) = delete;
    ~Stacks() { munmap(memory_, total_); }
    char* operator[](unsigned i) const { return memory_ + i * (bytes + guard_) + guard_; }

  private:
    size_t guard_, total_;
    char* memory_;
};

struct Fiber {
    char* stack = nullptr;  // its lowest byte
    size_t stack_bytes = 0;
    void* tsan = nullptr;   // what the sanitizers know it by
    void* asan = nullptr;
#if CUDA_EMULATOR_UCONTEXT
    ucontext_t context;
#else
    void* left_at = nullptr;
#endif
};

// The next change to `fiber` starts `entry`, which must never return, on an empty stack.
CUDA_EMULATOR_UNSEEN inline void restart(Fiber& fiber, void (*entry)()) {
#if CUDA_EMULATOR_UCONTEXT
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = fiber.stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
#else
    void** frame = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes) - cuda_emulator_frame_words;
    for (int i = 0; i < cuda_emulator_frame_words; i++) frame[i] = nullptr;
    frame[cuda_emulator_return_word] = reinterpret_cast<void*>(entry);
    fiber.left_at = frame;
#endif
}

// The first thing that happens on a stack after a change to it. `previous` is the fiber that was left.
inline void arrive([[maybe_unused]] Fiber& here, [[maybe_unused]] Fiber& previous) {
#if CUDA_EMULATOR_ASAN
    const void* bottom;
    __sanitizer_finish_switch_fiber(here.asan, &bottom, &previous.stack_bytes);  // the OS thread's own stack, too
    previous.stack = static_cast<char*>(const_cast<void*>(bottom));
    here.asan = nullptr;
#endif
}

// Leaves `from` and goes on in `to`; returns when somebody changes back, unless `from` has `finished`.
CUDA_EMULATOR_UNSEEN inline void change(Fiber& from, Fiber& to, [[maybe_unused]] bool finished = false) {
#if CUDA_EMULATOR_ASAN
    __sanitizer_start_switch_fiber(finished ? nullptr : &from.asan, to.stack, to.stack_bytes);
#endif
#if CUDA_EMULATOR_TSAN
    __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);  // a change of fibers orders nothing
#endif
#if CUDA_EMULATOR_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    cuda_emulator_switch_stack(&from.left_at, to.left_at);
#endif
}

}  // namespace cuda_emulator
