"""Names a browser and its machine from what the page can see: pure functions. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"
# in this order: most browsers also name those that they descend from
_NAMED = (
    ("Edge", r"\bEdg(?:A|iOS)?/([\d.]+)"),
    ("Opera", r"\bOPR/([\d.]+)"),
    ("Samsung Internet", r"\bSamsungBrowser/([\d.]+)"),
    ("Firefox", r"\b(?:Firefox|FxiOS)/([\d.]+)"),
    ("Chrome", r"\b(?:HeadlessChrome|Chrome|CriOS)/([\d.]+)"),
    ("Safari", r"\bVersion/([\d.]+).* Safari/"),
)
_ENGINES = ("Chromium", "HeadlessChrome")  # brands that a browser has beside its own name
_MADE_UP = re.compile(r"not.*brand", re.IGNORECASE)  # a brand that changes with each version


def named(user_agent: str, details: Mapping[str, Any] | None) -> tuple[str, str]:
    """Name and version. Browsers of the Chromium family state them; others are read from the user agent."""
    brands = {
        str(one.get("brand")): str(one.get("version"))
        for one in (details or {}).get("fullVersionList") or ()
        if not _MADE_UP.search(str(one.get("brand")))
    }
    if brands:
        name = next((brand for brand in brands if brand not in _ENGINES), next(iter(brands)))
        return name, brands[name]
    for name, pattern in _NAMED:
        if found := re.search(pattern, user_agent):
            return name, found[1]
    return UNKNOWN, ""


def system(user_agent: str, details: Mapping[str, Any] | None) -> str:
    """Operating system, and the device's model where the browser states it."""
    if details and details.get("platform"):
        words = (details.get(key) for key in ("platform", "platformVersion", "architecture", "model"))
        return " ".join(str(word) for word in words if word)
    inside = re.search(r"\(([^)]*)\)", user_agent)
    return inside[1] if inside else UNKNOWN


def machine(about: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `this_machine`, as far as a page can know them; browsers round cores and memory down."""
    return {
        "system": system(str(about.get("user_agent", "")), about.get("details")),
        "processor": UNKNOWN,
        "cores": about.get("cores"),
        "memory_gib": about.get("memory_gib"),
        "instruction_sets": ["WebAssembly SIMD"] if about.get("simd") else [],
        "python": None,
    }


def is_mobile(user_agent: str) -> bool:
    """Is it a phone or a tablet? It may reach loopback through a cable (`adb reverse`)."""
    return bool(re.search(r"\b(?:Android|iPhone|iPad|Mobile)\b", user_agent))
