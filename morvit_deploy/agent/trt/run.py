"""Runs a TensorRT bundle's engines on the device's GPU with numpy, TensorRT's Python module and the driver."""

from __future__ import annotations

import contextlib
from pathlib import Path

from morvit_deploy.agent.core.faults import AgentError, Lacking, Refused
from morvit_deploy.agent.core.recipe import Recipe
from morvit_deploy.agent.core.running import Chained, HostDispatch, Runner
from morvit_deploy.agent.trt.build import MODULES, PRODUCT, BuildError, load_tensorrt, this_device
from morvit_deploy.agent.trt.driver import Cuda
from morvit_deploy.agent.trt.engine import TrtEngine
from morvit_deploy.agent.trt.engines import EngineError, has_host_code, read_engine, read_engines, why_refused

BUILD, ALONE = (
    "build",
    "alone",
)  # folders of a bundle on the device: its engines, and those of one bucket each

with contextlib.suppress(BuildError):  # importing it is no part of loading; a record may name the other one
    load_tensorrt(None)


def open_recipe(folder: Path, recipe: Recipe, threads: int, bucket: str | None) -> Runner:
    """The runner of a bundle whose files have been checked and whose engines are built; with `bucket`, of it alone.

    Each bucket of a self-dispatching bundle has an engine of its own in ALONE. Where shapes are fixed and nothing is
    conditional, a run is one launch of a CUDA graph.
    """
    alone = bucket is not None and recipe.dispatch != "host"
    engines = Engines(folder / (ALONE if alone else BUILD), graphs=alone or recipe.dispatch != "graph")
    if alone:
        return engines.open(str(bucket))
    if recipe.dispatch != "host":
        return engines.open("model")
    if bucket is not None:
        return Chained(engines.open("stem"), engines.open(bucket), recipe.carried)
    return HostDispatch(recipe.buckets, recipe.batch, recipe.carried, engines.open("stem"), engines.open)


class Engines:
    """The engines of a folder. Refused for those of another version, flavor or GPU, Lacking without a GPU."""

    def __init__(self, folder: Path, *, graphs: bool) -> None:
        self._folder, self._graphs = folder, graphs
        device = this_device()
        if device is None:
            raise Lacking("the driver on the device reports no GPU, so engines cannot run there")
        try:
            self._record = read_engines(folder)
            flavor = self._record["flavor"]
            if flavor not in MODULES:
                raise Refused(f"the engines are for {flavor!r}, expected one of {', '.join(MODULES)}")
            self._trt = load_tensorrt(flavor)[1]
            version = str(self._trt.__version__)
            refused = why_refused(self._record, flavor, version, device["compute_capability"])
        except EngineError as error:
            raise Refused(str(error)) from None
        except BuildError as error:
            raise Lacking(str(error)) from None
        if refused is not None:
            raise Refused(refused)
        self._runtime, self._cuda = f"{PRODUCT[flavor]} {version} on {device['name']}", Cuda()

    def open(self, name: str) -> Runner:
        """The engine of a part."""
        try:
            content = read_engine(self._folder, self._record, name)
        except EngineError as error:
            raise AgentError(str(error)) from None
        host_code = has_host_code(self._record, name)
        engine = TrtEngine(self._trt, self._cuda, content, name, graph=self._graphs, host_code=host_code)
        engine.runtime = self._runtime
        return engine
