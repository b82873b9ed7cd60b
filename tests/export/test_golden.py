"""The PyTorch model against the golden tensors, which another implementation computed from the same checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.export import golden, write_synthetic
from numpy.typing import NDArray

from dlf.export.checkpoint import load_checkpoint
from dlf.export.integer_prior import cdf_indexes, entropy_tables
from dlf.export.model import DLF, MINI, RELEASED
from dlf.runtime.images import crop_to_pixels, pad_to_tiles
from dlf.runtime.libdlf import EntropyModel

# Largest deviation, relative to the tensor's largest magnitude, as the specification sets it.
TOLERANCE = {"x_hat_padded": 1e-4}
DEFAULT_TOLERANCE = 1e-5


@torch.no_grad()
def run(model: DLF, image: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    """Everything that a golden file may hold."""
    codec, quantiser = model.hybrid_codec, model.hybrid_codec.quantize_feat
    x = torch.from_numpy(pad_to_tiles(image))
    z, feat = codec.encoder(x, codec.latent_tokens)
    indices = codec.quantize.look_up(z)
    y = quantiser.analyse(feat)
    quantised = quantiser.quantise(y)
    feat_hat_in = quantiser.synthesise(quantised.y_hat)
    z_hat = codec.quantize.embed(indices)
    semantic, detail = codec.decoder(z_hat, feat_hat_in)
    logits = model.prior_fusion(semantic, detail)
    latent = model.vqgan.quantize(logits)
    x_hat = model.generator(latent)
    tensors = {
        "z": z,
        "feat": feat,
        "indices": indices,
        "y": y,
        "prior_params": quantiser.y_prior_fusion(quantiser.factorized_prior_vec.expand(1, -1, *y.shape[2:])),
        **{f"symbols_{k}": symbols for k, symbols in enumerate(quantised.symbols)},
        **{f"scales_{k}": scales for k, scales in enumerate(quantised.scales)},
        "y_hat": quantised.y_hat,
        "feat_hat_in": feat_hat_in,
        "z_hat": z_hat,
        "semantic_hat": semantic,
        "detail_hat": detail,
        "logits": logits,
        "latent": latent,
        "x_hat_padded": x_hat,
    }
    arrays: dict[str, NDArray[np.generic]] = {name: tensor.numpy() for name, tensor in tensors.items()}
    symbols = np.concatenate([s.numpy().ravel() for s in quantised.symbols]).astype(np.int32)
    scales = np.concatenate([s.numpy().ravel() for s in quantised.scales])
    entropy = EntropyModel(entropy_tables(model).to_bytes())
    # The reference puts the number of streams, one, before the stream.
    arrays["detail_stream"] = np.frombuffer(b"\x01" + entropy.rans_encode(symbols, cdf_indexes(scales)), np.uint8)
    arrays["image_hat"] = crop_to_pixels(x_hat.numpy(), *image.shape[:2])
    return arrays


def check(model: DLF, name: str) -> None:
    expected = golden(name)
    actual = run(model, expected.pop("image"))
    assert expected.keys() <= actual.keys()
    for key, e in expected.items():
        a = actual[key].reshape(e.shape)
        if key == "image_hat":
            difference = np.abs(a.astype(int) - e.astype(int))
            assert difference.max() <= 1
            assert (difference > 0).mean() < 1e-3
        elif np.issubdtype(e.dtype, np.integer):
            np.testing.assert_array_equal(a, e, err_msg=key)
        else:
            error = np.abs(a - e).max() / np.abs(e).max()
            assert error <= TOLERANCE.get(key, DEFAULT_TOLERANCE), f"{key}: {error:.1e}"


@pytest.mark.parametrize("size", ["512x256", "421x300"])
def test_mini(mini_checkpoint: Path, size: str) -> None:
    model = load_checkpoint(mini_checkpoint)
    assert model.config == MINI
    check(model, f"mini7_{size}")


@pytest.mark.slow
def test_released(tmp_path: Path) -> None:
    model = load_checkpoint(write_synthetic(tmp_path / "released11.ckpt", "released", 11))
    assert model.config == RELEASED
    check(model, "released11_256x256")


def test_integer_prior_costs_at_most_half_a_per_cent(mini_checkpoint: Path) -> None:
    expected = golden("mini7_512x256")
    entropy = EntropyModel(entropy_tables(load_checkpoint(mini_checkpoint)).to_bytes())
    stream = entropy.encode_detail(expected["y"][0].astype(np.float32))
    assert len(stream) <= 1.005 * (len(expected["detail_stream"]) - 1)
