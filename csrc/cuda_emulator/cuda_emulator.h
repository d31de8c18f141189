// CUDA on the CPU: with this header in front of it, a .cu file is C++ that any compiler builds, and its kernels run.
//
// A CUDA thread is a fiber: a stack of its own, and nothing else. One OS thread runs all threads of a block in turn and
// changes from one to the next only where they wait for each other (barriers, shuffles, atomics at times). So a run can
// be repeated exactly, in first-to-last, reversed or random order, and a debugger stops inside a kernel as in any code.
//
// To be read in this order:
//   fiber.h          a stack, and how to change to another one: a dozen instructions
//   scheduler.h      threads, warps and blocks; who runs next; the barrier; what is reported when nobody can run
//   warp.h           lanes that meet: shuffles, votes, __syncwarp
//   memory.h         __shared__, poisoned before every block; atomics; fences
//   language.h       CUDA's own words: __global__, threadIdx ...
//   vector_types.h   float4 and its relatives
//   intrinsics.h     __expf, __popc, __dp4a ...
//   launch.h         grids of blocks, on one or more OS threads, and what Python calls
//   run_kernel.cpp   a program that launches one kernel, for the sanitizers
//   sanitizers.h     how ThreadSanitizer and AddressSanitizer are told about all this
//   include/         the headers that a kernel asks for: <mma.h> (tensor cores), <cuda_bf16.h>, <cuda_fp16.h>
//   small_float.h    what the last two have in common
//
// Not emulated: inline PTX, cp.async and TMA, clusters, cooperative groups, textures, <<<>>> and dynamic parallelism,
// waiting for another block of the same grid, or for a flag that is read without an atomic: such a loop never ends, for
// others run only where threads or lanes meet, at atomics and in __nanosleep.
// A kernel may ask `#ifdef __CUDA_EMULATOR__`; ours do not need to.
#pragma once
#define __CUDA_EMULATOR__ 1

#include "sanitizers.h"
#include "fiber.h"
#include "vector_types.h"
#include "scheduler.h"
#include "warp.h"
#include "memory.h"
#include "language.h"
#include "intrinsics.h"
#include "launch.h"
