"""The forms of a static graph that Core ML is offered, for the tests of all of them."""

from __future__ import annotations

from typing import get_args

from morvit_deploy.coreml import Layout, Select

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SELECTS: tuple[Select, ...] = get_args(Select)
FORMS = [(layout, select) for layout in LAYOUTS for select in SELECTS]
