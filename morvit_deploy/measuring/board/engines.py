"""Provides engines of TensorRT bundles on a device: sends those that it built before, builds the others. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from morvit_deploy.agent.trt.build import MODULES, RECORD
from morvit_deploy.exporters.trt.build import may_change, report_event
from morvit_deploy.exporters.trt.build_remote import HEAD, build_there, fitting_engines
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import ALONE, BUILD
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.remote.session import Session
from morvit_deploy.remote.shipment import Shipment


class DeviceEngines:
    """`settle`, `prepare` and `hear` of a Session for the TensorRT bundles among `subjects`, by place.

    The recipe's flavor is used where it is installed, else the other one. Built engines are copied to `scratch`, so
    that the measurement continues with them after a drop: another build may choose other kernels. `records` are those
    of the device.
    """

    def __init__(self, subjects: Mapping[str, Subject], scratch: Path, tell: Callable[[str], None]) -> None:
        self._subjects = {
            place: one for place, one in subjects.items() if isinstance(one.manifest.target_form, TrtForm)
        }
        self._scratch, self._tell = scratch, tell
        self._flavors: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}

    def settle(self, session: Session) -> Shipment:
        """Find the device's TensorRT; returns the engines that it need not build again."""
        more: dict[str, Path | bytes] = {}
        for place, subject in self._subjects.items():
            strict = not may_change(subject.manifest)
            request = {"do": "check_builder", "flavor": TrtForm.of(subject.manifest).flavor, "strict": strict}
            head = session.ask(request, "looking for TensorRT")
            self._flavors[place] = head["flavor"]
            session.versions |= {MODULES[head["flavor"]]: head["tensorrt"]}
            more |= fitting_engines(subject.bundle / BUILD, head, f"{place}/{BUILD}")
            for folder in (f"{place}/{BUILD}", f"{place}/{ALONE}"):
                more |= fitting_engines(self._scratch / folder, head, folder)
        return more

    def prepare(self, session: Session) -> None:
        """Build what is missing: the bundle's engines, and for self-dispatching bundles one for each bucket."""
        for place, subject in self._subjects.items():
            self._tell(f"building the engines of {subject.bundle} on {session.host.address}")
            self.records[place] = self._build(session, place, BUILD)
            if subject.manifest.plan.adaptive and subject.manifest.dispatch != "host":
                self._tell(f"building an engine for each bucket of {subject.bundle}")
                self._build(session, place, ALONE)

    def _build(self, session: Session, place: str, part: str) -> dict[str, Any]:
        folder, kept = f"{place}/{part}", self._scratch / place / part
        options = ["--flavor", self._flavors[place]]
        record = build_there(session, folder, options, shared=f"{place}/{BUILD}")
        if not (kept / RECORD).is_file():
            kept.mkdir(parents=True, exist_ok=True)
            session.fetch(folder, [*(engine["engine"] for engine in record["engines"]), RECORD], kept)
        return record

    def hear(self, event: dict[str, Any]) -> None:
        """Report the builder's progress."""
        report_event(event, self._tell)

    def built(self) -> dict[str, Any]:
        """By bundle: flavor, version, GPU, and each engine's size and build time."""
        return {
            str(self._subjects[place].bundle): {
                **{name: record[name] for name in HEAD},
                "engines": [
                    {key: one[key] for key in ("name", "bytes", "seconds")} for one in record["engines"]
                ],
            }
            for place, record in self.records.items()
        }
