// What this build can do on this machine, for `nas-engine doctor`.
#pragma once

#include <string>
#include <vector>

namespace nas_engine {

std::string compiler();
int openmp_threads();                     // 0 without OpenMP
std::vector<std::string> cpu_features();  // vector extensions of the processor at hand
std::string cuda_toolkit();               // version compiled with
int cuda_devices();                       // usable now: 0 without a driver

}  // namespace nas_engine
