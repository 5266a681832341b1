// Memory for many floats, in huge pages where they can be had.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace nas_engine {

// Grows, never shrinks. New memory is much faster in huge pages.
class Buffer {
  public:
    float* floats(int64_t size) {
        const size_t bytes = static_cast<size_t>(std::max<int64_t>(size, 1)) * sizeof(float);
        if (bytes > capacity_) {
            memory_.reset();
            capacity_ = 0;
            // What is smaller than a page comes from memory that was used before: new pages cost more than they give.
            const size_t alignment = bytes < kPage ? kLine : kPage,
                         size_of_all = (bytes + alignment - 1) / alignment * alignment;
            memory_ = {static_cast<float*>(::operator new(size_of_all, std::align_val_t{alignment})), Free{alignment}};
            capacity_ = size_of_all;
#ifdef __linux__
            if (alignment == kPage) madvise(memory_.get(), size_of_all, MADV_HUGEPAGE);  // or else nothing changes
#endif
        }
        return memory_.get();
    }

    float* zeroed(int64_t size) {
        float* memory = floats(size);
        std::memset(memory, 0, static_cast<size_t>(size) * sizeof(float));
        return memory;
    }

  private:
    static constexpr size_t kPage = size_t{1} << 21, kLine = 64;
    struct Free {
        size_t alignment;
        void operator()(float* memory) const { ::operator delete(memory, std::align_val_t{alignment}); }
    };
    std::unique_ptr<float, Free> memory_{nullptr, Free{kLine}};
    size_t capacity_ = 0;
};

}  // namespace nas_engine
