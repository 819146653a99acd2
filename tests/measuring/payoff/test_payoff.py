"""The payoff: outcomes of made-up samples, which forms are exported, a small comparison. Nothing is timed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from measurements import measured
from tiny_models import make_config, random_model

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    ParityError,
    PlanError,
    TargetError,
)
from morvit_deploy.exporters import api
from morvit_deploy.measuring.payoff.forms import (
    ADAPTIVE,
    DENSE,
    TOPK,
    Form,
    export_forms,
    forms_of,
    is_form,
    left_out,
)
from morvit_deploy.measuring.payoff.result import DOES_NOT, PAYS, UNDECIDED, Contender, Match, Payoff
from morvit_deploy.measuring.payoff.rounds import SYNTHETIC, checked_batches, payoff
from morvit_deploy.measuring.payoff.views import payoff_report
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.plan import plan_problems
from morvit_deploy.timing.arithmetic import OVERFLOWED
from morvit_deploy.timing.loop import MIN_RUNS, Stages
from morvit_deploy.timing.samples import Block

QUICK: dict[str, Any] = {"threads": 1, "runs": MIN_RUNS, "blocks": 2, "warmup": 1}
PLAN = threshold_ladder()


def match(batch: int = 1, **forms: tuple[float, float]) -> Match:
    """Milliseconds of a run in two blocks of each form."""
    kinds = {
        "graph": Form(ADAPTIVE, PLAN, "graph"),
        "host": Form(ADAPTIVE, PLAN, "host"),
        "topk": Form(TOPK, PLAN),
        "dense": Form(DENSE, PLAN),
    }
    return Match(
        batch,
        tuple(Contender(kinds[name], measured(*((ms,) for ms in both), batch=batch, bundle=name))
              for name, both in forms.items()),
    )  # fmt: skip


class TestOutcome:
    @pytest.mark.parametrize(
        ("topk", "outcome"), [((3.0, 4.0), PAYS), ((1.0, 1.5), DOES_NOT), ((3.0, 1.5), UNDECIDED)], ids=str
    )
    def test_every_block_must_agree(self, topk: tuple[float, float], outcome: str) -> None:
        found = match(graph=(2.0, 2.0), host=(5.0, 5.0), topk=topk, dense=(8.0, 8.0))
        assert found.outcome == outcome

    def test_slower_than_one_of_two_does_not_pay(self) -> None:
        assert match(graph=(2.0, 2.0), topk=(3.0, 3.0), dense=(1.0, 1.0)).outcome == DOES_NOT

    def test_without_top_k_dense_is_all_there_is_to_beat(self) -> None:
        found = match(graph=(2.0, 2.0), host=(1.0, 1.0), dense=(1.5, 1.5))
        assert (found.outcome, list(found.ratios)) == (PAYS, [DENSE])

    def test_the_faster_adaptive_form_is_judged(self) -> None:
        found = match(8, graph=(4.0, 4.0), host=(2.0, 2.0), topk=(3.0, 4.0), dense=(8.0, 8.0))
        assert found.best.form.dispatch == "host"
        assert found.ratios[TOPK].per_block == (1.5, 2.0)
        assert found.sentence == (
            "adaptivity pays: adaptive (host) is 1.75× (1.50–2.00) as fast as top-k and 4.00× (4.00–4.00) as fast "
            "as dense"
        )

    def test_a_stream_is_judged_by_its_mean(self) -> None:
        blocks = (
            Block(
                (1.0, 1.0, 7.0), bucket=(("b0",), ("b0",), ("full",)), overflow=((False,),) * 2 + ((True,),)
            ),
        )
        one = Contender(Form(ADAPTIVE, PLAN, "graph"), replace(measured(), blocks=blocks))
        assert one.block_ms == [3.0]
        assert one.mix == {"b0": pytest.approx(2 / 3), OVERFLOWED: pytest.approx(1 / 3)}
        assert one.as_dict()["mix"]["overflow"] == pytest.approx(1 / 3)

    def test_times_are_per_image(self) -> None:
        assert match(4, graph=(8.0, 8.0), dense=(4.0, 4.0)).contenders[0].median_ms == 2.0


class TestForms:
    def test_expert_choice_has_all(self) -> None:
        forms = forms_of(PLAN, EXPERT)
        assert [form.name for form in forms] == ["adaptive (graph)", "adaptive (host)", TOPK, DENSE]
        assert forms[2].plan.buckets[0].capacity == EXPERT.capacity
        assert forms[3].plan.buckets[0].capacity == (EXPERT.num_patches,) * EXPERT.num_steps
        assert not any(plan_problems(form.plan, EXPERT) for form in forms)
        assert left_out(EXPERT) == []

    def test_a_checkpoint_with_thresholds_is_compared_with_top_k_at_its_mean_counts(self) -> None:
        config = make_config(thresholds=[0.0, 0.0, 0.0], capacity=[8, 5, 2])
        forms = forms_of(PLAN, config)
        assert [form.name for form in forms] == ["adaptive (graph)", "adaptive (host)", TOPK, DENSE]
        assert (forms[2].plan.mode, forms[2].plan.buckets[0].capacity) == ("topk", (8, 5, 2))
        assert not any(plan_problems(form.plan, config) for form in forms)

    def test_top_k_at_a_multiple_of_its_capacities(self) -> None:
        config = make_config(thresholds=[0.0, 0.0, 0.0], capacity=[8, 5, 2])
        topk = forms_of(PLAN, config, topk_scale=1.5)[2]
        assert (topk.name, topk.plan.buckets[0].capacity) == ("top-k (1.5×)", (12, 8, 3))
        assert not plan_problems(topk.plan, config)

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_multiple_that_is_none(self, scale: float) -> None:
        with pytest.raises(ConfigError, match=r"topk_scale: got .*, expected a positive factor"):
            forms_of(PLAN, EXPERT, scale)

    def test_a_multiple_of_no_capacities(self) -> None:
        with pytest.raises(ConfigError, match="'token_choice' has no capacities to multiply"):
            forms_of(depth_ladder(), TOKEN, 1.5)

    def test_token_choice_has_no_top_k(self) -> None:
        forms = forms_of(depth_ladder(), TOKEN)
        assert [form.kind for form in forms] == [ADAPTIVE, ADAPTIVE, DENSE]
        assert [bucket.name for bucket in forms[-1].plan.buckets] == ["full"]
        assert left_out(TOKEN) == ["top-k: routing 'token_choice' has no schedule of its own"]

    def test_the_bundle_itself_is_taken_where_it_is_the_form(self, graph: Path) -> None:
        manifest = open_manifest(graph)
        adaptive, host, topk, _ = forms_of(manifest.plan, manifest.config)
        assert is_form(manifest, adaptive, 1)
        assert not is_form(manifest, adaptive, "dynamic")
        assert not is_form(manifest, host, 1)
        assert not is_form(manifest, topk, 1)

    def test_further_outputs_are_no_fair_form(self, graph: Path) -> None:
        manifest = open_manifest(graph)
        with_depth = manifest.model_copy(
            update={"outputs": (*manifest.outputs, manifest.outputs[0].model_copy(update={"name": "depth"}))}
        )
        assert not is_form(with_depth, forms_of(manifest.plan, manifest.config)[0], 1)

    def test_an_export_that_fails_says_which(
        self, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*args: Any, **options: Any) -> None:
            raise ParityError("no bundle was made")

        monkeypatch.setattr(api, "export", fails)
        part, manifest = Stages().part, open_manifest(graph)
        forms = forms_of(manifest.plan, manifest.config)
        with pytest.raises(ParityError, match=r"exporting adaptive \(host\) for batch 1: no bundle"):
            export_forms(forms, graph, manifest, graph.parent / "checkpoint", [1], tmp_path, part)


@pytest.fixture(scope="module")
def graph(exported: Callable[..., Path]) -> Path:
    """Self-dispatching, one image a run."""
    return exported(EXPERT, plan=threshold_ladder())


@pytest.fixture(scope="module")
def host(exported: Callable[..., Path]) -> Path:
    """A stem and trunks of the token_choice model, of dynamic batch."""
    return exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host")


@pytest.fixture(scope="module")
def held(host: Path, image_files: list[Path]) -> Payoff:
    """token_choice, batches of two and three."""
    folder = image_files[0].parent
    return payoff(host, host.parent / "checkpoint", batches=(3, 2, 3), images=folder, **QUICK)


class TestPayoff:
    def test_it_shows_itself(self, held: Payoff) -> None:
        assert repr(held).startswith(f"Payoff({held.bundle!r}, batch 2 ")
        assert held._repr_html_() == payoff_report(held).notebook()

    def test_every_form_runs_at_every_batch(self, held: Payoff) -> None:
        assert [match.batch for match in held.matches] == [2, 3]
        for found in held.matches:
            assert [one.form.name for one in found.contenders] == [
                "adaptive (graph)",
                "adaptive (host)",
                DENSE,
            ]
            assert {one.measured.batch for one in found.contenders} == {found.batch}
            assert {len(one.measured.blocks) for one in found.contenders} == {QUICK["blocks"]}
            assert len({one.measured.inputs_digest for one in found.contenders}) == 1

    def test_a_larger_batch_takes_as_many_images(self, held: Payoff) -> None:
        dense = [found.contenders[-1].measured.blocks[0] for found in held.matches]
        assert [len(block.ms) for block in dense] == [5, 4]  # of two and of three images

    def test_adaptive_forms_pass_over_all_pictures(self, held: Payoff) -> None:
        for found in held.matches:
            for one in found.contenders[:2]:
                assert sum(one.mix.values()) == pytest.approx(1)  # type: ignore[union-attr]  # they choose buckets
                (images,) = {len(block.kinds) for block in one.measured.blocks}
                assert images % 6 == 0  # there are six pictures

    def test_forms_of_one_plan_answer_alike_or_with_the_neediest_bucket(self, held: Payoff) -> None:
        order = ["b0", "full"]
        graph, host = (one.measured.blocks[0] for one in held.matches[0].contenders[:2])
        for together, apart in zip(graph.bucket, host.bucket, strict=True):
            assert set(together) == {max(apart, key=order.index)}

    def test_json(self, held: Payoff) -> None:
        data = json.loads(json.dumps(held.as_dict(), allow_nan=False))
        verdict = data["verdict"]
        assert verdict["left_out"] == left_out(TOKEN)
        assert [found["batch"] for found in verdict["batches"]] == [2, 3]
        for found in verdict["batches"]:
            assert found["outcome"] in (PAYS, DOES_NOT, UNDECIDED)
            assert set(found["ratios"]) == {DENSE}
            for one in found["contenders"]:
                assert len(one["measured"]["blocks"]) == QUICK["blocks"]
                assert (one["mix"] is None) == (one["form"] == DENSE)
        assert data["conditions"]["threads"] == 1

    def test_pictures_of_a_folder_are_no_synthetic_ones(self, held: Payoff) -> None:
        assert SYNTHETIC not in held.warnings

    def test_tables(self, held: Payoff) -> None:
        titles = [part.title for part in payoff_report(held).parts]
        assert titles[1:] == ["Batch 2", "Batch 3", "Conditions"]
        assert titles[0].startswith("Verdict on the plan of ")
        for part in payoff_report(held).parts:
            assert {len(row) for row in part.rows} == {len(part.columns)}  # type: ignore[union-attr]  # no pictures


class TestRefusals:
    def test_a_bundle_of_one_bucket(self, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
        with pytest.raises(PlanError, match=r"has one bucket(?s:.)*export with --plan"):
            payoff(tiny_bundle, tiny_checkpoint, **QUICK)

    def test_a_routing_that_can_have_no_other(self, exported: Callable[..., Path]) -> None:
        bundle = exported(make_config(routing="expert_choice_flat"), batch=4, with_depth=True)
        with pytest.raises(
            PlanError, match=r"has one bucket(?s:.)*'expert_choice_flat' there can be no other"
        ):
            payoff(bundle, bundle.parent / "checkpoint", **QUICK)

    def test_another_checkpoint(self, graph: Path, tmp_path: Path) -> None:
        save_checkpoint(random_model(make_config(), seed=9), tmp_path / "other")
        with pytest.raises(BundleError, match="made from another checkpoint"):
            payoff(graph, tmp_path / "other", **QUICK)

    def test_a_checkpoint_without_weights(self, graph: Path, checkpoint: Path) -> None:
        (checkpoint / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="missing"):
            payoff(graph, checkpoint, **QUICK)

    @pytest.mark.parametrize("batches", [(), (0,), (8, 33), (-1, 1)], ids=str)
    def test_batches_that_are_not_run_at_once(self, batches: tuple[int, ...]) -> None:
        with pytest.raises(TargetError, match="from 1 to 32"):
            checked_batches(batches)
