"""What Triton's Python back end calls, with a stand-in for the module that it alone has; tests/export has the real server."""

import importlib
import json
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.serve import png

import dlf
from dlf.runtime.images import encode_as


class Refusal:
    INVALID_ARG, INTERNAL = "invalid", "internal"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Any:
    tensor = SimpleNamespace(from_dlpack=lambda name, array: {name: np.from_dlpack(array)})
    stand_in = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request[name],
        InferenceResponse=lambda tensors, error=None: error or tensors[0]["answer"].tobytes(),
        Tensor=tensor,
        TritonError=Refusal,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "dlf.runtime.serve.triton", raising=False)
    yield importlib.import_module("dlf.runtime.serve.triton")
    sys.modules.pop("dlf.runtime.serve.triton", None)


def model(triton: Any, operation: str, bundle: Path) -> Any:
    made = triton.TritonPythonModel()
    parameters = {"operation": operation, "bundle": bundle.name, "backend": "", "threads": "1"}
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    made.initialize({"model_config": json.dumps(config), "model_repository": str(bundle.parent)})
    return made


def ask(one: Any, *bodies: bytes) -> list[Any]:
    answers: list[Any] = one.execute([{"body": np.frombuffer(bytearray(body), np.uint8)[None]} for body in bodies])
    return answers


def test_a_batch_is_answered_in_order_and_one_bad_body_costs_no_other(triton: Any, toy_bundle: Path) -> None:
    codec, photographs = dlf.Codec(toy_bundle, threads=1), [png(300, 40), png(520, 40)]
    coder, decoder = model(triton, "encode", toy_bundle), model(triton, "decode", toy_bundle)
    first, bad, second = ask(coder, photographs[0], b"no picture", photographs[1])
    assert [first, second] == [codec.encode(BytesIO(body)) for body in photographs]
    assert bad.code == Refusal.INVALID_ARG and bad.message.startswith("ImageError: ")
    assert ask(decoder, second, first) == [encode_as(codec.decode(file), ".png") for file in (second, first)]


def test_info_needs_no_model_and_refuses_what_is_no_file(triton: Any, toy_bundle: Path, tmp_path: Path) -> None:
    file = dlf.Codec(toy_bundle, threads=1).encode(np.zeros((40, 50, 3), np.uint8))
    told, bad = ask(model(triton, "info", tmp_path / "none"), file, b"no file")
    assert json.loads(told) == dlf.info(file).to_dict()
    assert bad.code == Refusal.INVALID_ARG and bad.message.startswith("NotDLFError: ")


def test_a_model_that_is_none_fails_at_the_start(triton: Any, tmp_path: Path) -> None:
    with pytest.raises(dlf.DLFError):
        model(triton, "encode", tmp_path / "none")
