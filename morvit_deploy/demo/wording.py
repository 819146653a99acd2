"""What the demo says about the scenes. No torch."""

from __future__ import annotations

from morvit_deploy.demo.gain import DOES_NOT, PAYS, Gain
from morvit_deploy.report import cost_in, numbered, share, three_digits
from morvit_deploy.timing.result import Ratio


def headline(gain: Gain) -> str:
    """The outcome in a few words."""
    if not gain.adaptive.as_accurate_as(gain.dense):
        return "adaptive routing is less accurate than every token in every step"
    is_dense = gain.rival is gain.dense
    rival = "every token in every step" if is_dense else "the cheapest top-k of the same accuracy"
    if gain.outcome == PAYS:
        return f"{gain.factor:.2f}× fewer MACs than {rival}"
    if gain.outcome == DOES_NOT:
        return f"does not pay: {1 / gain.factor:.2f}× the MACs of {rival}"
    if gain.peer is not gain.rival:
        least = (
            "every token in every step"
            if gain.peer is gain.dense
            else "the cheapest top-k whose top-1 is no lower"
        )
        return f"{gain.peer_factor:.2f}× fewer MACs than {least}"
    return f"{len(gain.objects)} scenes do not show whether adaptive routing pays"


def gain_sentences(gain: Gain) -> str:
    """What scenes cost by number of digits, and what that saves."""
    return f"{_by_objects(gain)} {_verdict(gain)}"


def _by_objects(gain: Gain) -> str:
    fewest, most = int(gain.objects.min()), int(gain.objects.max())
    if fewest == most:
        return f"Adaptive routing takes {cost_in(gain.adaptive.mean_macs, 'MACs')} for a scene."
    low, high = (cost_in(gain.macs_of(gain.adaptive, number), "MACs") for number in (fewest, most))
    few = numbered(fewest, "digit")
    return f"Adaptive routing takes {low} for a scene of {few} and {high} for one of {most}."


def _verdict(gain: Gain) -> str:
    adaptive, rival, images = gain.adaptive, gain.rival, len(gain.objects)
    if not adaptive.as_accurate_as(gain.dense):
        return (
            f"Adaptive routing does not pay here: top-1 is {share(adaptive.top1)} on these {images} scenes, with "
            f"every token in every step {share(gain.dense.top1)}."
        )
    mean, theirs = (cost_in(way.mean_macs, "MACs") for way in (adaptive, rival))
    against = f"{rival.name} ({theirs}, top-1 {share(rival.top1)})"
    own = f"it takes {mean} on average, top-1 {share(adaptive.top1)}"
    if gain.outcome == PAYS:
        return (
            f"On these {images} scenes {own}: {gain.factor:.2f}× fewer MACs than the cheapest fixed schedule of the "
            f"same accuracy, {against}."
        )
    if gain.outcome == DOES_NOT:
        return f"Adaptive routing does not pay here: {own}; {against} costs less and is as accurate."
    peer = gain.peer
    if peer is rival:
        return (
            f"{images} scenes do not show whether adaptive routing pays: {own}, and the cheapest fixed schedule of "
            f"the same accuracy about as much: {against}."
        )
    return (
        f"On these {images} scenes {own}. The cheapest fixed schedule whose top-1 is no lower takes "
        f"{gain.peer_factor:.2f}× as many ({peer.name}). They are too few to show {against} to be less accurate; "
        "`benchmarks/scene_budgets.py` compares 5,000."
    )


def speed_sentence(ratio: Ratio, ours_ms: float, theirs_ms: float, *, busy: bool) -> str:
    """What the clock shows: the ratio of adaptive routing to its rival, block by block."""
    least, most = min(ratio.per_block), max(ratio.per_block)
    times = f"{three_digits(ours_ms)} ms an image against {three_digits(theirs_ms)}"
    seen = f"{times} ({ratio.median:.2f}× as fast, {least:.2f}–{most:.2f} over the blocks)"
    if busy:
        return f"Others used this machine, so its clock decides nothing: {seen}; run `bench` when it is idle."
    if least > 1:
        return f"On this machine it is faster, too: {seen}."
    if most < 1:
        return f"On this machine it is slower: {seen}."
    return f"On this machine the blocks do not agree on which is faster: {seen}."
