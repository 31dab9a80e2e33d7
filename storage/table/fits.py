"""Spectra in FITS: columns of a table, or images whose last axis is wavelength."""

import gzip
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from storage import files, fits_scan
from storage import fits as checked
from storage.border import RefusedError
from storage.fits_write import CARD, card, primary
from storage.schema import Reason
from storage.table import spectra as spectra
from storage.table.options import Options, Scale
from storage.table.spectra import Cards, Float, Spectra

_SMALL = 64 << 20  # bytes
_LOG10 = ("LOGLAM", "LOG10", "LOGLAMBDA", "LOG-LAMBDA", "LOG_LAMBDA", "LOGWAVE")


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The HDUs of a file, after its sizes were found to be true: astropy believes a header.

    Raises
    ------
    storage.fits.FitsError
        Truncated, or not FITS.
    """
    from astropy.io import fits

    # astropy leaves a file open that it cannot read, so it is given one.
    if path.endswith(".gz"):
        content = files.content(path)
        checked.parse(content, frozenset(), 99)
        with io.BytesIO(gzip.decompress(content)) as unpacked, fits.open(unpacked) as hdus:
            yield hdus
        return
    for hdu in fits_scan.scan(path):
        if hdu.kind == "BINTABLE" and not hdu.compressed:
            _check_layout(path, hdu)
    with Path(path).open("rb") as file, fits.open(file, memmap=True) as hdus:
        yield hdus


def _check_layout(path: str, hdu: fits_scan.Hdu) -> None:
    """A small table is checked with its checksums, of a large one the columns against its width."""
    if hdu.size <= _SMALL:
        fits_scan.table(path, hdu, frozenset())
        return
    cards = [hdu.header[at : at + CARD] for at in range(0, len(hdu.header), CARD)]
    cards[4], cards[5] = card("NAXIS2", 0), card("PCOUNT", 0)
    header = b"".join(each for each in cards if not each.startswith((b"CHECKSUM", b"DATASUM")))
    header += b"END".ljust(CARD)
    checked.parse(primary([]) + header.ljust(checked.padded(len(header))), frozenset(), 1)


def count(path: str, options: Options) -> int:
    """How many spectra a file has; its pixels are not read."""
    with opened(path) as hdus:
        hdu = _chosen(hdus, options)
        if not _is_table(hdu):
            return 1 if options.rows else math.prod(_squeezed(hdu.shape)[:-1])
        name = spectra.find(hdu.columns.names, options.flux, spectra.FLUX, "flux")
        return len(hdu.data) if name and hdu.data.dtype[name].shape else 1


def load(path: str, options: Options, start: int, rows: int) -> Spectra:
    """Rows start:start + rows of the spectra of a file."""
    with opened(path) as hdus:
        hdu, part = _chosen(hdus, options), slice(start, start + rows)
        cards = {**_cards(hdus[0].header), **_cards(hdu.header)}
        if _is_table(hdu):
            return _from_table(hdus, hdu, cards, options, part)
        return _from_image(hdus, hdu, cards, options, part)


def _cards(header: Any) -> dict[str, Any]:
    return {key.upper(): header[key] for key in header if key not in ("", "COMMENT", "HISTORY")}


def _is_table(hdu: Any) -> bool:
    return type(hdu).__name__ in ("BinTableHDU", "TableHDU")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes without leading ones of length 1, as IRAF writes them."""
    return (*(size for size in shape[:-1] if size > 1), *shape[-1:])


def _chosen(hdus: Any, options: Options) -> Any:
    """The HDU of the flux: as the options say, else the first that looks like one."""
    if options.hdu != "":
        return _hdu(hdus, options.hdu, "hdu")
    for hdu in hdus:
        if _is_table(hdu):
            if spectra.find(hdu.columns.names, "", (options.flux.lower(), *spectra.FLUX), "flux"):
                return hdu
        elif hdu.is_image and len(hdu.shape) and math.prod(hdu.shape):
            return hdu
    raise RefusedError(
        Reason.MISSING_HDU,
        f"no image and no table with a column of flux (extensions: {_names(hdus)}); set "
        "survey.options.hdu and survey.options.flux",
    )


def _hdu(hdus: Any, which: int | str, option: str) -> Any:
    try:
        return hdus[which]
    except (KeyError, IndexError):
        raise RefusedError(
            Reason.MISSING_HDU,
            f"no extension {which!r} (there: {_names(hdus)}); set survey.options.{option}",
        ) from None


def _names(hdus: Any) -> str:
    return ", ".join(f"{number} {hdu.name}".strip() for number, hdu in enumerate(hdus))


def _from_table(hdus: Any, hdu: Any, cards: Cards, options: Options, part: slice) -> Spectra:
    names = hdu.columns.names
    name = spectra.find(names, options.flux, spectra.FLUX, "flux")
    many = name is not None and bool(hdu.data.dtype[name].shape)
    columns = {title: hdu.data[title][part] if many else hdu.data[title] for title in names}
    units = {column.name: column.unit or "" for column in hdu.columns}
    axis = None
    if spectra.find(names, "", (options.wavelength.lower(), *spectra.WAVELENGTH), "") is None:
        axis = _axis_beside(hdus, hdu, options, part)
    total = len(hdu.data) if many else 1
    found = spectra.from_columns(columns, units, cards, options, axis, total)
    return replace(found, columns={**_row_columns(hdus, options, part), **found.columns})


def _axis_beside(
    hdus: Any, hdu: Any, options: Options, part: slice
) -> tuple[Float, Scale, str] | None:
    """Wavelengths of an extension that is an image."""
    images = {other.name: other for other in hdus if other is not hdu and not _is_table(other)}
    name = spectra.find(images, options.wavelength, spectra.WAVELENGTH, "wavelength")
    if name is None:
        return None
    cards = _cards(images[name].header)
    primary = _cards(hdus[0].header)
    values = spectra.plain(images[name].data)
    return (
        values[part] if values.ndim == 2 else values,
        spectra.scale_of(name, primary | cards, options),
        str(cards.get("BUNIT", "")),
    )


def _from_image(hdus: Any, hdu: Any, cards: Cards, options: Options, part: slice) -> Spectra:
    data = hdu.data.reshape(_squeezed(hdu.shape))
    if options.rows:
        return _from_rows(data, cards, options)
    flux = spectra.plain(data if data.ndim == 1 else data[part])
    images = {other.name: other for other in hdus if not _is_table(other) and other is not hdu}
    error = spectra.find(images, options.uncertainty, spectra.UNCERTAINTY, "uncertainty")
    mask = spectra.find(images, options.mask, spectra.MASK, "mask")
    axis = _axis_beside(hdus, hdu, options, part) or _axis(cards, flux.shape[-1], options)
    return Spectra(
        wavelength=axis[0],
        scale=axis[1],
        wavelength_unit=axis[2],
        flux=np.atleast_2d(flux),
        flux_unit=str(cards.get("BUNIT", "")),
        uncertainty=None if error is None else spectra.plain(_beside(images[error], part)),
        kind=None if error is None else spectra.kind_of(error, options),
        uncertainty_unit="" if error is None else str(images[error].header.get("BUNIT", "")),
        mask=None if mask is None else spectra.bits(_beside(images[mask], part)),
        total=1 if data.ndim == 1 else len(data),
        cards=cards,
        columns=_row_columns(hdus, options, part),
    )


def _beside(hdu: Any, part: slice) -> Any:
    data = hdu.data.reshape(_squeezed(hdu.shape))
    return data[None] if data.ndim == 1 else data[part]


def _from_rows(data: Any, cards: Cards, options: Options) -> Spectra:
    """One spectrum of an image: its rows are flux, uncertainty ..."""
    table = data.reshape(-1, data.shape[-1])
    found = {}
    for what, row in options.rows.items():
        if not 0 <= row < len(table):
            raise RefusedError(
                Reason.MISSING_HDU,
                f"no row {row} ({what}) in an image of {len(table)} rows; set survey.options.rows",
            )
        found[what] = table[row]
    axis = None
    if "wavelength" not in found:
        axis = _axis(cards, data.shape[-1], options)
    units = {"flux": str(cards.get("BUNIT", ""))}
    asked = options.model_copy(update={"flux": "", "wavelength": "", "uncertainty": "", "mask": ""})
    return spectra.from_columns(found, units, cards, asked, axis)


def _row_columns(hdus: Any, options: Options, part: slice) -> Mapping[str, Any]:
    if options.rows_hdu == "":
        return {}
    table = _hdu(hdus, options.rows_hdu, "rows_hdu").data
    return {name.upper(): np.array(table[name][part]) for name in table.names}


def _axis(cards: Cards, size: int, options: Options) -> tuple[Float, Scale, str]:
    """Wavelengths, their scale and unit, of the header's first axis.

    Raises
    ------
    RefusedError
        When there is none.
    """
    start, step = _number(cards, "CRVAL1"), _number(cards, "CD1_1") or _number(cards, "CDELT1")
    if start is None or not step:
        start, step = _number(cards, "COEFF0"), _number(cards, "COEFF1")
        cards = {"CUNIT1": cards.get("CUNIT1", ""), "DC-FLAG": 1}
    if start is None or not step:
        raise RefusedError(
            Reason.BAD_GRID,
            "no wavelengths: no extension of them, and no CRVAL1 with CDELT1 or CD1_1; set "
            "survey.options.wavelength or survey.options.rows",
        )
    reference = _number(cards, "CRPIX1")
    offset = np.arange(size) + 1.0 - (1.0 if reference is None else reference)
    even = np.asarray(start + offset * step, dtype=np.float64)
    unit = str(cards.get("CUNIT1", "")).strip()
    kind = str(cards.get("CTYPE1", "")).strip().upper()
    if options.wavelength_scale:
        return even, options.wavelength_scale, unit
    if str(cards.get("DC-FLAG")) == "1" or kind in _LOG10:
        return even, "log10", unit
    if kind.endswith("-LOG"):
        # Greisen et al. 2006, equation 5: natural logarithm, the step is that at the reference.
        return np.asarray(start * np.exp(offset * step / start), np.float64), "linear", unit
    return even, "linear", unit


def _number(cards: Cards, key: str) -> float | None:
    try:
        return float(cards[key])
    except (KeyError, TypeError, ValueError):
        return None
