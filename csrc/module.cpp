// The Python face of the native code, and the only file that knows pybind11. It takes addresses and sizes: the
// wrappers in nas_engine/ops check every array before they come here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <utility>

#include "capabilities.h"
#include "ops/cost_estimate.h"
#include "ops/depthwise_gradient.h"
#include "ops/env_step.h"
#include "ops/lstm_policy.h"
#include "ops/supernet_eval.h"
#include "supernet/device_eval.h"

namespace py = pybind11;
using nas_engine::CellEdge;
using nas_engine::Combine;
using nas_engine::CostTables;
using nas_engine::DevicePlan;
using nas_engine::DeviceScores;
using nas_engine::Diagram;
using nas_engine::EnvBuffers;
using nas_engine::Policy;
using nas_engine::PricedRows;
using nas_engine::PriceList;
using nas_engine::Program;
using nas_engine::ProgramHead;
using nas_engine::ProgramNode;
using nas_engine::ProgramNorm;
using nas_engine::ProgramTerm;
using nas_engine::ProgramWeight;
using nas_engine::RewardFormula;
using nas_engine::RewardKind;
using nas_engine::ScoreRequest;
using nas_engine::Statistics;

namespace {

constexpr int kInterface = 7;  // nas_engine/native.py holds the same number

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

// One table: its arrays (constant, entries, context decisions), then context count, most choices, metrics, how entries
// combine, and whether only live edges count.
using TableRow = std::array<Address, 8>;

template <typename T>
CostTables<T> cost_tables(const std::vector<TableRow>& rows) {
    if (rows.size() > nas_engine::kMaxCostTables) throw std::invalid_argument("too many cost tables");
    CostTables<T> tables{};
    for (const TableRow& row : rows) {
        const auto size = [&](size_t position) { return static_cast<int64_t>(row[position]); };
        tables.metrics += size(5);
        tables.table[tables.count++] = {
            at<const T>(row[0]),          at<const T>(row[1]), at<const int64_t>(row[2]), size(3), size(4), size(5),
            static_cast<Combine>(row[6]), row[7] != 0};
    }
    return tables;
}

PriceList price_list(const std::vector<TableRow>& counts, const std::vector<TableRow>& measures, Address choices,
                     Address edges, int64_t decisions, int64_t zero_choice) {
    static_assert(sizeof(CellEdge) == 3 * sizeof(int64_t), "Python passes edges as int64 [decisions, 3]");
    return {cost_tables<int64_t>(counts),
            cost_tables<double>(measures),
            at<const int64_t>(choices),
            at<const CellEdge>(edges),
            decisions,
            zero_choice};
}

RewardFormula reward_formula(int64_t kind, int64_t metrics, std::array<int64_t, 2> columns,
                             std::array<double, 2> targets, std::array<double, 2> weights, double accuracy_weight,
                             double largest_ratio, double smallest_ratio) {
    return {static_cast<RewardKind>(kind),
            metrics,
            {columns[0], columns[1]},
            {targets[0], targets[1]},
            {weights[0], weights[1]},
            accuracy_weight,
            largest_ratio,
            smallest_ratio};
}

PricedRows priced_rows(Address genes, Address accuracy, int64_t rows, Address counts, Address measures,
                       Address rewards) {
    return {at<const int64_t>(genes), at<const double>(accuracy), rows,
            at<int64_t>(counts),      at<double>(measures),       at<double>(rewards)};
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

Policy policy(const std::array<int64_t, 5>& size, Address weights, Address transitions, float temperature,
              float tanh_constant, std::string level) {
    return {{size[0], size[1], size[2], size[3], size[4]},
            at<const float>(weights),
            at<const int32_t>(transitions),
            temperature,
            tanh_constant,
            std::move(level)};
}

template <typename T>
std::vector<T> rows_at(Address address, int64_t count) {
    static_assert(sizeof(T) % sizeof(int64_t) == 0, "Python passes each row as int64 numbers");
    return {at<const T>(address), at<const T>(address) + count};
}

Program program(Address nodes, int64_t node_count, Address terms, int64_t term_count, Address weights,
                int64_t weight_count, Address norms, int64_t norm_count, Address epsilons, Address head,
                std::vector<int64_t> choices) {
    Program made{rows_at<ProgramNode>(nodes, node_count),
                 rows_at<ProgramTerm>(terms, term_count),
                 rows_at<ProgramWeight>(weights, weight_count),
                 rows_at<ProgramNorm>(norms, norm_count),
                 {at<const double>(epsilons), at<const double>(epsilons) + norm_count},
                 *at<const ProgramHead>(head),
                 std::move(choices)};
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

    py::class_<PriceList>(module, "PriceList").def(py::init(&price_list));
    py::class_<RewardFormula>(module, "RewardFormula").def(py::init(&reward_formula));
    py::class_<PricedRows>(module, "PricedRows").def(py::init(&priced_rows));
    module.def("cost_estimate", &nas_engine::cost_estimate_cpu, py::call_guard<py::gil_scoped_release>());
#if defined(NAS_ENGINE_CUDA) || defined(NAS_ENGINE_CUDA_ON_CPU)
    module.def(
        "cost_estimate_cuda",
        [](const PriceList& prices, const RewardFormula& formula, const PricedRows& rows, Address first_bad,
           Address stream) {
            nas_engine::cost_estimate_cuda(prices, formula, rows, at<int64_t>(first_bad), at<void>(stream));
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

    module.def("policy_levels", &nas_engine::policy_levels);
    py::class_<Policy>(module, "Policy").def(py::init(&policy));
    module.def("policy_tape_size", [](const Policy& policy, int64_t samples) {
        return nas_engine::policy_tape_size(policy.size, samples);
    });
    module.def(
        "lstm_policy_evaluate",
        [](const Policy& policy, Address genes, int64_t samples, Address outputs, Address open, Address tape) {
            return nas_engine::lstm_policy_evaluate(policy, {at<const int64_t>(genes), samples}, at<float>(outputs),
                                                    at<uint8_t>(open), at<float>(tape));
        },
        py::call_guard<py::gil_scoped_release>());
    module.def(
        "lstm_policy_gradient",
        [](const Policy& policy, Address genes, int64_t samples, Address tape, Address upstream, Address gradient) {
            return nas_engine::lstm_policy_gradient(policy, {at<const int64_t>(genes), samples}, at<const float>(tape),
                                                    at<const float>(upstream), at<float>(gradient));
        },
        py::call_guard<py::gil_scoped_release>());
    module.def(
        "lstm_policy_sample",
        [](const Policy& policy, Address uniforms, Address bonus, int64_t samples, Address genes) {
            return nas_engine::lstm_policy_sample(policy, at<const float>(uniforms), at<const float>(bonus), samples,
                                                  at<int64_t>(genes));
        },
        py::call_guard<py::gil_scoped_release>());

    module.def("depthwise_levels", &nas_engine::depthwise_levels);
    module.def(
        "depthwise_weight_gradient",
        [](const std::array<int64_t, 6>& sizes, Address inputs, const std::array<int64_t, 4>& input_strides,
           Address upstream, const std::array<int64_t, 4>& upstream_strides, Address gradient, int64_t threads,
           const std::string& level) {
            nas_engine::depthwise_weight_gradient(
                {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]}, {at<const float>(inputs), input_strides},
                {at<const float>(upstream), upstream_strides}, at<float>(gradient), threads, level);
        },
        py::call_guard<py::gil_scoped_release>());

    module.def("kernel_levels", &nas_engine::kernel_levels);
    module.def("bfloat16_levels", &nas_engine::bfloat16_levels);
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
