// Picks each routine's instruction set, once, at run time.
//
// A concept (matmul, softmax ...) declares in <concept>.hpp a table of function pointers, `template <class T> struct
// MatmulKernels`, and under it MT_KERNELS(MatmulKernels, matmul_kernels). Its <concept>.cpp is compiled once per
// instruction set and defines mt::MT_ISA::matmul_kernels<T>() for float and double; callers write
// mt::matmul_kernels<T>(), which is the fastest of them that this CPU runs.
#pragma once

namespace mt {

enum class Isa { portable, avx2, avx512 };  // slowest first

Isa isa();                      // the one in use: the best of this CPU, or the lower one that MINITRANSFORMER_ISA names
const char* isa_name(Isa isa);
bool isa_runs(Isa isa);         // compiled in, and this CPU has it

#if defined(MT_X86)
#define MT_KERNELS(Table, function)                                                   \
    namespace portable { template <class T> Table<T> function(); }                    \
    namespace avx2 { template <class T> Table<T> function(); }                        \
    namespace avx512 { template <class T> Table<T> function(); }                      \
    template <class T> const Table<T>& function() {                                   \
        static const Table<T> table = isa() == Isa::avx512 ? avx512::function<T>()    \
                                      : isa() == Isa::avx2 ? avx2::function<T>()      \
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
#endif

}  // namespace mt
