"""MoRViTKit: what is generated parses, agrees with the manifest and passes its own tests where Swift is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import answered_by
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from places import ROOT
from swift import coreai_manifest, coreml_manifest, declared_names, made_up_golden, renamed, syntax_problems
from tiny_models import make_config

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.functions.devices import oldest_macos
from morvit_deploy.exporters.kit.vectors import geometry_case
from morvit_deploy.exporters.kit.write import (
    CORE_TESTS,
    DESCRIPTION,
    GOLDEN,
    MOST_BYTES,
    TEMPLATE,
    VECTORS,
    app_form,
    choose_golden,
    write_description,
    write_swift_package,
)

LINUX = Path(__file__).parent / "linux"  # stands in for Apple's frameworks
DENSE = make_config(routing="none", labels=None, preprocess={"resize": None, "interpolation": "bilinear"})
MODELS: dict[str, Callable[[], Manifest]] = {
    "threshold": lambda: coreml_manifest(EXPERT, threshold_ladder()),
    "depth": lambda: coreml_manifest(TOKEN, depth_ladder()),
    "single": lambda: coreml_manifest(make_config(), ios=17),
    "dense, float input": lambda: float_input(coreml_manifest(DENSE)),
    "Core AI": lambda: coreai_manifest(EXPERT, threshold_ladder()),
    "features": lambda: coreml_manifest(make_config(head_activation="none", labels=None), output="features"),
    "tokens": lambda: coreai_manifest(TOKEN, depth_ladder(), output="tokens"),
}
OPTIONAL = {"runtime", "output", "outputShape", "headActivation"}  # nil: Core ML; logits; an array


def float_input(manifest: Manifest) -> Manifest:
    size = manifest.config.image_size
    port = manifest.inputs[0].model_copy(update={"dtype": "float32", "shape": (1, 3, size, size)})
    changed = manifest.model_copy(update={"input": "float", "inputs": (port,)})
    return Manifest.model_validate(changed.model_dump())


@pytest.fixture(params=MODELS, scope="module")
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest]:
    """A package and the manifest it was made of; the description is beside the package, as in a bundle."""
    manifest = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("bundle") / "MoRViTKit"
    golden = made_up_golden(manifest.config, [0, len(manifest.plan.buckets) - 1])
    names = write_swift_package(folder, manifest, golden)
    assert write_description(folder.parent, manifest) == DESCRIPTION
    assert names == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return folder, manifest


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_swift_file_parses(written: tuple[Path, Manifest]) -> None:
    sources = sorted(written[0].rglob("*.swift"))
    assert len(sources) > 15
    assert [problem for source in sources for problem in syntax_problems(source)] == []


def test_the_parser_sees_mistakes(tmp_path: Path) -> None:
    broken = tmp_path / "broken.swift"
    broken.write_text("public struct Guess {\n    let index: = Int\n}\n")
    assert syntax_problems(broken)


def test_the_description_is_the_manifest(written: tuple[Path, Manifest]) -> None:
    folder, manifest = written
    model = read(folder.parent / DESCRIPTION)
    config, plan, form = manifest.config, manifest.plan, app_form(manifest)
    assert model["functions"] == list(form.functions)
    assert model["minimumIOS"] == form.oldest_ios
    assert model.get("runtime", "coreml") == manifest.target
    assert model["carried"] == [port.name.replace(".", "_") for port in manifest.carried]
    assert (model["imageSize"], model["patchSize"]) == (config.image_size, config.patch_size)
    assert model["labels"] == (list(config.labels) if config.labels else None)
    assert model["preprocessing"]["resize"] == config.preprocess.resize
    assert model["preprocessing"]["mean"] == list(config.preprocess.mean)
    assert model["input"] == {"uint8": "image", "float": "normalised"}[manifest.input]
    assert model["dispatch"]["mode"] == plan.mode and model["dispatch"]["lead"] == plan.lead
    for told, bucket in zip(model["dispatch"]["buckets"], plan.buckets, strict=True):
        assert (told["name"], told["capacity"], told["upto"]) == (
            bucket.name,
            list(bucket.capacity),
            bucket.upto,
        )
    assert model["answersDepth"] and model["steps"] == config.num_steps
    assert model["checkpoint"] == manifest.checkpoint.sha256


def test_the_swift_type_has_every_field(written: tuple[Path, Manifest]) -> None:
    """Decoding ignores what it does not know: a field that Swift lacks would be lost unseen."""
    source = (written[0] / "Sources/MoRViTCore/ModelDescription.swift").read_text(encoding="utf-8")
    fields = set(re.findall(r"^    public let (\w+):", source, re.MULTILINE))
    described = set(read(written[0].parent / DESCRIPTION))
    assert fields - OPTIONAL <= described <= fields


def test_the_output_is_described(written: tuple[Path, Manifest]) -> None:
    """An array has a shape and no activation; descriptions of logits say nothing new."""
    folder, manifest = written
    model, config = read(folder.parent / DESCRIPTION), manifest.config
    shape = {"features": [config.embed_dim], "tokens": [config.num_patches, config.embed_dim]}
    readme = (folder / "README.md").read_text(encoding="utf-8")
    if manifest.output == "logits":
        assert model.keys() & OPTIONAL - {"runtime"} == {"headActivation"}
        assert f"| returns | {config.num_classes} classes |" in readme
    else:
        assert (model["output"], model["outputShape"]) == (manifest.output, shape[manifest.output])
        assert "headActivation" not in model
        assert (
            f"| returns | {manifest.output}, {' × '.join(map(str, model['outputShape']))} numbers |" in readme
        )


def test_no_depth_is_said(tmp_path: Path) -> None:
    manifest = coreml_manifest(make_config())
    manifest = manifest.model_copy(update={"outputs": manifest.outputs[:1]})
    write_description(tmp_path, manifest)
    assert read(tmp_path / DESCRIPTION)["answersDepth"] is False


def test_dispatch_cases_are_those_of_the_definition(written: tuple[Path, Manifest]) -> None:
    """Against the plain-Python definition of the tests; both answers of each kind occur."""
    folder, manifest = written
    cases = read(folder / VECTORS)["dispatch"]
    for case in cases:
        bucket, overflow = (
            answered_by(manifest.plan, [case["counts"]]) if manifest.plan.adaptive else ([0], [False])
        )
        assert (case["bucket"], case["overflow"]) == (bucket[0], overflow[0])
    if manifest.plan.adaptive:
        assert {case["bucket"] for case in cases} == set(range(len(manifest.plan.buckets)))
    if manifest.plan.mode == "threshold":
        assert {case["overflow"] for case in cases} == {False, True}


def test_geometry_by_hand() -> None:
    """36 of 48 rows: 81.0 → 81 wide; (81 − 32) / 2 = 24.5, to the even 24; (36 − 32) / 2 = 2."""
    assert geometry_case(EXPERT.preprocess, 32, (108, 48)) == {
        "width": 108,
        "height": 48,
        "resizedWidth": 81,
        "resizedHeight": 36,
        "left": 24,
        "top": 2,
    }


def test_orientations_are_all_different(written: tuple[Path, Manifest]) -> None:
    cases = read(written[0] / VECTORS)["orientation"]
    assert len({json.dumps(case["upright"]) for case in cases}) == 8


def test_golden_files_are_what_was_given(written: tuple[Path, Manifest]) -> None:
    folder, manifest = written
    golden = made_up_golden(manifest.config, [0, len(manifest.plan.buckets) - 1])
    facts = read(folder / GOLDEN / "golden.json")
    shape = (facts["count"], facts["height"], facts["width"], 3)
    pixels = np.fromfile(folder / GOLDEN / "golden-pixels.bin", dtype=np.uint8).reshape(shape)
    logits = np.fromfile(folder / GOLDEN / "golden-logits.bin", dtype="<f4").reshape(facts["count"], -1)
    assert np.array_equal(pixels, golden.pixels) and np.array_equal(logits, golden.answers)
    assert facts["buckets"] == golden.bucket.tolist() and facts["tolerance"] == golden.tolerance


def test_few_golden_images_of_every_bucket() -> None:
    golden = made_up_golden(EXPERT, [0, 0, 0, 2, 0, 1, 2])
    assert choose_golden(golden).bucket.tolist() == [0, 0, 2, 1]


def test_golden_images_stay_small() -> None:
    large = made_up_golden(make_config(image_size=224, patch_size=16, preprocess={"resize": 256}), [0, 0, 0])
    chosen = choose_golden(large)
    assert len(chosen.pixels) == 1 and chosen.pixels.nbytes + chosen.answers.nbytes < MOST_BYTES


def test_the_same_bytes_again(tmp_path: Path) -> None:
    manifest, golden = MODELS["threshold"](), made_up_golden(EXPERT, [0, 1, 2])
    for name in ("one", "two"):
        names = write_swift_package(tmp_path / name, manifest, golden)
        names += [write_description(tmp_path / name, manifest)]
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)


def test_two_models_in_one_app(tmp_path: Path) -> None:
    """The package of either bundle serves both models: no generated file is compiled into the app."""
    first, second = MODELS["threshold"](), MODELS["dense, float input"]()
    packages = []
    for name, manifest in (("one", first), ("two", second)):
        names = write_swift_package(tmp_path / name, manifest, made_up_golden(manifest.config, [0]))
        packages.append({n: (tmp_path / name / n).read_bytes() for n in names})
    one, two = packages
    assert one.keys() == two.keys()
    differing = {name for name in one if one[name] != two[name]}
    tests = {f"{CORE_TESTS}/{DESCRIPTION}", VECTORS, *(name for name in one if name.startswith(f"{GOLDEN}/"))}
    assert f"{CORE_TESTS}/{DESCRIPTION}" in differing and differing <= {"README.md", *tests}
    assert not [name for name in one if name.startswith("Sources/") and "/Resources/" in name]


def test_the_description_of_the_unit_tests_is_the_bundles(written: tuple[Path, Manifest]) -> None:
    folder, _ = written
    assert (folder / CORE_TESTS / DESCRIPTION).read_bytes() == (folder.parent / DESCRIPTION).read_bytes()


def test_file_and_module_names_are_unique(written: tuple[Path, Manifest]) -> None:
    """Swift refuses two files of one name in a module, and two targets of one name in a package."""
    folder, _ = written
    for target in (folder / "Sources").iterdir():
        names = [source.name for source in target.rglob("*.swift")]
        assert len(names) == len(set(names))
    text = (folder / "Package.swift").read_text()
    targets = re.findall(r'arget\(\s*name: "(\w+)"', text)
    assert sorted(targets) == ["MoRViTCore", "MoRViTCoreTests", "MoRViTKit", "MoRViTKitTests"]


def test_systems_follow_the_exported_package(written: tuple[Path, Manifest]) -> None:
    folder, manifest = written
    several = len(app_form(manifest).functions) > 1
    ios = app_form(manifest).oldest_ios
    assert ios >= 18 or not several
    ios = 17 if manifest.target == "coreai" else ios  # its sources ask for the system
    expected = f'platforms: [.iOS("{ios}.0"), .macOS("{oldest_macos(ios)}.0")]'
    assert expected in (folder / "Package.swift").read_text()


def test_core_ai_is_guarded() -> None:
    """One package serves SDKs and systems without Core AI, too."""
    found = [path for path in sorted((TEMPLATE / "Sources").rglob("*.swift")) if "CoreAI" in path.read_text()]
    assert [path.stem for path in found] == ["ComputeUnits", "CoreAIFunctions", "ModelPlace"]
    for source in found:
        text = source.read_text(encoding="utf-8")
        assert text.index("#if canImport(CoreAI)") < text.index(
            "CoreAI", text.index("#if canImport(CoreAI)") + 21
        )
        assert "available(iOS 27, macOS 27, tvOS 27, watchOS 27, visionOS 27, *)" in text


def test_newer_interfaces_are_guarded() -> None:
    """`functionName` needs iOS 18; a kit for iOS 17 has the same sources."""
    for source in (TEMPLATE / "Sources").rglob("*.swift"):
        text = source.read_text(encoding="utf-8")
        if "functionName" in text:
            assert text.index("#available(iOS 18, macOS 15") < text.index("functionName")
            break
    else:
        raise AssertionError("no source chooses a function")


OLD_NAMES = {  # of the first version of the package -> the name that replaces it
    "bundled()": "init(named:in:)",
    "normalised": "normalized",
    "normalise(_:)": "normalized(_:)",
    "apply(to:)": "applied(to:)",
    "colour(depth:lowest:highest:)": "color(depth:lowest:highest:)",
    "outcome(of:overflow:)": "outcome(of:didOverflow:)",
    "init(bucket:overflow:)": "init(bucket:didOverflow:)",
    "overflow": "didOverflow",
    "bucketNumber": "bucketIndex",
    "load(from:computeUnits:allowsUpscaling:)": "load(named:in:computeUnits:allowsUpscaling:)",
    "openAll()": "loadAll()",
}


def test_old_names_are_deprecated_and_renamed() -> None:
    """Each old name is a declaration whose attribute has the new name, which is declared elsewhere."""
    deprecated = sorted((TEMPLATE / "Sources").rglob("Deprecated.swift"))
    found = {old: new for source in deprecated for old, new in renamed(source)}
    assert found == OLD_NAMES
    others = [path for path in (TEMPLATE / "Sources").rglob("*.swift") if path not in deprecated]
    declared = {name for source in others for name in declared_names(source)}
    assert set(OLD_NAMES.values()) <= declared
    assert not declared & (OLD_NAMES.keys() - {"normalised"})


def test_the_public_interface_is_in_american_english() -> None:
    british = re.compile(r"colour|grey|centre|normalis|initialis|recognis|catalogue|licence", re.IGNORECASE)
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted([*TEMPLATE.rglob("*.swift"), *TEMPLATE.rglob("*.md")])
        if not path.name.startswith("Deprecated")
        for line in path.read_text(encoding="utf-8").splitlines()
        if british.search(line.replace('"normalised"', ""))
    ]
    assert found == []


@pytest.mark.parametrize(("ios", "macos"), [(17, 14), (18, 15), (26, 26)])
def test_the_oldest_systems_are_the_packages(ios: int, macos: int, tmp_path: Path) -> None:
    assert oldest_macos(ios) == macos
    manifest = coreml_manifest(make_config(), ios=ios)
    write_swift_package(tmp_path, manifest, made_up_golden(manifest.config, [0]))
    assert f'platforms: [.iOS("{ios}.0"), .macOS("{macos}.0")]' in (tmp_path / "Package.swift").read_text()
    assert f"iOS {ios} or macOS {macos}" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_nothing_is_left_to_fill_in(written: tuple[Path, Manifest]) -> None:
    readme = (written[0] / "README.md").read_text(encoding="utf-8")
    assert "{{" not in readme and "}}" not in readme
    assert all(f"| `{name}` |" in readme for name in app_form(written[1]).functions if name != "stem")
    assert app_form(written[1]).file in readme


def test_another_target_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    from morvit_deploy.bundle.manifest import open_manifest

    with pytest.raises(TargetError, match="onnx"):
        write_swift_package(tmp_path, open_manifest(tiny_bundle), made_up_golden(EXPERT, [0]))
    with pytest.raises(TargetError, match="onnx"):
        write_description(tmp_path, open_manifest(tiny_bundle))
    assert list(tmp_path.iterdir()) == []


def test_every_public_symbol_is_documented() -> None:
    """A public declaration follows a line of documentation; conformances to a protocol's own members need none."""
    public = re.compile(r"\s*(public (?!var (errorDescription|recoverySuggestion))|case \w+(\(.*\))?$)")
    bare = []
    for source in sorted((TEMPLATE / "Sources").rglob("*.swift")):
        lines = source.read_text(encoding="utf-8").splitlines()
        lines = [line for line in lines if not line.strip().startswith("@available")]
        for above, line in pairwise(lines):
            if public.match(line) and not above.strip().startswith("///"):
                bare.append(f"{source.name}: {line.strip()}")
    assert bare == []


def test_the_wheel_has_the_template() -> None:
    """The pattern in pyproject.toml, matched as setuptools does, finds every file of the template."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pattern = re.search(r'"morvit_deploy.exporters" = \["([^"]+)"\]', text)
    assert pattern is not None
    found = set((ROOT / "exporters").glob(pattern[1]))
    files = {path.resolve() for path in TEMPLATE.rglob("*") if path.is_file()}
    assert len(files) > 20 and files <= found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one package after the other: Swift compiles the sources, which they share, once."""
    return tmp_path_factory.mktemp("swift")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("swift") is None, reason="needs a Swift toolchain on PATH")
def test_the_package_passes_its_own_tests(written: tuple[Path, Manifest], built: Path) -> None:
    """With the Core AI engine over a stand-in for Apple's framework."""
    package = built / "MoRViTKit"
    shutil.copytree(written[0], package, dirs_exist_ok=True)
    add_core_ai(package)
    command = ["swift", "test", "--scratch-path", str(built / "build")]
    run = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=1200, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    executed = re.findall(r"Executed (\d+) tests?, with 0 failures", run.stdout + run.stderr)
    assert max(map(int, executed), default=0) >= 43


def add_core_ai(package: Path) -> None:
    """Make Core AI importable on Linux, and add the tests of MoRViTKit's engine for it."""
    shutil.copytree(LINUX / "CoreAI", package / "Sources/CoreAI", dirs_exist_ok=True)
    shutil.copy(LINUX / "CoreAIFunctionsTests.swift", package / "Tests/MoRViTKitTests")
    manifest = package / "Package.swift"
    kit = '.target(name: "MoRViTKit", dependencies: ["MoRViTCore"]),'
    text = manifest.read_text(encoding="utf-8")
    assert kit in text
    with_stand_in = (
        '.target(name: "CoreAI"), .target(name: "MoRViTKit", dependencies: ["MoRViTCore", "CoreAI"]),'
    )
    manifest.write_text(text.replace(kit, with_stand_in), encoding="utf-8")
