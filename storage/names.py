"""Names in a card become modules: a shelf is a folder, an addition is a file on it."""

import difflib
import importlib
import pkgutil
from types import ModuleType


def resolve(family: str, name: str) -> ModuleType:
    """The module that a card's name means.

    Parameters
    ----------
    family : str
        A shelf of ours, such as ``storage.readers``.
    name : str
        A module on that shelf, or the dotted name of anybody's module, imported as it stands.

    Raises
    ------
    ValueError
        When there is no such module; names the shelf and the nearest one.
    """
    target = name if "." in name else f"{family}.{name}"
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        # A module that exists but misses a dependency of its own must say so itself.
        if error.name is None or not f"{target}.".startswith(f"{error.name}."):
            raise
    near = difflib.get_close_matches(name, shelf(family), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name!r} is not in {family} (there: {', '.join(shelf(family))}){hint}")


def shelf(family: str) -> list[str]:
    """Names on a shelf, sorted."""
    package = importlib.import_module(family)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
