// Toolkit version and usable devices.
#include <cuda_runtime.h>

#include "capabilities.h"

namespace nas_engine {

std::string cuda_toolkit() {
    return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

int cuda_devices() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

}  // namespace nas_engine
