// Which instruction sets the processor has.
#include "supernet/kernels.h"

#include <stdexcept>

namespace nas_engine {

namespace {

#ifdef NAS_ENGINE_AVX2
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

#ifdef NAS_ENGINE_AVX512
bool has_avx512() {
#ifdef NAS_ENGINE_AVX512_EMULATED  // vectors of 16 floats as two registers: the same code, for tests
    return has_avx2();
#else
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#endif
}
#endif

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable{kernels_baseline()};
#ifdef NAS_ENGINE_AVX2
    if (has_avx2()) usable.push_back(kernels_avx2());
#endif
#ifdef NAS_ENGINE_AVX512
    if (has_avx512()) usable.push_back(kernels_avx512());
#endif
    return usable;
}

}  // namespace

std::vector<std::string> kernel_levels() {
    std::vector<std::string> levels;
    for (const Kernels* kernels : usable_kernels()) levels.emplace_back(kernels->level);
    return levels;
}

const Kernels& kernels_of(const std::string& level) {
    const std::vector<const Kernels*> usable = usable_kernels();
    if (level.empty()) return *usable.back();
    for (const Kernels* kernels : usable) {
        if (level == kernels->level) return *kernels;
    }
    throw std::invalid_argument("level " + level + " is not available on this processor");
}

}  // namespace nas_engine
