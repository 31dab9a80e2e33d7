"""Expressions over catalogue columns: a whitelisted syntax tree, never eval.

``z < 0.1 and class == 'GALAXY' and raw.Dn4000 > 1.6 and abs(dec) < 5``
"""

import ast
import difflib
import io
import keyword
import operator
import tokenize
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.sky import within

Circle = tuple[float, float, float]
"Centre in degrees and radius in arcsec of a circle on the sky."

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    # NaN differs from everything; a row without a value is not one that is known to differ.
    ast.NotEq: lambda left, right: (left != right) & _known(left) & _known(right),
    ast.In: lambda value, options: np.isin(value, options),
    ast.NotIn: lambda value, options: ~np.isin(value, options),
}


def _known(side: Any) -> Any:
    array = np.asarray(side)
    return array == array if array.dtype.kind == "f" else True


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "log10": np.log10,
    "isfinite": np.isfinite,
}
_ESCAPE = "_kw"


def evaluate(
    expression: str, columns: Mapping[str, Any], n: int, inside: Circle | None = None
) -> NDArray[np.bool_]:
    """Which of n rows an expression selects.

    Parameters
    ----------
    expression : str
        Comparisons of columns and numbers or strings with and, or, not, in, arithmetic, abs(),
        log10(), isfinite(), and cone(ra, dec, radius_arcsec) for a circle on the sky. Empty
        selects all. A comparison with NaN is false, so that ``not z < 1`` holds for it.
    columns : mapping of str to (n,) array
        Looked up only when the expression names them. A dotted name is one column.
    inside : Circle, optional
        A circle that all n rows are known to be in, as `circle` gives it: not tested again.

    Raises
    ------
    ValueError
        When it is no such expression, or names a column that is not there (with the nearest).
    """
    if not expression.strip():
        return np.ones(n, bool)
    tree = _without(_parsed(expression), inside)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.asarray(_value(tree, columns, expression))
    if found.dtype != np.bool_:
        raise ValueError(f"{expression!r}: gives {found.dtype}, expected true or false for a row")
    return np.broadcast_to(found, (n,)).copy()


def names(expression: str, columns: Mapping[str, Any]) -> list[str]:
    """The columns that an expression names, in their order."""
    found: list[str] = []
    if expression.strip():
        tree = ast.parse(_escaped(expression), mode="eval").body
        for node in ast.walk(tree):
            name = _name(node)
            if name is not None and name in columns and name not in found:
                found.append(name)
    return found


def circle(expression: str) -> Circle | None:
    """The circle on the sky that every row of an expression is in: a cone() joined by and.

    Raises
    ------
    ValueError
        When it is no expression.
    """
    parts = _parts(_parsed(expression)) if expression.strip() else []
    return next((found for found in map(_circle, parts) if found is not None), None)


def _parsed(expression: str) -> ast.expr:
    try:
        return ast.parse(_escaped(expression), mode="eval").body
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{expression!r}: not an expression ({error})") from error


def _parts(tree: ast.expr) -> list[ast.expr]:
    """What is joined by and."""
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        return [part for value in tree.values for part in _parts(value)]
    return [tree]


def _circle(node: ast.expr) -> Circle | None:
    match node:
        case ast.Call(func=ast.Name(id="cone"), args=[_, _, _], keywords=[]):
            try:
                ra, dec, radius = (float(_value(arg, {}, "")) for arg in node.args)
            # Its centre is a column: every row has another circle.
            except (TypeError, ValueError):
                return None
            return ra, dec, radius
    return None


def _without(tree: ast.expr, inside: Circle | None) -> ast.expr:
    if inside is None:
        return tree
    parts = [part for part in _parts(tree) if _circle(part) != inside]
    rest = parts or [ast.Constant(value=True)]
    return ast.BoolOp(op=ast.And(), values=rest) if len(rest) > 1 else rest[0]


def _escaped(expression: str) -> str:
    """Python keywords that are column names (class) get a suffix that the tree walk removes."""
    words = {"and", "or", "not", "in"}
    tokens = [
        (kind, text + _ESCAPE if keyword.iskeyword(text) and text not in words else text)
        for kind, text, *_ in tokenize.generate_tokens(io.StringIO(expression.strip()).readline)
    ]
    return tokenize.untokenize(tokens).strip()


def _name(node: ast.AST) -> str | None:
    """The column name that a node spells: z, raw.Mgb, raw@fs.Mgb."""
    if isinstance(node, ast.Name):
        return node.id.removesuffix(_ESCAPE)
    if isinstance(node, ast.Attribute):
        owner = _name(node.value)
        return None if owner is None else f"{owner}.{node.attr.removesuffix(_ESCAPE)}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        left, right = _name(node.left), _name(node.right)
        return None if left is None or right is None else f"{left}@{right}"
    return None


def _value(node: ast.AST, columns: Mapping[str, Any], text: str) -> Any:
    name = _name(node)
    if name is not None:
        return _column(name, columns, text)
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return node.value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return [_value(item, columns, text) for item in items]
        case ast.BoolOp():
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return combine.reduce([_truth(value, columns, text) for value in node.values])
        case ast.UnaryOp(op=ast.Not()):
            return np.logical_not(_truth(node.operand, columns, text))
        case ast.UnaryOp(op=op) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(node.operand, columns, text))
        case ast.BinOp(op=op) if type(op) in _BINARY:
            left, right = _value(node.left, columns, text), _value(node.right, columns, text)
            return _BINARY[type(op)](left, right)
        case ast.Compare():
            return _compare(node, columns, text)
        case ast.Call(func=ast.Name(id=function), keywords=[]):
            return _call(function, [_value(a, columns, text) for a in node.args], columns, text)
    raise ValueError(f"{text!r}: {ast.unparse(node)!r} is not allowed in an expression")


def _truth(node: ast.AST, columns: Mapping[str, Any], text: str) -> Any:
    found = np.asarray(_value(node, columns, text))
    if found.dtype != np.bool_:
        raise ValueError(
            f"{text!r}: {ast.unparse(node)!r} is {found.dtype}; and, or, not join comparisons"
        )
    return found


def _compare(node: ast.Compare, columns: Mapping[str, Any], text: str) -> Any:
    sides = [_value(side, columns, text) for side in (node.left, *node.comparators)]
    parts = []
    for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True):
        if type(op) not in _COMPARE:
            raise ValueError(f"{text!r}: {ast.unparse(node)!r} is not allowed in an expression")
        texts = [np.asarray(side).dtype.kind in "TUO" for side in (left, right)]
        if texts[0] != texts[1]:
            raise ValueError(f"{text!r}: {ast.unparse(node)!r} compares a number with a text")
        parts.append(_COMPARE[type(op)](left, right))
    return np.logical_and.reduce(parts)


def _call(function: str, args: list[Any], columns: Mapping[str, Any], text: str) -> Any:
    if function == "cone" and len(args) == 3:
        return within(_column("ra", columns, text), _column("dec", columns, text), *args)
    if function in _FUNCTIONS and len(args) == 1:
        return _FUNCTIONS[function](*args)
    known = ", ".join([*_FUNCTIONS, "cone(ra, dec, radius_arcsec)"])
    raise ValueError(f"{text!r}: no function {function!r} of {len(args)} (there: {known})")


def _column(name: str, columns: Mapping[str, Any], text: str) -> Any:
    if name in columns:
        return np.asarray(columns[name])
    near = difflib.get_close_matches(name, list(columns), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{text!r}: no column {name!r}{hint}")
