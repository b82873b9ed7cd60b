"""DLF in PyTorch, as the released checkpoint lays it out.

The model is that of "DLF: Extreme Image Compression with Dual-generative Latent Fusion" (ICCV 2025); see NOTICE.
"""

from dlf.export.model.config import MINI, RELEASED, Config
from dlf.export.model.dlf import DLF

__all__ = ["DLF", "MINI", "RELEASED", "Config"]
