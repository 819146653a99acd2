"""The forms of a static graph that Core ML is offered, for the tests of all of them."""

from __future__ import annotations

from morvit_deploy.graph.style.options import LAYOUTS, SELECTS

__all__ = ["FORMS", "LAYOUTS", "SELECTS"]
FORMS = [(layout, select) for layout in LAYOUTS for select in SELECTS]
