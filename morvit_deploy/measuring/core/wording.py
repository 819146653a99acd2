"""How figures read in tables. No torch."""

from __future__ import annotations

from collections.abc import Sequence


def three_digits(number: float) -> str:
    """Three digits: 0.664, 20.7, 1234, -0.0120."""
    return f"{number:.0f}" if abs(number) >= 100 or number == 0 else f"{number:#.3g}"


def spread(numbers: Sequence[float]) -> str:
    """Least and most: 20.1–22.4; with a negative one -0.01 to 0.02."""
    least, most = min(numbers), max(numbers)
    return f"{three_digits(least)}{' to ' if least < 0 else '–'}{three_digits(most)}"
