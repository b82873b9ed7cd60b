"""Attention as it is spelled out in an exported graph, in groups of heads where it is long, compared with NumPy."""

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.export.model.attention import attention


class _Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v)


def reference(q: NDArray[np.float32], k: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float64]:
    logits = np.einsum("nhqc,nhkc->nhqk", q.astype(float), k.astype(float)) / np.sqrt(q.shape[-1])
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("nhqk,nhkc->nhqc", shares / shares.sum(-1, keepdims=True), v.astype(float))


@pytest.mark.parametrize(("heads", "length", "groups"), [(4, 545, 2), (2, 545, 2), (3, 545, 1), (1, 545, 1), (4, 289, 1)])
def test_long_attention_goes_through_its_heads_in_groups(heads: int, length: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(2, heads, length, 8, generator=generator) for _ in range(3))
    program = torch.onnx.export(_Attention(), inputs, dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    assert [node.op_type for node in model.graph.node].count("Softmax") == groups
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    arrays = [x.numpy() for x in inputs]
    names = [port.name for port in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, arrays, strict=True)))
    np.testing.assert_allclose(found, reference(*arrays), rtol=1e-4, atol=1e-5)
