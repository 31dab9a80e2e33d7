"""Model spectra of any origin: one FITS table with a row a model.

Columns teff (K), logg (log10 of cm s-2), feh, alpha_m (dex), and flux, a vector per row; wavelength
likewise, a vector per row, all rows the same. TUNIT of wavelength and flux must say the units, and
the header's MEDIUM whether wavelengths are those of ``air`` or ``vacuum``.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.grid import Float, air_to_vacuum
from storage.simulation.stellar_files import Library, Parameters, opened
from storage.simulation.stellar_grid import PARAMETERS

_WANTED = (*PARAMETERS, "wavelength", "flux")


def table(path: str) -> Library:
    """The models of a table; they are read at once.

    Raises
    ------
    ValueError
        When there is no such file, or a column, unit or the medium is missing or unknown.
    """
    if not path or not Path(path).is_file():
        raise ValueError(f"models = {path!r}: no such file; give a FITS table with a row a model")
    data, header = _open(path)
    _require(path, data, header)
    wavelength = _wavelength(path, np.asarray(data["wavelength"], np.float64), header)
    flux = np.asarray(data["flux"], np.float64) * _scale(path, data, header)
    rows = [tuple(float(data[name][i]) + 0.0 for name in PARAMETERS) for i in range(len(data))]

    def read(name: Path) -> tuple[Float, Float]:
        return wavelength, flux[int(name.name.removeprefix("row "))]

    models: list[tuple[Parameters, Path]] = [
        (row, Path(path) / f"row {i}")  # type: ignore[misc]  # four of them
        for i, row in enumerate(rows)
    ]
    return Library("table", models, path, read)


def _open(path: str) -> tuple[Any, Any]:
    found = [hdu for hdu in opened(path) if getattr(hdu[0], "names", None)]
    if not found:
        raise ValueError(f"{path}: there is no table in it; a row is a model")
    return found[0]


def _require(path: str, data: Any, header: Any) -> None:
    missing = [name for name in _WANTED if name not in data.names]
    if missing:
        raise ValueError(
            f"{path}: the table lacks {', '.join(missing)}; a row is a model with "
            f"{', '.join(_WANTED)}"
        )
    if header.get("MEDIUM") not in ("air", "vacuum"):
        raise ValueError(
            f"{path}: MEDIUM is {header.get('MEDIUM')!r}; put 'air' or 'vacuum' into the header of "
            "the table"
        )


def _wavelength(path: str, every: NDArray[np.float64], header: Any) -> Float:
    from astropy import units

    if every.ndim != 2 or not (every == every[:1]).all():
        raise ValueError(f"{path}: wavelengths differ from row to row; put all models on one axis")
    scale = _unit(path, "wavelength", header).to(units.AA)
    axis = np.asarray(every[0] * scale)
    return air_to_vacuum(axis) if header["MEDIUM"] == "air" else axis


def _scale(path: str, data: Any, header: Any) -> float:
    from astropy import units

    flux = "erg s-1 cm-2 Angstrom-1"
    return float(_unit(path, "flux", header).to(units.Unit(flux)))


def _unit(path: str, name: str, header: Any) -> Any:
    """Unit of a column, if it is of the right kind."""
    from astropy import units

    wanted = {"wavelength": "Angstrom", "flux": "erg s-1 cm-2 Angstrom-1"}[name]
    number = next(k for k in range(1, 1000) if header.get(f"TTYPE{k}") == name)
    told = str(header.get(f"TUNIT{number}", ""))
    try:
        found = units.Unit(told)
        found.to(units.Unit(wanted))
    except (ValueError, units.UnitConversionError) as error:
        raise ValueError(
            f"{path}: unit of {name} is {told!r}; expected one that converts to {wanted}"
        ) from error
    return found
