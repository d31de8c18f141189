#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(MT_X86)
#include <cpuid.h>
#endif

namespace mt {

const char* isa_name(Isa isa) {
    constexpr const char* names[] = {"portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};
    return names[int(isa)];
}

#if defined(MT_X86)
// The conversion of half precision, which the AVX2 files use too; Clang 14's __builtin_cpu_supports does not know it.
static bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

bool isa_runs(Isa isa) {
#if defined(MT_X86)
    __builtin_cpu_init();
    if (isa == Isa::avx512_bf16) return __builtin_cpu_supports("avx512bf16") && isa_runs(Isa::avx512_vnni);
    if (isa == Isa::avx512_vnni) return __builtin_cpu_supports("avx512vnni") && isa_runs(Isa::avx512);
    if (isa == Isa::avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && isa_runs(Isa::avx2);
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#endif
    return isa == Isa::portable;
}

static Isa pick() {
    constexpr Isa fastest_first[] = {Isa::avx512_bf16, Isa::avx512_vnni, Isa::avx512, Isa::avx2, Isa::portable};
    const char* wanted = std::getenv("MINITRANSFORMER_ISA");
    std::string known;
    for (Isa isa : fastest_first)
        if (isa_runs(isa)) {
            if (!wanted || !*wanted || std::string(wanted) == isa_name(isa)) return isa;
            known += std::string(known.empty() ? "" : ", ") + isa_name(isa);
        }
    throw std::invalid_argument("MINITRANSFORMER_ISA must be one of " + known + " on this CPU, got " + wanted);
}

Isa isa() {
    static const Isa picked = pick();
    return picked;
}

}  // namespace mt
