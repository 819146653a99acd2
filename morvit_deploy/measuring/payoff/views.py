"""Tables of the payoff. No torch."""

from __future__ import annotations

from morvit_deploy.bars import bars
from morvit_deploy.measuring.payoff.forms import DENSE, TOPK
from morvit_deploy.measuring.payoff.result import RULE, Contender, Match, Payoff, in_words
from morvit_deploy.measuring.views import conditions_table
from morvit_deploy.report import Picture, Report, Table, share, spread, three_digits


def payoff_report(payoff: Payoff) -> Report:
    """The payoff, each batch size, and the conditions."""
    tables = [
        payoff_table(payoff),
        *map(match_table, payoff.matches),
        conditions_table(payoff.device, payoff.conditions, payoff.measured),
    ]
    return Report("Verdict", list(tables), _result(payoff), _picture(payoff.matches[0]))


def _picture(match: Match) -> Picture | None:
    rows = [(one.form.name, one.median_ms, f"{three_digits(one.median_ms)} ms") for one in match.contenders]
    return bars(f"Time of an image, batch {match.batch}", rows)


def _result(payoff: Payoff) -> str:
    return " ".join(f"At batch {match.batch}, {match.sentence}." for match in payoff.matches)


def payoff_table(payoff: Payoff) -> Table:
    """A sentence for each batch size."""
    rows = [(str(match.batch), match.sentence) for match in payoff.matches]
    caption = "; ".join([RULE, *payoff.left_out])
    return Table(f"Verdict on the plan of {payoff.bundle}", ("batch", "verdict"), rows, (0,), caption)


def match_table(match: Match) -> Table:
    """Every form at one batch size."""
    rows = [_row(match, one) for one in match.contenders]
    columns = ("form", "ms an image", "over the blocks", "images/s", f"× {TOPK}", f"× {DENSE}")
    mixes = [f"{one.form.name} ran {_mix(one)}" for one in match.contenders if one.mix]
    blocks = len(match.best.measured.blocks)
    caption = "; ".join([f"means of {blocks} blocks, ratios block by block, and their ranges", *mixes])
    return Table(f"Batch {match.batch}", columns, rows, numeric=(1, 2, 3, 4, 5), caption=caption)


def _row(match: Match, one: Contender) -> tuple[str, ...]:
    ratios = [match.against(one, kind) for kind in (TOPK, DENSE)]
    return (
        one.form.name,
        three_digits(one.median_ms),
        spread(one.block_ms),
        three_digits(one.measured.images_per_s),
        *("" if ratio is None else in_words(ratio) for ratio in ratios),
    )


def _mix(one: Contender) -> str:
    return ", ".join(f"{kind} {share(part)}" for kind, part in (one.mix or {}).items())
