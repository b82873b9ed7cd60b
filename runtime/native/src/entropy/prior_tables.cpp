#include "entropy/prior_tables.h"

#include <numeric>

namespace dlf {
namespace {

size_t round_up(size_t count, size_t to) { return (count + to - 1) / to * to; }

// Returns the index of an output among the m of its layer: see Layout.
size_t place_of(const Layout &layout, size_t output) {
    const size_t within = output % layout.panel;
    const size_t vector = within % 8 / 4, lane = within / 8 * 4 + within % 4;
    return output - within + vector * (layout.panel / 2) + lane;
}

// Returns the index of its bias: each vector's are in two halves.
size_t bias_place(const Layout &layout, size_t place) {
    const size_t lanes = layout.panel / 2;
    if (lanes == 0)
        return place;
    const size_t lane = place % lanes;
    const size_t half = layout.interleaved_bias ? lane % 2 : lane / (lanes / 2);
    const size_t within = layout.interleaved_bias ? lane / 2 : lane % (lanes / 2);
    return place - lane + half * (lanes / 2) + within;
}

std::vector<size_t> range(size_t begin, size_t count) {
    std::vector<size_t> values(count);
    std::iota(values.begin(), values.end(), begin);
    return values;
}

// Returns a group's scales and means among the D outputs of the last block.
std::vector<size_t> outputs_of_group(size_t group, size_t d) {
    const size_t channels = d / 2, size = channels / kGroups;
    std::vector<size_t> outputs = range(group * size, size);
    const std::vector<size_t> means = range(channels + group * size, size);
    outputs.insert(outputs.end(), means.begin(), means.end());
    return outputs;
}

AlignedVector<int32_t> base_sums(const Layer &conv1, const Layout &layout, const std::vector<int16_t> &common) {
    constexpr size_t kPlaces = kClasses * kClasses;
    const size_t channels = conv1.inputs / 2, padded = round_up(conv1.outputs, layout.panel);
    AlignedVector<int32_t> base(kPlaces * padded);
    for (size_t place = 0; place < kPlaces; ++place)
        for (size_t o = 0; o < conv1.outputs; ++o)
            for (size_t c = 0; c < channels; ++c)
                base[place * padded + place_of(layout, o)] +=
                    conv1.w[o * conv1.inputs + channels + c] * common[c * kPlaces + place];
    return base;
}

} // namespace

Layer Layer::of_outputs(const std::vector<size_t> &chosen) const {
    Layer part{chosen.size(), inputs, {}, {}, {}};
    for (const size_t o : chosen) {
        const int8_t *row = w.data() + o * inputs;
        part.w.insert(part.w.end(), row, row + inputs);
        part.m.push_back(m[o]);
        part.b.push_back(b[o]);
    }
    return part;
}

Layer Layer::of_inputs(size_t begin, size_t end) const {
    Layer part{outputs, end - begin, {}, m, b};
    for (size_t o = 0; o < outputs; ++o) {
        const int8_t *row = w.data() + o * inputs;
        part.w.insert(part.w.end(), row + begin, row + end);
    }
    return part;
}

PackedLayer::PackedLayer(const Layer &layer, const Layout &layout)
    : outputs_(round_up(layer.outputs, layout.panel)), inputs_(round_up(layer.inputs, layout.group)), w_(outputs_ * inputs_),
      m_(outputs_), b_(outputs_) {
    for (size_t o = 0; o < layer.outputs; ++o) {
        const size_t place = place_of(layout, o), within = place % layout.panel;
        int16_t *panel = &w_[(place - within) * inputs_];
        for (size_t i = 0; i < layer.inputs; ++i) {
            const size_t group = i / layout.group;
            panel[(group * layout.panel + within) * layout.group + i % layout.group] = layer.w[o * layer.inputs + i];
        }
        m_[place] = layer.m[o];
        b_[bias_place(layout, place)] = layer.b[o];
    }
}

PackedBlock::PackedBlock(const DepthBlock &block, const Layout &layout)
    : conv1(block.conv1, layout), depth_conv(block.depth_conv, layout), conv2(block.conv2, layout),
      conv_a(block.conv.of_outputs(range(0, block.conv.outputs / 2)), layout),
      conv_b(block.conv.of_outputs(range(block.conv.outputs / 2, block.conv.outputs / 2)), layout),
      conv_out(1, PackedLayer(block.conv_out, layout)) {}

PriorTables::PriorTables(const PriorKernels &kernels_, const std::array<DepthBlock, kSteps - 1> &adaptors_,
                         const std::array<DepthBlock, kSharedBlocks> &shared_, const std::vector<int16_t> &common)
    : kernels(&kernels_) {
    const Layout &layout = kernels_.layout;
    for (size_t i = 0; i < adaptors_.size(); ++i) {
        const Layer &conv1 = adaptors_[i].conv1;
        base[i] = base_sums(conv1, layout, common);
        adaptors.emplace_back(adaptors_[i], layout);
        adaptors.back().conv1 = PackedLayer(conv1.of_inputs(0, conv1.inputs / 2), layout);
    }
    for (const DepthBlock &block : shared_)
        shared.emplace_back(block, layout);
    const Layer &last = shared_.back().conv_out;
    shared.back().conv_out.clear();
    for (size_t group = 0; group < kGroups; ++group)
        shared.back().conv_out.emplace_back(last.of_outputs(outputs_of_group(group, last.outputs)), layout);
}

} // namespace dlf
