"""Optional libraries: the extra that installs each, and the error where one is missing. Imports no dependency."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from morvit_deploy.errors import MissingExtraError

PACKAGE = "morvit-deploy"
EXTRAS = {  # import name of a library -> the extra in pyproject.toml that installs it; "" is the base install
    "matplotlib": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "safetensors": "export",
    "torch": "export",
    "coreai": "coreai",
    "coreai_opt": "coreai",
    "coreai_torch": "coreai",
    "coremltools": "coreml",
    "ray": "ray",
    "segno": "browser",
    "tensorrt": "trt",
    "tensorrt_rtx": "rtx",
    "timm": "zoo",
    "torchvision": "zoo",
    "sklearn": "train",
    "numpy": "",
    "onnxruntime": "",
    "packaging": "",
    "PIL": "",
    "psutil": "",
    "pydantic": "",
}

# distribution -> import name, where they differ by more than a hyphen
MODULES = {"coreai-core": "coreai", "pillow": "PIL", "pytest-xdist": "xdist", "scikit-learn": "sklearn"}


def module_of(distribution: str) -> str:
    """The import name of a distribution."""
    return MODULES.get(distribution, distribution.replace("-", "_"))


def install_line(extra: str) -> str:
    """The line that installs an extra, or with "" what every command requires."""
    return f'pip install "{PACKAGE}[{extra}]"' if extra else f"pip install {PACKAGE}"


@contextmanager
def names_extra(what: str) -> Iterator[None]:
    """Turn the import of a library that is not installed into a MissingExtraError; also a decorator.

    `what` requires the library, as in "morvit-deploy export". Other import errors pass: they are not the user's.
    """
    try:
        yield
    except MissingExtraError:  # says already what requires it
        raise
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise _missing([error.name], what, EXTRAS[error.name]) from error


def require(distributions: Iterable[str], what: str, extra: str) -> None:
    """MissingExtraError for those that are optional and not installed; `extra` installs all of them."""
    modules = [module_of(name) for name in distributions]
    if absent := [module for module in modules if EXTRAS.get(module) and is_missing(module)]:
        raise _missing(absent, what, extra)


def _missing(modules: Sequence[str], what: str, extra: str) -> MissingExtraError:
    not_there = "which is not installed" if len(modules) == 1 else "which are not installed"
    return MissingExtraError(
        f"{what} requires {', '.join(modules)}, {not_there}; run `{install_line(extra)}`", name=modules[0]
    )


def is_missing(module: str) -> bool:
    """Is the module not installed? Does not import it."""
    if module in sys.modules:
        return sys.modules[module] is None
    try:
        return find_spec(module) is None
    except ImportError:  # a finder hides it
        return True
