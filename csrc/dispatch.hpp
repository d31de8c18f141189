// Picks each routine's instruction set, once, at run time.
//
// A concept (matmul, softmax ...) declares in <concept>.hpp a table of function pointers, `template <class T> struct
// MatmulKernels`, and under it MT_KERNELS(MatmulKernels, matmul_kernels). Its <concept>.cpp is compiled once per
// instruction set and defines mt::MT_ISA::matmul_kernels<T>() for float and double; callers write
// mt::matmul_kernels<T>(), which is the fastest of them that this CPU runs. A concept that gains from later
// instructions than those of AVX-512 declares MT_KERNELS_UP_TO(avx512_vnni, ...) and is compiled for that as well.
#pragma once

namespace mt {

// Slowest first; each runs what those before it run. VNNI: sums of 8-bit products. BF16: sums of bfloat16 products.
enum class Isa { portable, avx2, avx512, avx512_vnni, avx512_bf16 };

Isa isa();                      // the one in use: the best of this CPU, or the lower one that MINITRANSFORMER_ISA names
const char* isa_name(Isa isa);
bool isa_runs(Isa isa);         // compiled in, and this CPU has it

#if defined(MT_X86)
#define MT_KERNELS(Table, function)                                                   \
    namespace portable { template <class T> Table<T> function(); }                    \
    namespace avx2 { template <class T> Table<T> function(); }                        \
    namespace avx512 { template <class T> Table<T> function(); }                      \
    template <class T> const Table<T>& function() {                                   \
        static const Table<T> table = isa() >= Isa::avx512 ? avx512::function<T>()    \
                                      : isa() == Isa::avx2 ? avx2::function<T>()      \
                                                           : portable::function<T>(); \
        return table;                                                                 \
    }
#define MT_KERNELS_UP_TO(last, Table, function)                                       \
    namespace portable { template <class T> Table<T> function(); }                    \
    namespace avx2 { template <class T> Table<T> function(); }                        \
    namespace avx512 { template <class T> Table<T> function(); }                      \
    namespace last { template <class T> Table<T> function(); }                        \
    template <class T> const Table<T>& function() {                                   \
        static const Table<T> table = isa() >= Isa::last     ? last::function<T>()    \
                                      : isa() >= Isa::avx512 ? avx512::function<T>()  \
                                      : isa() == Isa::avx2   ? avx2::function<T>()    \
                                                           : portable::function<T>(); \
        return table;                                                                 \
    }
#else
#define MT_KERNELS(Table, function)                                          \
    namespace portable { template <class T> Table<T> function(); }           \
    template <class T> const Table<T>& function() {                          \
        static const Table<T> table = portable::function<T>();               \
        return table;                                                        \
    }
#define MT_KERNELS_UP_TO(last, Table, function) MT_KERNELS(Table, function)
#endif

}  // namespace mt
