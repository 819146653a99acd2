"""Static graphs to Core ML: one package, of one function or of a stem and a function for each bucket."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.base import Exporter, Tell, Written
from morvit_deploy.exporters.coreml import proof as coreml_proof
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE, SEVERAL_FUNCTIONS, SYSTEMS
from morvit_deploy.exporters.coreml.contract.options import CoremlOptions, coreml_options
from morvit_deploy.exporters.coreml.mlpackage.card import Subject, model_card
from morvit_deploy.exporters.coreml.mlpackage.classify import classify
from morvit_deploy.exporters.coreml.mlpackage.compress import compress
from morvit_deploy.exporters.coreml.mlpackage.convert import Wanted, convert
from morvit_deploy.exporters.coreml.mlpackage.save import complete, save_package
from morvit_deploy.exporters.coreml.sdk.load import coremltools
from morvit_deploy.exporters.functions.tracing import IMAGE, Ports, functions, probe_names
from morvit_deploy.exporters.kit.accompany import accompany, lacks
from morvit_deploy.exporters.request import Request
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.answers.heads import PLAIN
from morvit_deploy.model.checkpoint import fingerprint
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering
from morvit_deploy.model.reference import MoRViT


class CoremlExporter(Exporter):
    """Target `coreml`: an ML program whose functions share weights, and a Swift package that runs it."""

    remedies = "--precision fp32, or --weights with more bits, may help"

    def check(self, request: Request, model: MoRViT, plan: Plan) -> None:
        options = CoremlOptions.of(request)
        coremltools()
        if request.input == "uint8" and model.config.in_channels not in (1, 3):
            raise ConfigError(
                f"input: got 'uint8' and images of {model.config.in_channels} channels; Core ML's pictures are gray "
                "or RGB: export with input 'float' (--input float)"
            )
        if plan.adaptive and options.ios < SEVERAL_FUNCTIONS:
            raise ConfigError(
                f"ios: got {options.ios}, and a plan with {len(plan.buckets)} buckets; a package of several "
                f"functions needs {SYSTEMS[SEVERAL_FUNCTIONS]}: export with ios {SEVERAL_FUNCTIONS}, or a plan of "
                "one bucket"
            )
        labels = model.config.labels
        if not _classifies(options, model.config, plan, request.output):
            if options.classifier:
                why = "the plan has several buckets" if plan.adaptive else "the checkpoint has no labels"
                if labels is not None and len(labels) == 1:
                    why = "the only class is always the most probable one"
                if request.output != "logits":
                    why = f"the output is {request.output}"
                if model.config.head_activation == PLAIN:
                    why = "head_activation is none, so there are no probabilities"
                raise ConfigError(f"classifier: {why}, so no function can return a class; leave it out")
            return
        doubled = [name for name, times in Counter(labels or ()).items() if times > 1]
        if doubled:
            raise ConfigError(
                f"labels: {', '.join(map(repr, doubled))} name more than one class each, and Core ML returns "
                "probabilities by label; rename them in config.json, or export with classifier=False "
                "(--no-classifier): logits only, and MoRViTKit names the classes"
            )

    def options(self, source: Request | Manifest, *, with_depth: bool) -> Options:
        form = CoremlOptions.of(source) if isinstance(source, Request) else CoremlForm.of(source)
        return coreml_options(
            source.input, form.layout, form.select, with_depth=with_depth, attention=form.attention
        )

    def restore(self, graphs: dict[str, StaticMoRViT], manifest: Manifest) -> None:
        """Nothing to do: coremltools lowers the weights, and the proof allows for it."""

    def write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        options, config = CoremlOptions.of(request), next(iter(graphs.values())).config
        labels = config.labels if _classifies(options, config, plan, request.output) else None
        head = None if labels is None else config.head_activation
        wanted = Wanted(options.ios, request.precision, request.input == "uint8", head)
        models: dict[str, Any] = {}
        probes: list[str] = []
        ports = Ports(request)
        for function, part, example in functions(graphs, plan):
            tell(f"converting {function}")
            converted = convert(part, example, wanted)
            model = compress(converted, options.weights, next(iter(graphs.values())))
            models[function] = classify(model, labels) if labels else model
            inside = [name for name in converted.probes if name not in part.results]
            probes += probe_names(function, inside)
            ports.add(part, example)
        tell("joining the functions")
        form = CoremlForm(
            ios=options.ios,
            layout=options.layout,
            select=options.select,
            attention=options.attention,
            weights=options.weights,
            classifier=labels is not None,
            functions=tuple(models),
        )
        about = Subject(
            config,
            plan,
            form,
            request.precision,
            request.input,
            fingerprint(request.checkpoint),
            tuple(port.name for port in ports.carried),
        )
        package = folder / PACKAGE
        save_package(models, package)
        complete(package, model_card(about, options.author, options.license))
        return Written(
            files=sorted(
                path.relative_to(folder).as_posix() for path in package.rglob("*") if path.is_file()
            ),
            inputs=(ports.inputs[IMAGE],),
            outputs=ports.results,
            carried=ports.carried,
            probes=tuple(probes),
            lowering=None if request.exact else Lowering(),
            form=form,
            remarks=tuple(filter(None, [lacks(config, request.output)])),
        )

    def accompany(
        self, model: MoRViT, manifest: Manifest, request: Request, folder: Path, tell: Tell
    ) -> list[str]:
        tell("writing the Swift package")
        return accompany(model, manifest, request.pictures.verifying, folder)

    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        return coreml_proof.prove(folder, manifest, graphs).as_dict()


def _classifies(options: CoremlOptions, config: Config, plan: Plan, output: Output) -> bool:
    """Does the package return a class? If it has one function, and several classes that have names."""
    named = config.labels is not None and len(config.labels) > 1 and config.head_activation != PLAIN
    return options.classifier is not False and named and not plan.adaptive and output == "logits"
