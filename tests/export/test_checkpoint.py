"""The loader: every format, the inferred configuration, and each refusal."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.export import TINY, synthetic_checkpoint, tiny_model
from safetensors.torch import save_file
from torch import Tensor

from dlf.export.checkpoint import GROUPS_KEY, infer_config, load_checkpoint
from dlf.export.model import DLF, MINI, RELEASED, Config
from dlf.export.model.swin import boundary_masks
from dlf.runtime.errors import CheckpointError

GROUPS = {GROUPS_KEY: str(TINY.vqgan_groups)}
State = dict[str, Tensor]


def state_of(config: Config) -> State:
    """What a checkpoint of a model with random weights holds, masks included."""
    state = tiny_model(config).state_dict()
    for name in [name for name in state if name.endswith("attention_block.pos_embedding")]:
        for key, mask in zip(("upper_lower_mask", "left_right_mask"), boundary_masks(), strict=True):
            state[name.replace("pos_embedding", key)] = torch.where(mask, -torch.inf, 0.0)
    return state


@pytest.fixture
def state() -> State:
    return state_of(TINY)


@pytest.mark.parametrize(("name", "config"), [("released", RELEASED), ("mini", MINI)])
def test_layout_is_that_of_the_manifest(name: str, config: Config) -> None:
    manifest = {
        entry["name"]: tuple(entry["shape"])
        for entry in synthetic_checkpoint().manifest(name)["tensors"]
        if entry["inference"] and not entry["name"].endswith("_mask")
    }
    with torch.device("meta"):
        model = DLF(config).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in model.items()} == manifest
    assert infer_config(model) == config


def test_infers_any_widths_depths_and_insertion_points() -> None:
    config = replace(
        TINY,
        vit_layers=5,
        encoder_insertions=(0, 3),
        decoder_insertions=(2, 4),
        insertion_depth=3,
        vqgan_blocks=1,
        vqgan_groups=8,
    )
    with torch.device("meta"):
        assert infer_config(DLF(config).state_dict(), groups=8) == config


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_reads_each_format(tmp_path: Path, suffix: str) -> None:
    # Only .safetensors can tell another number of groups than the released model's.
    config = TINY if suffix == ".safetensors" else replace(TINY, vqgan_width=32, vqgan_groups=32)
    state, path = state_of(config), tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(state, path, GROUPS)
    else:
        torch.save({"state_dict": state, "epoch": 3} if suffix == ".ckpt" else state, path)
    loaded = load_checkpoint(path)
    assert loaded.config == config
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_refuses_groups_that_do_not_divide_the_widths(tmp_path: Path) -> None:
    torch.save(state_of(replace(TINY, vqgan_width=16, vqgan_groups=8)), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"multiples of its 32 groups; a .safetensors file .* dlf.vqgan_groups"):
        load_checkpoint(tmp_path / "model.pt")


def test_ignores_what_training_left(state: State, tmp_path: Path) -> None:
    extra = (
        "img_loss.a",
        "feat_loss.b.weight",
        "epoch_for_strategy",
        "lmbda_idx",
        "lmbda_list",
        "vqgan.encoder.c",
        "vqgan.quant_conv.d",
    )
    path = tmp_path / "model.safetensors"
    save_file({**state, **{name: torch.zeros(1) for name in extra}}, path, GROUPS)
    assert load_checkpoint(path).config == TINY


def refused(state: State, tmp_path: Path, match: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path, GROUPS)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_refuses_a_missing_tensor(state: State, tmp_path: Path) -> None:
    del state["prior_fusion.ffn.1.bias"]
    refused(state, tmp_path, r"1 missing: prior_fusion\.ffn\.1\.bias$")


def test_refuses_an_unexpected_tensor(state: State, tmp_path: Path) -> None:
    refused({**state, "hybrid_codec.encoder.more": torch.zeros(1)}, tmp_path, r"1 unexpected: hybrid_codec\.encoder\.more$")


def test_refuses_a_misshapen_tensor(state: State, tmp_path: Path) -> None:
    refused(
        {**state, "prior_fusion.ffn.0.bias": torch.zeros(65)},
        tmp_path,
        r"1 misshapen: prior_fusion\.ffn\.0\.bias \(65,\) for \(64,\)$",
    )


def test_refuses_another_mask(state: State, tmp_path: Path) -> None:
    name = next(name for name in state if name.endswith("left_right_mask"))
    refused({**state, name: torch.zeros(256, 256)}, tmp_path, "is not the mask of a shifted 16x16 window")


def test_refuses_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    refused({"conv.weight": torch.zeros(3, 3)}, tmp_path, "not a DLF checkpoint; cannot tell its configuration")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module.", "ema_model.module."])
def test_prefix_is_stripped_and_told(state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str) -> None:
    save_file({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "model.safetensors", GROUPS)
    assert load_checkpoint(tmp_path / "model.safetensors").config == TINY
    told = " ".join(caplog.messages)
    assert all(f"{part}." in told for part in prefix.split(".") if part)


def test_wrapper_inside_the_model_is_stripped(state: State, tmp_path: Path) -> None:
    compiled = {name.replace("hybrid_codec.encoder.", "hybrid_codec.encoder._orig_mod."): t for name, t in state.items()}
    save_file(compiled, tmp_path / "model.safetensors", GROUPS)
    assert load_checkpoint(tmp_path / "model.safetensors").config == TINY


def test_no_prefix_no_word(state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(state, tmp_path / "model.safetensors", GROUPS)
    load_checkpoint(tmp_path / "model.safetensors")
    assert not caplog.messages


def test_of_two_models_the_averaged_one_is_taken_and_told(state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = {f"model.{name}": tensor + 1 for name, tensor in state.items()}
    averaged = {f"ema.{name}": tensor for name, tensor in state.items()}
    save_file({**last, **averaged}, tmp_path / "model.safetensors", GROUPS)
    loaded = load_checkpoint(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    assert "averaged" in caplog.text


def test_refuses_two_models_of_which_none_is_averaged(state: State, tmp_path: Path) -> None:
    refused({f"{prefix}.{name}": tensor.clone() for prefix in ("a", "b") for name, tensor in state.items()}, tmp_path, "2 models")


def test_refuses_tensors_that_are_there_twice(state: State, tmp_path: Path) -> None:
    refused({**state, "module.prior_fusion.ffn.1.bias": torch.zeros(64)}, tmp_path, "twice")
