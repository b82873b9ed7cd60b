// Constants of the formats that several files use, see docs/format.md. runtime/formats.py has the same for Python.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dlf {

// A version of the .dlf format is the first one, and more for what a file has.
constexpr uint32_t kFileVersion = 1, kMetadata = 1, kCodedTokens = 2, kLastFileVersion = kFileVersion + kMetadata + kCodedTokens;
constexpr const char *kBundleFormat = "dlf-bundle";
constexpr int kBundleVersion = 1;

constexpr size_t kTileSide = 256; // pixels; images are padded to whole tiles
constexpr size_t kTokensPerTile = 32;
constexpr size_t kMapPerTile = 16;   // positions a side of the maps of one tile, in the decoder
constexpr size_t kDetailPerTile = 8; // positions a side of the detail latent that one tile has

// Pixels of the images that are coded together, padded to tiles. After so many, stages on the CPU are not kept: libraries keep the
// memory of a run, by far the most that is held, and to load a stage again takes a tenth of the time at most.
constexpr size_t kLargeBatch = 1048576;

// Bytes of the files of a stage up to which OpenVINO compiles it for all shapes, even for a single run: Python then keeps what it
// compiled, and both give the same pictures. In a single run of a larger one, shapes that are known halve its memory.
constexpr uint64_t kLargestKeptStage = 33554432;

// A bundle's stages, in the order in which they run.
constexpr const char *kEncoderStage = "analysis";
constexpr std::array<const char *, 3> kDecoderStages = {"synthesis", "adaptor", "generator"};

constexpr size_t tiles_along(uint32_t side) { return (side + kTileSide - 1) / kTileSide; }

} // namespace dlf
