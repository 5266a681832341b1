// Kernels come once for each instruction set, as tables with a name, `level`; one is chosen at run time.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace nas_engine {

#ifdef NAS_ENGINE_AVX2
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

template <typename Kernels>
std::vector<std::string> names_of(const std::vector<const Kernels*>& usable) {
    std::vector<std::string> names;
    for (const Kernels* kernels : usable) names.emplace_back(kernels->level);
    return names;
}

// The kernels named `level`. Throws std::invalid_argument where there are none.
template <typename Kernels>
const Kernels& kernels_named(const std::vector<const Kernels*>& usable, const std::string& level) {
    for (const Kernels* kernels : usable) {
        if (level == kernels->level) return *kernels;
    }
    throw std::invalid_argument("level " + level + " is not available on this processor");
}

}  // namespace nas_engine
