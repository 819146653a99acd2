"""Public functions as people call them: typed, with examples that are right, and with help for a slip."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mypy import api as mypy
from notebooks import code_cells
from places import EXAMPLES, ROOT

import morvit_deploy as md
from morvit_deploy.errors import ConfigError, KeywordError, MorvitError
from morvit_deploy.keywords import checks_keywords, did_you_mean

FUNCTIONS = [name for name in md.__all__ if inspect.isfunction(getattr(md, name))]
PAGE = ROOT / "docs" / "python.md"
QUICKSTART = EXAMPLES / "quickstart.ipynb"
UNTYPED = (
    "torch",
    "onnx",
    "onnxruntime",
    "numpy",
    "matplotlib",
    "rich",
    "PIL",
    "pydantic",
    "typer",
    "safetensors",
)
# of an example, what it was not made by
PRELUDE = "import morvit_deploy as md\nfrom typing import Any\nmodel: Any = None\npixels: Any = None\n"


def misspelt(name: str) -> str:
    """A keyword of a public function with its last letter missing; of one without any, one that it has not."""
    parameters = inspect.signature(getattr(md, name)).parameters.values()
    own = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    return max(own, key=len)[:-1] if own else "verbose"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_misspelt_keyword_names_the_closest(name: str) -> None:
    wrong = misspelt(name)
    with pytest.raises(
        KeywordError, match=rf"^{wrong}: unknown option; (did you mean {wrong}.\?|the options are )"
    ):
        getattr(md, name)(**{wrong: None})


def test_it_is_an_error_of_both_kinds() -> None:
    for kind in (TypeError, ConfigError, MorvitError):
        with pytest.raises(kind, match="forse: unknown option; did you mean force"):
            md.convert("a.pth", "b", forse=True)  # type: ignore[call-arg]


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    @checks_keywords(lambda: ["layout"])
    def place(where: str, *, layout_of: int = 1, **own: int) -> int:
        """Place it."""
        return layout_of + own.get("layout", 0)

    assert place("here", layout=2) == 3 and place.__doc__ == "Place it."
    assert list(inspect.signature(place).parameters) == ["where", "layout_of", "own"]
    with pytest.raises(KeywordError, match=r"xyz: unknown option; the options are where, layout_of, layout"):
        place("here", xyz=1)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        place()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: md.export("a", "b", precision="fp61"), "did you mean 'fp16'"),  # type: ignore[arg-type]
        (lambda: md.export("a", "b", precision="half"), "did you mean 'fp16'"),  # type: ignore[arg-type]
        (lambda: md.export("a", "b", target="tensorrt"), "did you mean 'trt'"),
        (lambda: md.export("a", "b", target="CoreML"), "did you mean 'coreml'"),
        (lambda: md.bench("a", device="gpu"), "did you mean 'cuda'"),  # type: ignore[call-overload]
        (lambda: md.bench("a", device="orin"), "did you mean 'jetson'"),  # type: ignore[call-overload]
        (lambda: md.calibrate("a", "b", mode="treshold"), "did you mean 'threshold'"),  # type: ignore[arg-type]
        (lambda: md.build("a", flavor="tensort"), "did you mean 'tensorrt'"),  # type: ignore[arg-type]
        (lambda: md.convert("a", "b", activation="gleu"), "did you mean 'gelu'"),
    ],
)
def test_a_wrong_value_names_the_closest(call: Callable[[], object], hint: str) -> None:
    with pytest.raises(MorvitError, match=hint):
        call()


def test_nothing_is_suggested_where_nothing_is_close() -> None:
    assert did_you_mean("toaster", ["onnx", "trt"], {"tensorrt": "trt"}) == ""
    assert did_you_mean("TensorRT", ["onnx", "trt"], {"tensorrt": "trt"}) == "; did you mean 'trt'?"
    assert did_you_mean(16, [17, 18]) == ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_keyword_is_typed(name: str) -> None:
    signature = inspect.signature(getattr(md, name))
    hints = [one.annotation for one in signature.parameters.values()] + [signature.return_annotation]
    assert inspect.Signature.empty not in hints
    assert not any(re.fullmatch(r"Any|dict\[str, Any\]", str(hint)) for hint in hints), hints


def examples_of(name: str) -> str:
    """The code of the examples in a public function's docstring."""
    parsed = doctest.DocTestParser().get_examples(getattr(md, name).__doc__ or "")
    return "".join(example.source for example in parsed)


def page_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of `md.NAME(…)` in some code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and re.fullmatch(r"md\.\w+", ast.unparse(node.func)):
            yield ast.unparse(node.func).removeprefix("md."), node


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_docstring_has_an_example_of_it(name: str) -> None:
    assert name in {called for called, _ in calls(examples_of(name))}


EXAMPLES_OF = {name: examples_of(name) for name in FUNCTIONS}
BLOCKS = {f"block {number} of the page": block for number, block in enumerate(page_blocks(), start=1)}


@pytest.mark.parametrize("source", [*EXAMPLES_OF.values(), *BLOCKS.values()], ids=[*EXAMPLES_OF, *BLOCKS])
def test_examples_fit_the_signatures(source: str) -> None:
    for name, call in calls(source):
        given: dict[str, Any] = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        inspect.signature(getattr(md, name)).bind(*call.args, **given)


def test_the_page_lists_every_public_name() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not [name for name in md.__all__ if not re.search(rf"`(?:md\.)?{name}\b|md\.{name}\(", text)]


def typed_layout(folder: Path) -> Path:
    """The package alone: a type checker would read the repository's tests beside it, too."""
    (folder / "morvit_deploy").symlink_to(ROOT / "morvit_deploy")
    return folder


def as_functions(sources: list[str]) -> str:
    """Each example in a function of its own, so that their names do not meet."""
    indented = (re.sub(r"^(?=.)", "    ", source, flags=re.MULTILINE) for source in sources)
    return "".join(f"\ndef example_{number}() -> None:\n{body}\n" for number, body in enumerate(indented))


@pytest.mark.slow
def test_a_type_checker_finds_every_slip_and_passes_every_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run: a misspelt keyword for each public function; docstrings, docs/python.md and the notebook."""
    slips = ["import morvit_deploy as md", *(f"md.{name}(None, {misspelt(name)}=None)" for name in FUNCTIONS)]
    (tmp_path / "slips.py").write_text("\n".join(slips) + "\n")
    # an example may go on from the one before, as a page does
    page = "".join(page_blocks())
    notebook = "\n".join(code_cells(QUICKSTART))
    made = "found = md.calibrate('checkpoint', 'photos')\n"
    examples = [made * (name == "calibrate") + examples_of(name) for name in FUNCTIONS]
    (tmp_path / "examples.py").write_text(PRELUDE + as_functions([*examples, page, notebook]))
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in UNTYPED)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n{skipped}"
    )
    monkeypatch.setenv("MYPYPATH", str(typed_layout(tmp_path)))
    monkeypatch.chdir(tmp_path)
    report, _, _ = mypy.run(["--config-file", "mypy.ini", "--cache-dir", "cache", "slips.py", "examples.py"])
    found = [line for line in report.splitlines() if ": error: " in line]
    assert [line for line in found if line.startswith("examples.py")] == []
    for number, name in enumerate(FUNCTIONS, start=2):
        assert any(
            re.match(rf'slips\.py:{number}: error: Unexpected keyword argument "{misspelt(name)}"', line)
            for line in found
        ), f"{name}: {report}"
