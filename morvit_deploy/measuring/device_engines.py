"""Engines of TensorRT bundles on a device: sent where they were built there, and built there otherwise. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from morvit_deploy.agent.trt_build import MODULES
from morvit_deploy.exporters.building import told
from morvit_deploy.exporters.building_there import HEAD, build_there, fitting_engines
from morvit_deploy.measuring.inputs import Subject
from morvit_deploy.remote.session import Session
from morvit_deploy.remote.shipment import Shipment
from morvit_deploy.trt import ALONE, BUILD


class DeviceEngines:
    """`settle`, `prepare` and `hear` of a Session for the bundles, by place, that are for TensorRT; perhaps none.

    The recipe's flavor is used where it is installed, else the other one. `records` are what the device has then.
    """

    def __init__(self, subjects: Mapping[str, Subject], tell: Callable[[str], None]) -> None:
        self._subjects = {place: one for place, one in subjects.items() if one.manifest.target == "trt"}
        self._tell = tell
        self._flavors: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}

    def settle(self, session: Session) -> Shipment:
        """Ask what builds there, and add the engines that it would not build again."""
        more: dict[str, Path | bytes] = {}
        for place, subject in self._subjects.items():
            assert subject.manifest.trt is not None, "the manifest has been checked"
            asked = {"do": "check_builder", "flavor": subject.manifest.trt.flavor, "strict": False}
            head = session.ask(asked, "looking for TensorRT")
            self._flavors[place] = head["flavor"]
            session.versions |= {MODULES[head["flavor"]]: head["tensorrt"]}
            more |= fitting_engines(subject.bundle, head, f"{place}/{BUILD}")
        return more

    def prepare(self, session: Session) -> None:
        """Build what is missing: the bundle's engines, and one for each bucket of those that choose inside."""
        for place, subject in self._subjects.items():
            self._tell(f"building the engines of {subject.bundle} on {session.host.address}")
            options = ["--flavor", self._flavors[place]]
            self.records[place] = build_there(session, f"{place}/{BUILD}", options)
            if subject.manifest.plan.adaptive and subject.manifest.dispatch != "host":
                self._tell(f"building an engine for each bucket of {subject.bundle}")
                build_there(session, f"{place}/{ALONE}", options, shared=f"{place}/{BUILD}")

    def hear(self, event: dict[str, Any]) -> None:
        """Progress of the builder."""
        told(event, self._tell)

    def facts(self) -> dict[str, Any]:
        """By bundle: flavor, version and GPU, and of each engine its bytes and seconds of building."""
        return {
            str(self._subjects[place].bundle): {
                **{name: record[name] for name in HEAD},
                "engines": [
                    {key: one[key] for key in ("name", "bytes", "seconds")} for one in record["engines"]
                ],
            }
            for place, record in self.records.items()
        }
