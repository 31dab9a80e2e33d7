"""Spectra of a file in any format that the reader `table` knows; foreign decoders are fenced in."""

import warnings
from typing import Any

import numpy as np

from storage import files
from storage.border import RefusedError
from storage.fits import FitsError
from storage.schema import Reason
from storage.table import fits
from storage.table import spectra as spectra
from storage.table.options import Options
from storage.table.spectra import Spectra

_FITS = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fts")


def count(path: str, options: Options) -> int:
    """How many spectra a file has; 1 where it cannot be told: reading it says why."""
    if options.one_per_file or options.loader or path.endswith(".ecsv"):
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            files.regular(path)
            found = fits.count if path.endswith(_FITS) else _count_parquet
            return max(found(path, options), 1)
        # Whatever a decoder finds in damaged bytes: it is said when the file is read.
        except Exception:
            return 1


def load(path: str, options: Options, start: int, rows: int) -> Spectra:
    """Rows start:start + rows of the spectra of a file.

    Raises
    ------
    RefusedError
        Says what is wrong with the file, or which option is missing.
    ModuleNotFoundError
        When an optional library is asked for and is not there.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = spectra.check(_load(path, options, start, rows))
        except (RefusedError, ModuleNotFoundError):
            raise
        except OSError as error:
            what = error.strerror or error
            raise RefusedError(
                Reason.UNREADABLE, f"{what}; check the path and its rights"
            ) from error
        except FitsError as error:
            raise RefusedError(Reason.UNREADABLE, f"{error}; fetch the file again") from error
        # astropy, pyarrow, yaml and specutils raise anything on damaged bytes.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise RefusedError(
                Reason.UNREADABLE, f"cannot be read ({what[:300]}); fetch the file again"
            ) from error
    return found


def _load(path: str, options: Options, start: int, rows: int) -> Spectra:
    if not files.regular(path).st_size:
        raise FitsError("an empty file")
    if options.loader:
        return _from_specutils(path, options)
    if path.endswith(_FITS):
        return fits.load(path, options, start, rows)
    if path.endswith(".parquet"):
        return _from_parquet(path, options, start, rows)
    if path.endswith(".ecsv"):
        return _from_ecsv(path, options, start, rows)
    raise RefusedError(
        Reason.UNREADABLE,
        "its suffix is none of .fits, .fits.gz, .ecsv, .parquet; set survey.options.loader to "
        "'specutils', or convert it",
    )


def _from_ecsv(path: str, options: Options, start: int, rows: int) -> Spectra:
    from astropy.table import Table

    table = Table.read(path, format="ascii.ecsv")
    units = {name: str(table[name].unit or "") for name in table.colnames}
    columns = {name: table[name] for name in table.colnames}
    return spectra.from_columns(columns, units, _cards(table.meta), options)


def _cards(meta: Any) -> dict[str, Any]:
    """Keywords in capitals; a header within wins over what stands beside it."""
    found = {str(key).upper(): value for key, value in dict(meta).items()}
    for name in ("HEADER", "META"):
        inner = found.get(name)
        if inner is not None and hasattr(inner, "keys"):
            found.update({str(key).upper(): inner[key] for key in inner if key})
    return found


def _count_parquet(path: str, options: Options) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        name = spectra.find(schema.names, options.flux, spectra.FLUX, "flux")
        kind = schema.field(name).type if name else None
        nested = kind is not None and (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        )
        return int(file.metadata.num_rows) if nested else 1


def _from_parquet(path: str, options: Options, start: int, rows: int) -> Spectra:
    from pyarrow import parquet

    table = parquet.read_table(path)
    total = _count_parquet(path, options)
    if total > 1 or rows > 1:
        table = table.slice(start, rows)
    units = {
        field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in table.schema
    }
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return spectra.from_columns(columns, units, _cards(meta), options, total=total)


def specutils_of(options: Options) -> Any:
    """The class of specutils that reads.

    Raises
    ------
    ModuleNotFoundError
        When specutils is not there.
    """
    try:
        from specutils import Spectrum
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"survey.options.loader {options.loader!r} needs specutils; "
            "pip install specmill[specutils]"
        ) from error
    return Spectrum


def _from_specutils(path: str, options: Options) -> Spectra:
    """The spectrum that specutils makes of a file."""
    reader = specutils_of(options)
    if path.endswith((".fits", ".fit")):
        with fits.opened(path):
            pass
    kind = None if options.loader == "specutils" else options.loader
    found: Any = reader.read(path, format=kind)
    noise = found.uncertainty
    kinds: dict[str, Any] = {"std": "std", "var": "variance", "ivar": "ivar"}
    if noise is not None and noise.uncertainty_type not in kinds:
        raise RefusedError(
            Reason.BAD_UNITS,
            f"uncertainty is {noise.uncertainty_type}; expected one of {', '.join(kinds)}",
        )
    mask = found.mask
    flux = np.atleast_2d(spectra.plain(found.flux.value))
    return Spectra(
        wavelength=spectra.plain(found.spectral_axis.value),
        scale="linear",
        wavelength_unit=str(found.spectral_axis.unit),
        flux=flux,
        flux_unit=str(found.flux.unit),
        uncertainty=None if noise is None else np.atleast_2d(spectra.plain(noise.array)),
        kind=None if noise is None else kinds[noise.uncertainty_type],
        uncertainty_unit="" if noise is None else str(noise.unit or ""),
        mask=None if mask is None else np.atleast_2d(spectra.bits(mask)),
        cards=_cards(found.meta),
    )
