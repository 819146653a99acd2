"""Identifies a Jetson: model, module, L4T and JetPack, CUDA, TensorRT, cuDNN. What is unknown is None."""

from __future__ import annotations

import json
import re
from typing import Any

from .system import System

# Jetson Linux (L4T) -> JetPack: developer.nvidia.com/embedded/jetpack-archive and the pages of the releases
JETPACK = {
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.3": "5.1.5",
    "35.6.4": "5.1.6",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
SERIES = {"32": 4, "35": 5, "36": 6, "38": 7, "39": 7}
# part numbers in /proc/device-tree/compatible: Jetson Linux Developer Guide, Quick Start
MODULES = {
    "p3668-0000": "Jetson Xavier NX",
    "p3668-0001": "Jetson Xavier NX",
    "p3701-0000": "Jetson AGX Orin (developer kit)",
    "p3701-0004": "Jetson AGX Orin 32 GB",
    "p3701-0005": "Jetson AGX Orin 64 GB",
    "p3767-0000": "Jetson Orin NX 16 GB",
    "p3767-0001": "Jetson Orin NX 8 GB",
    "p3767-0003": "Jetson Orin Nano 8 GB",
    "p3767-0004": "Jetson Orin Nano 4 GB",
    "p3767-0005": "Jetson Orin Nano 8 GB (developer kit)",
    "p3834-0008": "Jetson AGX Thor (developer kit)",
}
COMPUTE_CAPABILITY = {"tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}  # Xavier, Orin, Thor
_RELEASE = "/etc/nv_tegra_release"
_MODEL = ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model")
_COMPATIBLE = ("/proc/device-tree/compatible", "/sys/firmware/devicetree/base/compatible")


def is_jetson(system: System) -> bool:
    """Is the machine one, by its release file, or by the model in its device tree?"""
    return parse_release(system.read(_RELEASE)) is not None or "jetson" in (_model(system) or "").lower()


def parse_release(text: str | None) -> str | None:
    """`# R36 (release), REVISION: 4.3, GCID: …` -> `36.4.3`."""
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", text or "")
    return f"{found.group(1)}.{found.group(2)}" if found else None


def identity(system: System) -> dict[str, Any]:
    """Model, module, chip and versions, each None when the machine does not report it."""
    compatible = _first(system, _COMPATIBLE) or ""
    chip = next(iter(re.findall(r"tegra\d+", compatible)), None)
    part = next((part for part in re.findall(r"p\d{4}-\d{4}", compatible) if part in MODULES), None)
    l4t = parse_release(system.read(_RELEASE)) or _core_package(system)
    return {
        "model": _model(system),
        "module": MODULES[part] if part else None,
        "part": part,
        "chip": chip,
        "compute_capability": COMPUTE_CAPABILITY.get(chip or ""),
        "l4t": l4t,
        **jetpack(system, l4t),
        "cuda": cuda_version(system),
        **tensorrt_versions(system),
        "cudnn": package_version(system, "libcudnn[0-9]*"),
    }


def jetpack(system: System, l4t: str | None) -> dict[str, Any]:
    """JetPack of an L4T release, from the table or the installed package, and its series."""
    known = JETPACK.get(l4t or "")
    if known is None:
        package = package_version(system, "nvidia-jetpack")
        known = package.split("+")[0] if package else None
    return {"jetpack": known, "jetpack_series": SERIES.get((l4t or "").split(".")[0])}


def tensorrt_versions(system: System) -> dict[str, Any]:
    """`tensorrt`: the version that Python imports, else the library's; `tensorrt_python`: can Python import it?"""
    imported = system.module_version("tensorrt")
    library = package_version(system, "libnvinfer[0-9]*")
    return {"tensorrt": imported or library, "tensorrt_python": imported is not None}


def cuda_version(system: System) -> str | None:
    """From the toolkit's own file, else from the compiler."""
    try:
        return str(json.loads(system.read("/usr/local/cuda/version.json") or "")["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        pass
    found = re.search(r"CUDA Version (\S+)", system.read("/usr/local/cuda/version.txt") or "")
    found = found or re.search(r"release \S+, V(\S+)", system.run("nvcc", "--version") or "")
    return found.group(1) if found else None


def package_version(system: System, pattern: str) -> str | None:
    """Upstream version of the newest installed Debian package that matches: `10.3.0.30-1+cuda12.5` -> `10.3.0.30`."""
    listed = system.run("dpkg-query", "-W", "-f=${Version}\\n", pattern) or ""
    versions = [line.strip() for line in listed.splitlines() if line.strip()]
    newest = max(versions, key=_order, default=None)
    return newest.split("-")[0] if newest else None


def _order(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version.split("-")[0])]


def _core_package(system: System) -> str | None:
    """Minimal images lack the release file; the package is versioned `36.4.7-20250918154033`."""
    found = re.fullmatch(r"\d+(\.\d+)+", package_version(system, "nvidia-l4t-core") or "")
    return found.group(0) if found else None


def _model(system: System) -> str | None:
    return _first(system, _MODEL)


def _first(system: System, names: tuple[str, ...]) -> str | None:
    return next((text for text in map(system.read, names) if text), None)
