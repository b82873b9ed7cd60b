"""DLF in PyTorch, laid out as the released checkpoint names it (ICCV 2025, "Extreme Image Compression with Dual-generative Latent Fusion")."""

from dlf.export.model.config import MINI, RELEASED, Config
from dlf.export.model.dlf import DLF

__all__ = ["DLF", "MINI", "RELEASED", "Config"]
