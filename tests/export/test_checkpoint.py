"""The loader: every format, the inferred configuration, and each refusal."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.export import TINY, synthetic_checkpoint, tiny_model
from safetensors.torch import save_file
from torch import Tensor

from dlf.export.checkpoint import GROUPS_KEY, infer_config, load_checkpoint, read_tensors
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


def test_refuses_groups_that_do_not_divide_the_widths(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="multiples of vqgan_groups, 32"):
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


class Malicious:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("absent.ckpt", None),
        ("text.ckpt", b"not a checkpoint"),
        ("empty.ckpt", b""),
        ("text.safetensors", b"not a checkpoint"),
        ("pickle.ckpt", pickle.dumps({"state_dict": Malicious()})),
    ],
)
def test_refuses_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(path)


def test_refuses_code_in_a_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": Malicious()}}, path)
    with pytest.raises(CheckpointError, match="weights_only"):
        load_checkpoint(path)


def test_refuses_a_file_without_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": 1}}, path)
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
    ],
)
def test_file_that_stands_in_for_a_checkpoint_is_told_for_what_it_is(tmp_path, content, fact):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=fact):
        read_tensors(tmp_path / "model.ckpt")


def test_old_serialisation_is_read(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "old.pt")[0]["weight"].tolist() == [1, 1]
