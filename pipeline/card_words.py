"""What is wrong with a card, in words; and one-off values that are put into it."""

import difflib
import tomllib
from collections.abc import Sequence
from typing import Any


class CardError(ValueError):
    """A card that does not say what a card must say."""


def put(content: dict[str, Any], setting: str) -> None:
    """Set one value of a card: ``table.key=value``.

    Raises
    ------
    CardError
        When it is not of that form, or a table is a value.
    """
    key, found, value = setting.partition("=")
    if not found or "." not in key:
        raise CardError(f"--set {setting}: expected table.key=value")
    *tables, last = key.strip().split(".")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise CardError(f"--set {setting}: {table!r} is not a table")
    try:
        content[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        # A bare word is a text: paths and names need no quotes on the command line.
        content[last] = value


def words(path: str, item: Any, schema: dict[str, Any]) -> str:
    """One validation error in words: the table, the key, what was found, the nearest known key."""
    where = [str(part) for part in item["loc"]]
    if item["type"] != "extra_forbidden":
        found = "" if item["type"] == "missing" else f", found {item['input']!r}"
        return (
            f"{path}: [{'.'.join(where[:-1])}] {where[-1] if where else ''}: {item['msg']}{found}"
        )
    known = _known(where[:-1], schema)
    near = difflib.get_close_matches(where[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    table = f"[{'.'.join(where[:-1])}]" if where[:-1] else "the card"
    return f"{path}: unknown key {where[-1]!r} in {table}; {hint}"


def _known(where: Sequence[str], schema: dict[str, Any]) -> list[str]:
    node: dict[str, Any] = schema
    for part in where:
        options = [node, *node.get("anyOf", [])]
        node = next((o["properties"][part] for o in options if part in o.get("properties", {})), {})
        for option in [node, *node.get("anyOf", [])]:
            option = option.get("items", option)
            if "$ref" in option:
                node = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
    return sorted(node.get("properties", {}))
