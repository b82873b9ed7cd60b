"""What this processor can do, as far as it decides how the backends on the CPU are used."""

from pathlib import Path

# Instructions that multiply int8 and add up four products in 32 bits, as Linux names them: x86's VNNI, Arm's dot products.
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}
CPUINFO = Path("/proc/cpuinfo")


def has_int8_dot_products() -> bool:
    """Whether int8 graphs are faster here than fp32 ones. (On an EPYC of the third generation they are not.)"""
    try:
        words = set(CPUINFO.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not words.isdisjoint(DOT_PRODUCTS)
