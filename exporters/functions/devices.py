"""What Apple's systems and devices are held to. The standard library alone: benchmark projects carry this file."""

from __future__ import annotations

# Largest |Δlogit| that rounding explains, as a part of max(1, max |logit|).
# fp32: sums in another order. fp16: the Neural Engine also accumulates in fp16; wrong attention moves logits by their
# own size. A token whose routing is a tie may flip and move one picture; wrong arithmetic moves them all. So the
# median picture is compared.
TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}


def oldest_macos(ios: int) -> int:
    """The macOS of the same year: 14 for iOS 17, 15 for iOS 18, 26 for iOS 26."""
    return ios - 3 if ios <= 18 else ios
