"""encode, decode and info as models of Triton Inference Server: what `model.py` of a repository imports.

Only Triton's Python back end can import this module, for it alone has `triton_python_backend_utils`. `dlf-export
--triton-repository` writes the repository. Bodies are files, as those of `dlf serve`: arrays of bytes (1, n), uint8. They pass by
DLPack, since the back end's own arrays are for NumPy below 2, and silently wrong with later ones.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from dlf.runtime.codec import Codec
from dlf.runtime.errors import DLFError
from dlf.runtime.info import info
from dlf.runtime.libdlf import Limits
from dlf.runtime.serve.worker import Failed, Order, Result, Worker


class TritonPythonModel:
    """One instance of the model `dlf_encode`, `dlf_decode` or `dlf_info`; the methods are those that the back end calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the codec that the model's parameters name, and code an image with it.

        Raises DLFError: the codec cannot be opened, or does not code. Triton then marks the model as unavailable.
        """
        parameters = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        self._operation, limits = parameters["operation"], Limits()
        if self._operation == "info":
            return
        bundle = Path(args["model_repository"]) / parameters["bundle"]
        threads = int(parameters["threads"]) or None
        self._worker = Worker(partial(Codec, bundle, parameters["backend"] or None, threads, limits=limits), limits)
        self._worker.start()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer a batch of requests: each with its file, or with the error's class and message."""
        bodies = [np.from_dlpack(triton.get_input_tensor_by_name(request, "body")).tobytes() for request in requests]
        if self._operation == "info":
            return [_response(_info(body)) for body in bodies]
        return [_response(result) for result in self._worker.run(Order(self._operation), bodies)[0]]


def _info(body: bytes) -> Result:
    try:
        return json.dumps(info(body).to_dict()).encode()
    except DLFError as error:
        return Failed.of(error)


def _response(result: Result) -> Any:
    if isinstance(result, Failed):
        code = triton.TritonError.INVALID_ARG if result.by_request else triton.TritonError.INTERNAL
        return triton.InferenceResponse([], triton.TritonError(f"{result.name}: {result.message}", code))
    return triton.InferenceResponse([triton.Tensor.from_dlpack("answer", np.frombuffer(bytearray(result), np.uint8)[None])])
