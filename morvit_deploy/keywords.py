"""Misspelt keywords and values of the public functions: the error names the closest one that there is."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from morvit_deploy.errors import KeywordError

Function = TypeVar("Function", bound=Callable[..., Any])

NONE: Mapping[str, str] = MappingProxyType({})


def checks_keywords(further: Callable[[], Iterable[str]] = tuple) -> Callable[[Function], Function]:
    """A decorator: KeywordError for a keyword that the function does not have.

    `further` returns the names that its `**` parameter takes. The signature stays as it is, for `help` and for type
    checkers.
    """

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        own = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]

        @functools.wraps(function)
        def checked(*args: Any, **keywords: Any) -> Any:
            if keywords.keys() - {*own}:
                refuse_unknown(keywords, [*own, *further()])
            return function(*args, **keywords)

        return cast(Function, checked)

    return decorate


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """KeywordError for the first of `given` that is not among `known`."""
    known = list(dict.fromkeys(known))
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(known) or 'none'}"
            raise KeywordError(f"{name}: unknown option; {hint}")


def did_you_mean(given: object, known: Iterable[object], synonyms: Mapping[str, str] = NONE) -> str:
    """`; did you mean 'cuda'?`, to end an error about a value with; empty where nothing is close.

    `synonyms` are other words for some of `known`.
    """
    meant = {str(name): name for name in known} | dict(synonyms)
    close = difflib.get_close_matches(str(given).lower(), list(meant), n=1)
    return f"; did you mean {meant[close[0]]!r}?" if close else ""
