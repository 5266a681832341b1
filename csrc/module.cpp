// The Python face of the native code, and the only file that knows pybind11. It takes addresses and sizes: the
// wrappers in nas_engine/ops check every array before they come here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "capabilities.h"
#include "ops/cost_estimate.h"
#include "ops/env_step.h"
#include "ops/supernet_eval.h"
#include "supernet/device_eval.h"

namespace py = pybind11;
using nas_engine::CellEdge;
using nas_engine::CostTable;
using nas_engine::DevicePlan;
using nas_engine::DeviceScores;
using nas_engine::Diagram;
using nas_engine::EnvBuffers;
using nas_engine::Program;
using nas_engine::ProgramHead;
using nas_engine::ProgramNode;
using nas_engine::ProgramNorm;
using nas_engine::ProgramTerm;
using nas_engine::ProgramWeight;
using nas_engine::ScoreRequest;
using nas_engine::Statistics;

namespace {

constexpr int kInterface = 2;  // nas_engine/native.py holds the same number

using Address = std::uintptr_t;

template <typename T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

py::dict capabilities() {
    py::dict found;
    found["compiler"] = nas_engine::compiler();
    found["openmp"] = nas_engine::openmp_threads();
    found["cpu_features"] = nas_engine::cpu_features();
#ifdef NAS_ENGINE_CUDA
    found["cuda"] = nas_engine::cuda_toolkit();
    found["cuda_devices"] = nas_engine::cuda_devices();
#else
    found["cuda"] = "";
    found["cuda_devices"] = 0;
#endif
    return found;
}

CostTable cost_table(Address constant, Address entries, Address context_decisions, Address context_sizes, Address edges,
                     int64_t decisions, int64_t max_choices, int64_t metrics, int64_t context_count,
                     int64_t zero_choice) {
    static_assert(sizeof(CellEdge) == 3 * sizeof(int64_t), "Python passes edges as int64 [decisions, 3]");
    return {at<const int64_t>(constant),
            at<const int64_t>(entries),
            at<const int64_t>(context_decisions),
            at<const int64_t>(context_sizes),
            at<const CellEdge>(edges),
            decisions,
            max_choices,
            metrics,
            context_count,
            zero_choice};
}

Diagram diagram(Address transitions, Address offsets, int64_t states, int64_t decisions, int64_t max_choices) {
    return {at<const int32_t>(transitions), at<const int64_t>(offsets), states, decisions, max_choices};
}

EnvBuffers env_buffers(Address states, Address positions, Address genes, Address observations, Address masks,
                       Address terminated, Address invalid, Address final_genes, Address final_observations,
                       int64_t envs) {
    return {at<int64_t>(states),
            at<int64_t>(positions),
            at<int64_t>(genes),
            at<float>(observations),
            at<uint8_t>(masks),
            at<uint8_t>(terminated),
            at<uint8_t>(invalid),
            at<int64_t>(final_genes),
            at<float>(final_observations),
            envs};
}

template <typename T>
std::vector<T> rows_at(Address address, int64_t count) {
    static_assert(sizeof(T) % sizeof(int64_t) == 0, "Python passes each row as int64 numbers");
    return {at<const T>(address), at<const T>(address) + count};
}

Program program(Address nodes, int64_t node_count, Address terms, int64_t term_count, Address weights,
                int64_t weight_count, Address norms, int64_t norm_count, Address epsilons, Address head,
                int64_t decisions) {
    Program made{rows_at<ProgramNode>(nodes, node_count),
                 rows_at<ProgramTerm>(terms, term_count),
                 rows_at<ProgramWeight>(weights, weight_count),
                 rows_at<ProgramNorm>(norms, norm_count),
                 {at<const double>(epsilons), at<const double>(epsilons) + norm_count},
                 *at<const ProgramHead>(head),
                 decisions};
    nas_engine::check_program(made);
    return made;
}

ScoreRequest score_request(Address genes, int64_t paths, Address images, int64_t image_count, Address labels,
                           const std::vector<std::pair<Address, int64_t>>& calibration, int64_t statistics,
                           int64_t threads, const std::string& level) {
    ScoreRequest request{at<const int64_t>(genes),
                         paths,
                         {at<const float>(images), image_count},
                         at<const int64_t>(labels),
                         {},
                         static_cast<Statistics>(statistics),
                         threads,
                         level};
    for (const auto& [address, count] : calibration) request.calibration.push_back({at<const float>(address), count});
    return request;
}

DevicePlan device_plan(const Program& program, Address genes, int64_t paths, bool measured, int64_t images,
                       int64_t max_blocks, int64_t threads) {
    const auto style = measured ? nas_engine::NormStyle::kMeasured : nas_engine::NormStyle::kFolded;
    return make_device_plan(program, at<const int64_t>(genes), paths, style, {images, max_blocks, threads});
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Native code of nas_engine; call it through nas_engine.ops.";
    module.attr("INTERFACE") = kInterface;
    module.def("capabilities", &capabilities);

    py::class_<CostTable>(module, "CostTable").def(py::init(&cost_table));
    module.def(
        "cost_estimate",
        [](const CostTable& table, Address genes, int64_t rows, Address costs) {
            return nas_engine::cost_estimate_cpu(table, at<const int64_t>(genes), rows, at<int64_t>(costs));
        },
        py::call_guard<py::gil_scoped_release>());
#if defined(NAS_ENGINE_CUDA) || defined(NAS_ENGINE_CUDA_ON_CPU)
    module.def(
        "cost_estimate_cuda",
        [](const CostTable& table, Address genes, int64_t rows, Address costs, Address first_bad, Address stream) {
            nas_engine::cost_estimate_cuda(table, at<const int64_t>(genes), rows, at<int64_t>(costs),
                                           at<int64_t>(first_bad), at<void>(stream));
        },
        py::call_guard<py::gil_scoped_release>());
#endif

    py::class_<Diagram>(module, "Diagram").def(py::init(&diagram));
    py::class_<EnvBuffers>(module, "EnvBuffers").def(py::init(&env_buffers));
    module.def(
        "env_reset",
        [](const Diagram& diagram, const EnvBuffers& buffers, Address which) {
            nas_engine::env_reset(diagram, buffers, at<const uint8_t>(which));
        },
        py::call_guard<py::gil_scoped_release>());
    module.def(
        "env_step",
        [](const Diagram& diagram, const EnvBuffers& buffers, Address actions, int64_t autoreset) {
            return nas_engine::env_step(diagram, buffers, at<const int64_t>(actions),
                                        static_cast<nas_engine::Autoreset>(autoreset));
        },
        py::call_guard<py::gil_scoped_release>());

    module.def("kernel_levels", &nas_engine::kernel_levels);
    py::class_<Program>(module, "SupernetProgram").def(py::init(&program));
    py::class_<ScoreRequest>(module, "ScoreRequest").def(py::init(&score_request));
    module.def(
        "supernet_eval",
        [](const Program& program, const ScoreRequest& request, Address loss, Address correct, Address logits) {
            nas_engine::supernet_eval_cpu(program, request,
                                          {at<double>(loss), at<int64_t>(correct), at<float>(logits)});
        },
        py::call_guard<py::gil_scoped_release>());

    py::class_<DevicePlan>(module, "DevicePlan")
        .def(py::init(&device_plan))
        .def_readonly("paths", &DevicePlan::paths)
        .def_readonly("norm_channels", &DevicePlan::norm_channels)
        .def_readonly("workspace_bytes", &DevicePlan::workspace_bytes)
        .def_property_readonly("tables", [](const DevicePlan& plan) {
            return py::bytes(reinterpret_cast<const char*>(plan.tables.data()), plan.tables.size());
        });
#if defined(NAS_ENGINE_CUDA) || defined(NAS_ENGINE_CUDA_ON_CPU)
    module.def(
        "supernet_eval_cuda",
        [](const DevicePlan& plan, Address workspace, Address images, Address labels, Address statistics,
           Address averages, float average_weight, Address loss, Address correct, Address logits, Address stream) {
            const DeviceScores scores{
                at<const float>(images), at<const int64_t>(labels), at<const float>(statistics), at<float>(averages),
                average_weight,          at<double>(loss),          at<int64_t>(correct),        at<float>(logits)};
            nas_engine::supernet_eval_cuda(plan, scores, at<void>(workspace), at<void>(stream));
        },
        py::call_guard<py::gil_scoped_release>());
#endif
}
