// Which backend runs bundles of which precision fastest: the one table of it, for C and for Python.
#pragma once

#include <string>
#include <vector>

namespace dlf {

// The precisions of bundles, that first which a backend runs fastest on this processor. Of a backend that dlf does not know: the
// most exact first.
std::vector<std::string> precisions_of(const std::string &backend);

} // namespace dlf
