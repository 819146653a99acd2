"""The mutants of a module: its syntax tree with one small change each, such as < for <=.

Messages, docstrings, annotations and decorators are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
}  # fmt: skip  # a table
PAIRS = (
    ("min", "max"), ("any", "all"), ("argmin", "argmax"), ("minimum", "maximum"), ("amin", "amax"),
    ("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like"),
)  # fmt: skip  # a table
NAMES = dict(PAIRS) | {b: a for a, b in PAIRS}
UNWRAPPED = ("sorted", "reversed", "abs")  # calls that their first argument replaces
TEXTS = ("__repr__", "__str__")  # functions that make text
SILENT = ("errstate", "warn")  # calls without a result
CHECKING = ("strict",)  # arguments that only raise
# constants that trade the time of a search for its result, or the length of a message
TUNED = ("BINS", "HALVINGS", "MAX_BUCKETS", "MAX_CUTS", "MAX_LEADS", "PAIRS", "QUANTILES", "SHOWN_VIOLATIONS")
WIDEST = 100  # characters of code in a line of output


@dataclass(frozen=True)
class Edit:
    """One change: the number of its node in `_nodes`, and which of that node's variants."""

    node: int
    variant: int
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.node}.{self.variant}"


def edits_of(source: str) -> list[Edit]:
    """Return every edit of a module."""
    return [
        Edit(number, variant, _line(node), *_shown(_text(node), _text(other)))
        for number, node in enumerate(_nodes(ast.parse(source)))
        for variant, other in enumerate(_variants(node))
    ]


def edited(source: str, edit: Edit) -> ast.Module:
    """Return the syntax tree of a module with one edit; line numbers stay."""
    tree = ast.parse(source)
    node = list(_nodes(tree))[edit.node]
    other = ast.copy_location(list(_variants(node))[edit.variant], node)

    class Swap(ast.NodeTransformer):
        def visit(self, found: ast.AST) -> Any:
            return other if found is node else self.generic_visit(found)

    return ast.fix_missing_locations(Swap().visit(tree))


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that may change, parents first."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield from _nodes(child)


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            return True
        case ast.FunctionDef(name=name):
            return name in TEXTS
        case ast.Call():
            return _name(node.func) in SILENT
        case ast.Assign(targets=[ast.Name(id=name)]) if name in TUNED:
            return True
        case ast.Assign(value=ast.IfExp(body=ast.Constant(value=str()))):
            return True
        case ast.Assign(value=value) if not isinstance(value, ast.ListComp):
            return any(isinstance(part, ast.JoinedStr) for part in ast.walk(value))
    return False


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may replace a node."""
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                yield _with(node, ops=[*ops[:place], OPERATORS[type(op)](), *ops[place + 1 :]])
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in OPERATORS and not (_is_sequence(left) or _is_sequence(right)):
                yield _with(node, op=OPERATORS[type(op)]())
        case ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(op)]())
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
            if value:
                yield ast.Constant(value - 1)
        case ast.Call():
            yield from _calls(node)
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None and not isinstance(lower, ast.Constant):
                yield _with(node, lower=_plus(lower, 1))
            if upper is not None and not isinstance(upper, ast.Constant):
                yield _with(node, upper=_plus(upper, 1))
                yield _with(node, upper=_plus(upper, -1))
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            if _name(test) != "TYPE_CHECKING":
                yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[_, *_]):
            yield _with(node, ifs=[])
        case ast.Continue():
            yield ast.Break()


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """Yield another function, the first argument alone, and the call without each of its named arguments."""
    name = _name(node.func)
    if name in NAMES and isinstance(node.func, ast.Name):
        yield _with(node, func=ast.Name(NAMES[name], ast.Load()))
    elif name in NAMES:
        yield _with(node, func=_with(node.func, attr=NAMES[name]))
    if name in UNWRAPPED and node.args:
        yield node.args[0]
    for place, keyword in enumerate(node.keywords):
        message = isinstance(keyword.value, ast.JoinedStr) or isinstance(
            getattr(keyword.value, "value", 0), str
        )
        if keyword.arg is not None and keyword.arg not in CHECKING and not message:
            yield _with(node, keywords=[*node.keywords[:place], *node.keywords[place + 1 :]])


def _with(node: ast.AST, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _plus(node: ast.expr, number: int) -> ast.BinOp:
    return ast.BinOp(node, ast.Add(), ast.Constant(number))


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _is_sequence(node: ast.AST) -> bool:
    """Whether + and * join or repeat."""
    literal = isinstance(node, ast.JoinedStr | ast.List | ast.ListComp | ast.Tuple)
    return literal or isinstance(getattr(node, "value", None), str)


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0) or node.iter.lineno)  # type: ignore[attr-defined]  # a comprehension


def _text(node: ast.AST) -> str:
    """The node as code in one line; of a statement the condition or first line."""
    shown = node.test if isinstance(node, ast.If | ast.IfExp) else node
    return ast.unparse(shown).partition("\n")[0].strip()


def _shown(before: str, after: str) -> tuple[str, str]:
    """Return two lines of code, and of long ones the part where they differ."""
    if max(len(before), len(after)) <= WIDEST:
        return before, after
    same = next((place for place, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    part = slice(max(0, same - WIDEST // 3), same + WIDEST // 3)
    return f"…{before[part]}…", f"…{after[part]}…"
