// Checks of a weight-sharing network's description, so that no index or shape can lead outside its arrays.
#include <stdexcept>

#include "ops/supernet_eval.h"

namespace nas_engine {

namespace {

constexpr int64_t kMaxSize = 1 << 14;  // of a dimension: products of three stay far from overflow
constexpr int64_t kMaxNodes = 1 << 16;

void require(bool condition, const char* part, int64_t index, const char* fault) {
    if (!condition) throw std::invalid_argument(std::string(part) + " " + std::to_string(index) + ": " + fault);
}

bool is_index(int64_t value, size_t size) { return value >= 0 && value < static_cast<int64_t>(size); }

bool is_index_or_none(int64_t value, size_t size) { return value == -1 || is_index(value, size); }

bool is_size(int64_t value) { return value >= 1 && value <= kMaxSize; }

bool same_shape(const ProgramNode& a, const ProgramNode& b) {
    return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_weight(const Program& program, int64_t index, const ProgramTerm& term, const ProgramNode& node,
                  const ProgramNode& source) {
    const bool depthwise = term.kind == static_cast<int64_t>(TermKind::kDepthwise);
    require(is_index(term.weight, program.weights.size()), "term", index, "weight is out of range");
    const ProgramWeight& weight = program.weights[static_cast<size_t>(term.weight)];
    require(term.kernel % 2 == 1 && weight.kernel % 2 == 1, "term", index, "kernels must be odd");
    require(term.kernel <= weight.kernel, "term", index, "kernel is larger than the weight's");
    require(node.channels <= weight.outputs, "term", index, "node has more channels than the weight has outputs");
    require((depthwise ? 1 : source.channels) <= weight.inputs, "term", index, "source has more channels than inputs");
    require(!depthwise || source.channels == node.channels, "term", index, "a depthwise source has other channels");
}

void check_term(const Program& program, int64_t index, int64_t node_index) {
    const ProgramTerm& term = program.terms[static_cast<size_t>(index)];
    const ProgramNode& node = program.nodes[static_cast<size_t>(node_index)];
    require(term.kind >= 0 && term.kind <= 3, "term", index, "kind is unknown");
    require(is_index(term.source, static_cast<size_t>(node_index)), "term", index, "source must come before its node");
    const ProgramNode& source = program.nodes[static_cast<size_t>(term.source)];
    require(term.kernel >= 1 && term.kernel <= 15, "term", index, "kernel must be 1..15");
    require(term.stride >= 1 && term.stride <= 15, "term", index, "stride must be 1..15");
    require(term.rectified == 0 || term.rectified == 1, "term", index, "rectified must be 0 or 1");
    require(is_index_or_none(term.decision, program.choices.size()), "term", index, "decision is out of range");
    require(
        term.decision == -1 || (term.choice >= 0 && term.choice < program.choices[static_cast<size_t>(term.decision)]),
        "term", index, "choice is out of range");
    require(
        node.height == ceil_divide(source.height, term.stride) && node.width == ceil_divide(source.width, term.stride),
        "term", index, "size of the node is not that of its source over the stride");
    require(is_index_or_none(term.norm, program.norms.size()), "term", index, "norm is out of range");
    const TermKind kind = static_cast<TermKind>(term.kind);
    if (kind == TermKind::kConvolution || kind == TermKind::kDepthwise) {
        check_weight(program, index, term, node, source);
        require(term.norm == -1 || node.channels <= program.norms[static_cast<size_t>(term.norm)].channels, "term",
                index, "node has more channels than the norm");
        return;
    }
    require(term.norm == -1 && term.weight == -1, "term", index, "only convolutions have a weight and a norm");
    require(source.channels == node.channels, "term", index, "source and node differ in channels");
    require(kind != TermKind::kIdentity || (term.kernel == 1 && same_shape(source, node)), "term", index,
            "an identity needs kernel 1 and equal shapes");
}

void check_node(const Program& program, int64_t index) {
    const ProgramNode& node = program.nodes[static_cast<size_t>(index)];
    require(is_size(node.channels) && is_size(node.height) && is_size(node.width), "node", index,
            "sizes must be 1..16384");
    require((node.relu6 | 1) == 1 && (node.optional | 1) == 1, "node", index, "flags must be 0 or 1");
    const int64_t all = static_cast<int64_t>(program.terms.size());
    require(node.first_term >= 0 && node.terms >= 0 && node.first_term <= all && node.terms <= all - node.first_term,
            "node", index, "terms are out of range");
    require(is_index_or_none(node.zero_of, static_cast<size_t>(index)), "node", index, "zero_of must come before it");
    require(node.zero_of == -1 ||
                (node.optional == 0 && same_shape(node, program.nodes[static_cast<size_t>(node.zero_of)])),
            "node", index, "zero_of needs the same shape, and a node that is not optional");
    require(index > 0 || (node.terms == 0 && node.optional == 0), "node", index, "the image has no terms");
    for (int64_t i = 0; i < node.terms; ++i) check_term(program, node.first_term + i, index);
}

void check_head(const Program& program) {
    const ProgramHead& head = program.head;
    require(is_index(head.node, program.nodes.size()), "head", 0, "node is out of range");
    const ProgramNode& node = program.nodes[static_cast<size_t>(head.node)];
    require(node.optional == 0, "head", 0, "node may not exist");
    require(is_index_or_none(head.norm, program.norms.size()), "head", 0, "norm is out of range");
    require(head.norm == -1 || node.channels <= program.norms[static_cast<size_t>(head.norm)].channels, "head", 0,
            "node has more channels than the norm");
    require(node.channels <= head.inputs, "head", 0, "node has more channels than the classifier has inputs");
    require(is_size(head.classes) && is_size(head.inputs), "head", 0, "sizes must be 1..16384");
}

}  // namespace

void check_program(const Program& program) {
    require(!program.nodes.empty() && static_cast<int64_t>(program.nodes.size()) <= kMaxNodes, "program", 0,
            "must have 1..65536 nodes");
    require(program.decisions() <= kMaxSize, "program", 0, "decisions are out of range");
    for (size_t i = 0; i < program.choices.size(); ++i) {
        require(program.choices[i] >= 1, "decision", static_cast<int64_t>(i), "choices must be 1 or more");
    }
    require(program.epsilons.size() == program.norms.size(), "program", 0, "each norm needs one epsilon");
    for (size_t i = 0; i < program.weights.size(); ++i) {
        const ProgramWeight& weight = program.weights[i];
        require(is_size(weight.outputs) && is_size(weight.inputs) && is_size(weight.kernel), "weight",
                static_cast<int64_t>(i), "sizes must be 1..16384");
    }
    for (size_t i = 0; i < program.norms.size(); ++i) {
        require(is_size(program.norms[i].channels), "norm", static_cast<int64_t>(i), "channels must be 1..16384");
    }
    for (size_t i = 0; i < program.nodes.size(); ++i) check_node(program, static_cast<int64_t>(i));
    check_head(program);
}

}  // namespace nas_engine
