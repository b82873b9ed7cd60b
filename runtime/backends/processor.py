"""What this processor can do, as far as it decides which backend runs a model best."""

from pathlib import Path

# Instructions that multiply int8 and add up four products in 32 bits, as Linux names them: x86's VNNI, Arm's dot products.
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}
CPUINFO = Path("/proc/cpuinfo")


def has_int8_dot_products() -> bool:
    """Whether it multiplies int8 much faster than fp32. (An x86 processor without VNNI has to add up in 16 bits in between.)"""
    try:
        words = set(CPUINFO.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not words.isdisjoint(DOT_PRODUCTS)
