#include "backends/batch_size.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <string>
#include <string_view>

#include "support/failure.h"

namespace dlf {
namespace {

// What a side of a shape is made of: "256*h" is 256 of 'h', "h" is 1 of 'h', and "3" is 3 of nothing.
struct Dimension {
    uint64_t factor = 1;
    char symbol = 0;
};

Dimension parse(const std::string &text) {
    Dimension dimension;
    const char *end = text.data() + text.size();
    const auto number = std::from_chars(text.data(), end, dimension.factor);
    const char *rest = number.ptr;
    if (rest != end && *rest == '*')
        ++rest;
    if (rest != end)
        dimension.symbol = *rest;
    return dimension;
}

} // namespace

BatchSize batch_size(const std::vector<Manifest::Port> &ports, const dlf_tensor *inputs, size_t input_count) {
    static constexpr std::string_view kSymbols = "nhw";
    uint64_t found[kSymbols.size()] = {};
    for (const Manifest::Port &port : ports) {
        const dlf_tensor &input = input_named(inputs, input_count, port.name);
        bool fits = input.rank == port.shape.size();
        for (size_t i = 0; fits && i < input.rank; ++i) {
            const Dimension dimension = parse(port.shape[i]);
            const size_t symbol = kSymbols.find(dimension.symbol), side = input.shape[i];
            if (symbol == std::string_view::npos || dimension.factor == 0) {
                fits = dimension.symbol == 0 && side == dimension.factor;
                continue;
            }
            const uint64_t value = side / dimension.factor;
            fits = side % dimension.factor == 0 && value > 0 && (found[symbol] == 0 || found[symbol] == value);
            found[symbol] = value;
        }
        if (!fits)
            fail(DLF_ERROR_BACKEND_FAILED, "its input '" + port.name + "' has not the shape that manifest.json tells");
    }
    if (std::find(std::begin(found), std::end(found), 0) != std::end(found))
        fail(DLF_ERROR_BUNDLE_BROKEN, "manifest.json does not tell the shapes of its inputs; export the bundle again");
    return {found[0], found[1], found[2]};
}

const dlf_tensor &input_named(const dlf_tensor *inputs, size_t input_count, const std::string &name) {
    const dlf_tensor *end = inputs + input_count;
    const dlf_tensor *found = std::find_if(inputs, end, [&](const dlf_tensor &input) { return name == input.name; });
    if (found == end)
        fail(DLF_ERROR_BACKEND_FAILED, "it has an input '" + name + "', which the codec does not give");
    return *found;
}

} // namespace dlf
