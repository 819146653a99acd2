"""A target of another package, which no device measures; its files are never opened."""

from __future__ import annotations

from morvit_deploy.exporters.targets import Needs, Target

OTHER = Target("other", "nothing", Needs(export=()), exporter="nowhere:Exporter", runner="nowhere:open_other")
