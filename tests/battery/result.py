"""What a part of the battery has found."""

from dataclasses import dataclass, field


@dataclass
class Result:
    """Counts and other figures by name, and a sentence for each thing that was wrong."""

    figures: dict[str, float | str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0


def scaled(count: int, scale: float) -> int:
    """A count at a scale; one at least."""
    return max(1, round(count * scale))
