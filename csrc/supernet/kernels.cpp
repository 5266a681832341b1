// Which instruction sets the processor has.
#include "supernet/kernels.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "levels.h"

#ifdef NAS_ENGINE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nas_engine {

namespace {

#ifdef NAS_ENGINE_AVX512
bool has_avx512() {
#ifdef NAS_ENGINE_AVX512_EMULATED  // vectors of 16 floats as two registers: the same code, for tests
    return has_avx2();
#else
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#endif
}
#endif

#ifdef NAS_ENGINE_AMX
// Linux (Documentation/arch/x86/xstate.rst) wants to be asked before a process uses the registers, because its threads
// then need more memory for them; only whoever uses them asks.
constexpr long kSupported = 0x1021, kRequestPermission = 0x1023, kTileData = 18;

bool has_amx() {
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl")) return false;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned kBfloat16 = 1u << 22, kTiles = 1u << 24;
    if (!(d & kBfloat16) || !(d & kTiles)) return false;
    uint64_t supported = 0;
    return syscall(SYS_arch_prctl, kSupported, &supported) == 0 && (supported >> kTileData & 1);
}

void require_amx_permission() {
    if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) return;
    throw std::invalid_argument(std::string("the system does not let this process use AMX: ") + std::strerror(errno));
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

std::vector<const Kernels*> usable_bfloat16_kernels() {
    std::vector<const Kernels*> usable;
#ifdef NAS_ENGINE_AVX2
    if (has_avx2()) usable.push_back(kernels_bf16_avx2());
#endif
#ifdef NAS_ENGINE_AMX
    if (has_amx()) usable.push_back(kernels_bf16_amx());
#endif
    return usable;
}

}  // namespace

std::vector<std::string> kernel_levels() { return names_of(usable_kernels()); }

std::vector<std::string> bfloat16_levels() { return names_of(usable_bfloat16_kernels()); }

const Kernels& kernels_of(const std::string& level) {
    std::vector<const Kernels*> usable = usable_kernels();
    if (level.empty()) return *usable.back();
    const std::vector<const Kernels*> more = usable_bfloat16_kernels();
    usable.insert(usable.end(), more.begin(), more.end());
    const Kernels& kernels = kernels_named(usable, level);
#ifdef NAS_ENGINE_AMX
    if (&kernels == kernels_bf16_amx()) require_amx_permission();
#endif
    return kernels;
}

}  // namespace nas_engine
