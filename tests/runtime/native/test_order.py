"""What libdlf knows of the processor as far as it decides which backend runs a model best."""

import platform
from pathlib import Path

import pytest

from dlf.runtime import libdlf

# Instructions that multiply int8 and add up four products in 32 bits, as Linux names them: x86's VNNI, Arm's dot products.
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}


@pytest.mark.skipif(platform.system() != "Linux", reason="the system does not name the processor's instructions")
def test_dot_products_are_those_that_linux_tells():
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert libdlf.has_int8_dot_products() is not words.isdisjoint(DOT_PRODUCTS)
