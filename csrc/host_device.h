// Marks functions that run on the GPU as well as on the CPU.
#pragma once

#ifndef NAS_ENGINE_HOST_DEVICE
#ifdef __CUDACC__
#define NAS_ENGINE_HOST_DEVICE __host__ __device__
#else
#define NAS_ENGINE_HOST_DEVICE
#endif
#endif
