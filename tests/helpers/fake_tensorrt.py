"""Classic TensorRT as far as the build recipe touches it, with exactly the names that a version has.

What 10.3 has and 11 has not: NVIDIA's "Removed Python APIs and Replacements" (TensorRT 10.x to 11.x). Both are driven
through the same calls as `tensorrt_rtx`, which the tests run for real.
"""

from __future__ import annotations

import enum
import sys
from types import ModuleType
from typing import Any

import pytest

WEAK = ("FP16", "INT8", "FP8", "BF16", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")
ALWAYS = ("TF32", "REFIT", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "STRIP_PLAN")


class Config:
    """Only what IBuilderConfig has: anything else is an AttributeError."""

    __slots__ = (
        "cache",
        "flags",
        "hardware_compatibility_level",
        "pools",
        "profiles",
        "progress_monitor",
        "trt",
    )

    def __init__(self, trt: Any) -> None:
        self.trt, self.flags, self.pools, self.profiles = trt, {trt.BuilderFlag.TF32}, {}, []
        self.progress_monitor: Any = None
        self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
        self.cache: bytes | None = None

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content if self.trt.caches and not content.startswith(b"torn") else None

    def set_timing_cache(self, cache: bytes | None, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if cache is None:
            raise TypeError("set_timing_cache(): incompatible function arguments")
        if b"other" in cache:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        written = (self.cache or b"") + b"timed" if self.trt.caches else None
        return type("Cache", (), {"serialize": lambda _: written})()


class Builder:
    """Builds 'engines' whose bytes say how they were made."""

    def __init__(self, trt: Any, log: Any) -> None:
        self.trt, self.log = trt, log
        if trt.no_gpu:
            log.log(trt.ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> Any:
        self.network_flags = flags
        shape = self.trt.shape
        tensor = type("Tensor", (), {"name": "image", "shape": shape})()
        return type("Network", (), {"num_inputs": 1, "get_input": lambda _, number: tensor})()

    def create_builder_config(self) -> Config:
        self.config = Config(self.trt)
        return self.config

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return type(
            "Profile",
            (),
            {"shapes": shapes, "set_shape": lambda _, name, *sizes: shapes.update({name: sizes})},
        )()

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        self.trt.built.append(self)
        if self.trt.refuses:
            self.log.log(self.trt.ILogger.WARNING, "skipping a tactic")
            self.log.log(self.trt.ILogger.ERROR, "Error Code 10: could not find any implementation for node")
            return None
        monitor = config.progress_monitor
        monitor.phase_start("Building Engine", None, 2)
        for step in range(2):
            monitor.phase_start("Tactics", "Building Engine", 4)
            for tactic in range(4):
                if not monitor.step_complete("Tactics", tactic):
                    return None
            monitor.phase_finish("Tactics")
            monitor.step_complete("Building Engine", step)
        monitor.phase_finish("Building Engine")
        return f"engine {len(self.trt.built)}".encode()


def fake_tensorrt(monkeypatch: pytest.MonkeyPatch, version: str) -> Any:
    """Put a module `tensorrt` of this version in place of any; returns it, for what it was asked."""
    major = int(version.split(".")[0])
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    trt.shape, trt.refuses, trt.no_gpu, trt.built, trt.broken = (1, 32, 32, 3), False, False, [], False
    trt.caches = True
    creation = ("STRONGLY_TYPED",) if major >= 11 else ("EXPLICIT_BATCH", "STRONGLY_TYPED")
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", creation, start=0)
    flags = ALWAYS if major >= 11 else (*WEAK, *ALWAYS)
    trt.BuilderFlag = enum.IntEnum("BuilderFlag", flags, start=0)
    trt.MemoryPoolType = enum.IntEnum("MemoryPoolType", ("WORKSPACE", "TACTIC_DRAM"), start=0)
    trt.HardwareCompatibilityLevel = enum.IntEnum(
        "HardwareCompatibilityLevel", ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"), start=0
    )
    severity = enum.IntEnum("Severity", ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"), start=0)
    trt.ILogger = type("ILogger", (), dict(severity.__members__))
    trt.IProgressMonitor = type("IProgressMonitor", (), {})
    trt.Builder = lambda log: Builder(trt, log)

    class OnnxParser:
        def __init__(self, network: Any, log: Any) -> None:
            self.num_errors = int(trt.broken)

        def parse_from_file(self, path: str) -> bool:
            return not trt.broken

        def get_error(self, number: int) -> str:
            return "In node 3 (importFallbackPluginImporter): UNSUPPORTED_NODE: Assertion failed: creator"

    trt.OnnxParser = OnnxParser
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt
