// Vectors of floats, written with GCC/Clang extensions. Each instruction set includes this file and compiles it with
// its own options; everything is in an unnamed namespace, so that no two of them are merged by the linker.
#pragma once

#include <cstdint>

#ifdef __AVX__
#include <immintrin.h>
#endif

namespace nas_engine {
namespace {

#define NAS_ENGINE_INLINE inline __attribute__((always_inline))
#define NAS_ENGINE_NOINLINE __attribute__((noinline))
#define NAS_ENGINE_UNROLL _Pragma("GCC unroll 20")

template <int L>
struct Lanes;
template <>
struct Lanes<8> {
    typedef float Vector __attribute__((vector_size(32)));
    typedef float Loose __attribute__((vector_size(32), aligned(4), may_alias));
};
template <>
struct Lanes<16> {
    typedef float Vector __attribute__((vector_size(64)));
    typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
};

template <int L>
using Vector = typename Lanes<L>::Vector;

template <int L>
NAS_ENGINE_INLINE Vector<L> broadcast(float x) {  // x + Vector{} would add 0 first: an instruction more
    if constexpr (L == 8) return Vector<L>{x, x, x, x, x, x, x, x};
    if constexpr (L == 16) return Vector<L>{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

template <int L>
NAS_ENGINE_INLINE Vector<L> load(const float* from) {
    return *reinterpret_cast<const typename Lanes<L>::Loose*>(from);
}

template <int L>
NAS_ENGINE_INLINE void store(float* to, Vector<L> value) {
    *reinterpret_cast<typename Lanes<L>::Loose*>(to) = value;
}

// The larger of both; a NaN in `value` stays. Compilers make no single instruction of the comparison.
template <typename V>
NAS_ENGINE_INLINE V at_least(V value, float limit) {
    const V limits = V{} + limit;
#ifdef __AVX__
    if constexpr (sizeof(V) == 32) return reinterpret_cast<V>(_mm256_max_ps(limits, value));
#endif
    return value < limits ? limits : value;
}

template <typename V>
NAS_ENGINE_INLINE V at_most(V value, float limit) {
    const V limits = V{} + limit;
#ifdef __AVX__
    if constexpr (sizeof(V) == 32) return reinterpret_cast<V>(_mm256_min_ps(limits, value));
#endif
    return value > limits ? limits : value;
}

}  // namespace
}  // namespace nas_engine
