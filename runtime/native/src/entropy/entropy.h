// The dlf_entropy of dlf.h.
#pragma once

#include "entropy/detail_coder.h"
#include "entropy/entropy_model.h"
#include "support/scratch_pool.h"

struct dlf_entropy {
    dlf::EntropyModel model;
    mutable dlf::ScratchPool<dlf::DetailScratch> pool{}; // safe to share: it has its own lock
};
