"""One record per routing, by its name in `config.json`. Other code reads the record and never compares names."""

from __future__ import annotations

from morvit_deploy.model.routings.expert_choice import EXPERT_CHOICE, EXPERT_CHOICE_FLAT
from morvit_deploy.model.routings.merged import MERGED
from morvit_deploy.model.routings.none import NONE
from morvit_deploy.model.routings.record import RoutingRecord
from morvit_deploy.model.routings.reducing import ATTENTIVE, PREDICTED
from morvit_deploy.model.routings.token_choice import TOKEN_CHOICE

ROUTINGS: dict[str, RoutingRecord] = {
    record.name: record
    for record in (EXPERT_CHOICE, EXPERT_CHOICE_FLAT, TOKEN_CHOICE, NONE, ATTENTIVE, PREDICTED, MERGED)
}
