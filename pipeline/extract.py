"""Extract: a store, or what an expression selects of it, as a file."""

from pathlib import Path

from pipeline.export import export
from pipeline.query import open_survey


def export_store(
    path: str,
    out: str | Path,
    expression: str = "",
    config: str | None = None,
    spectra: bool | None = None,
) -> int:
    """Write a store, or what an expression selects of it, to a file; gives the number of spectra.

    Parameters
    ----------
    path, config : str
        As `pipeline.query.open_survey` takes them.
    expression : str
        As `.spectra.select` takes it; all rows when empty.

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError
        As `open_survey` and `export` do.
    """
    ds = open_survey(path, config)
    chosen = ds.spectra.select(expression) if expression else ds
    export(chosen, out, spectra=spectra)
    return int(chosen.sizes["spectrum"])
