"""Attention as runtimes fuse it, and the ViT's transformer block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model.config import HEAD_WIDTH

# Where a graph's attention is over more positions than this, it goes through its heads in groups, one after the other: a runtime
# that holds the logits holds those of a group.
LONG, HEAD_GROUPS = 512, 2


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention on (batch, heads, length, width), with an additive bias that broadcasts to the logits.

    In an exported graph it is spelled out, with one scaling, as the pattern that ONNX runtimes recognise.
    """
    if not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    if bias is None and q.shape[1] % HEAD_GROUPS == 0 and q.shape[2] > LONG:
        groups = (x.chunk(HEAD_GROUPS, 1) for x in (q, k, v))
        return torch.cat([_spelled_out(*group) for group in zip(*groups, strict=True)], 1)
    return _spelled_out(q, k, v, bias)


def _spelled_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    return logits.softmax(-1) @ v


class MultiheadAttention(nn.Module):
    """Self-attention with the parameters of `torch.nn.MultiheadAttention`, batch first: (batch, length, width) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every position of x to every position of x."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out_proj(attention(q, k, v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """A pre-norm ViT block on (batch, length, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = MultiheadAttention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        """Attention and MLP, each with its residual."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))
