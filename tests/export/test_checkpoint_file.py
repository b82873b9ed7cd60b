"""Checkpoint files: recognised by content, read without running anything, and told for what they are if they are none."""

import argparse
import collections
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dlf.export.checkpoint_file import read_tensors
from dlf.runtime.errors import CheckpointError


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
        read_tensors(path)


def test_refuses_code_in_a_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": Malicious()}}, path)
    with pytest.raises(CheckpointError, match="weights_only"):
        read_tensors(path)


def test_refuses_a_file_without_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": 1}}, path)
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_tensors(path)


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


def test_containers_are_parts_of_names(tmp_path):
    content = {"state_dict": {"a": torch.ones(1)}, "ema": {"module": {"a": torch.zeros(1)}}, "epoch": 3, "optimizer_states": [{}]}
    torch.save(content, tmp_path / "model.ckpt")
    assert read_tensors(tmp_path / "model.ckpt")[0].keys() == {"state_dict.a", "ema.module.a"}


def test_safetensors_are_read_under_any_suffix(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.ckpt", {"key": "value"})
    tensors, metadata = read_tensors(tmp_path / "model.ckpt")
    assert (tensors["a"].tolist(), metadata) == ([1], {"key": "value"})


@pytest.mark.parametrize("new", [True, False])
def test_pickles_are_read_under_the_name_of_safetensors(tmp_path, new):
    torch.save({"a": torch.ones(1)}, tmp_path / "model.safetensors", _use_new_zipfile_serialization=new)
    assert read_tensors(tmp_path / "model.safetensors")[0]["a"].tolist() == [1]


class Unknown:
    pass


@pytest.mark.parametrize("new", [True, False])
def test_unknown_class_is_named_with_the_remedy_in_plain_text(tmp_path, new):
    path = tmp_path / "model.ckpt"
    content = {"state_dict": {"a": torch.ones(1)}, "hyper_parameters": {"config": Unknown()}}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=rf"holds {Unknown.__module__}\.Unknown .*weights_only=False") as caught:
        read_tensors(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(rate=1e-4, sizes=[1, 2]),
        types.SimpleNamespace(rate=1e-4),
        Path("data"),
        collections.defaultdict(list, a=[1]),
        np.float64(0.5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_objects_do_not_keep_the_tensors_from_being_read(tmp_path, caplog, value):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "hyper_parameters": value, "more": [value]}, path)
    assert {name: tensor.tolist() for name, tensor in read_tensors(path)[0].items()} == {"state_dict.a": [1]}
    assert "left out" in caplog.text


def test_objects_of_packages_that_are_not_installed_do_not_either(tmp_path, monkeypatch):
    names = {"omegaconf": ["dictconfig"], "omegaconf.dictconfig": ["DictConfig"]}
    for module in names:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    stand_in = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    sys.modules["omegaconf.dictconfig"].DictConfig = stand_in
    config = stand_in()
    config.content = {"rate": 1}
    torch.save({"state_dict": {"a": torch.ones(1)}, "hyper_parameters": config}, tmp_path / "model.ckpt")
    monkeypatch.undo()
    assert read_tensors(tmp_path / "model.ckpt")[0].keys() == {"state_dict.a"}


def test_refuses_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is no file"):
        read_tensors(tmp_path)


def test_refuses_a_damaged_safetensors_file(tmp_path):
    save_file({"a": torch.ones(100)}, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-8])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("new", [True, False])
def test_damaged_pickle_is_refused_at_any_cut(tmp_path, new):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(4), "b": torch.zeros(2, dtype=torch.int64)}, path, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    for cut in range(1, len(data), 37):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=r"damaged|no state dict"):
            read_tensors(path)


def test_torchscript_is_told_for_what_it_is(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_tensors(tmp_path / "model.pt")
