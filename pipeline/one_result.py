"""The result of a file: a FITS table and a picture, and what is said of them at the terminal."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline import route, spectra_table
from pipeline.columns import flagged
from pipeline.errors import ErrorKind
from pipeline.index import Flag
from pipeline.one_files import Known
from pipeline.one_indices import DENOISED, RAW, names_of
from pipeline.product import ABOVE_CEILING, EXTRAPOLATED, MISFIT, loaded
from storage.provenance import provenance
from storage.schema import ObjectType, Status

SUFFIX = ".denoised.fits"
FEW = 12
"Spectra of a file whose indices are printed, and that are drawn."


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of one file."""

    known: Known
    "The file."
    chosen: route.Chosen
    "The model, and its verdict."
    product: xr.Dataset
    "As `pipeline.one_product.product_of` gives it."
    paths: tuple[str, ...]
    "Files that were written; none where nothing was denoised."
    seconds: float
    "To read, denoise and measure."

    @property
    def failed(self) -> int:
        """Spectra that have no denoised flux and should have: all but sky fibres."""
        sky = self.product["object_type"].to_numpy() == ObjectType.SKY
        status = self.product["status"].to_numpy()
        return int(((status != Status.DONE) & ~(sky & (status == Status.NOT_APPLICABLE))).sum())


def written(
    known: Known,
    chosen: route.Chosen,
    product: xr.Dataset,
    target: Path,
    *,
    z: float | None = None,
    figure: bool = True,
) -> tuple[str, ...]:
    """Write a product as FITS, and its picture; gives their paths, none where nothing was denoised.

    Extension SPECTRA has a row a spectrum, WAVELENGTH the pixels of all; the header says where
    they are from.

    z : the redshift that was given in place of the file's, if one was.
    """
    if not (product["status"] == Status.DONE).any():
        return ()
    about = _about(known, chosen, z)
    pixels = [str(name) for name, v in product.data_vars.items() if "wavelength" in v.dims]
    left = {*pixels, "latent_cov"}
    names = [str(name) for name in product.data_vars if name not in left]
    with _whole(target) as partial:
        spectra_table.write(product, names, partial, about, spectra=True)
    if not figure:
        return (str(target),)
    from pipeline.one_figure import picture

    image = target.with_suffix(".png")
    with _whole(image) as partial:
        partial.write_bytes(picture(product, loaded(chosen.path), chosen.verdict))
    return str(target), str(image)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A file in the making, which has its name when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _about(known: Known, chosen: route.Chosen, z: float | None) -> dict[str, str]:
    """Header cards: where the spectra are from, and what was done with them."""
    model = loaded(chosen.path)
    found = {
        "model": model.label,
        "digest": model.digest,
        "verdict": chosen.verdict,
        "frame": model.frame.label,
        "axis": "rest" if model.frame.rest else "observed",
        "medium": "vacuum",
        "dust": f"{model.frame.dust} taken out" if model.frame.dust else "left in",
        "flagbits": f"{EXTRAPOLATED} extrapolated, {ABOVE_CEILING} above_ceiling, {MISFIT} misfit",
        "idxbits": _meanings(Flag),
        "errkinds": _meanings(ErrorKind),
        "reader": f"{known.name}, {known.config}",
        "source": str(known.path),
        **({} if z is None else {"zgiven": f"{z!r}"}),
    }
    code, packages, platform = provenance().values()
    found |= {"code": code, "packages": packages, "platform": platform}
    return {key: text.encode("ascii", "replace").decode() for key, text in found.items()}


def _meanings(codes: type[IntEnum] | type[IntFlag]) -> str:
    return ", ".join(f"{code.value} {str(code.name).lower()}" for code in codes)


def said(made: Made) -> Iterator[str]:
    """What became of a file, in words: a line or two a spectrum, and what was written."""
    product, n = made.product, made.product.sizes["spectrum"]
    of = f"{n} of {made.known.rows} spectra, reader {made.known.name}"
    yield f"{made.known.path}: {of}; {made.chosen.name}, verdict {made.chosen.verdict}"
    columns = {str(name): product[name].to_numpy() for name in product if product[name].ndim == 1}
    marks = flagged(product["flag"])
    done = product["status"].to_numpy() == Status.DONE
    for place in range(n):
        row = {name: values[place] for name, values in columns.items()}
        yield f"  {_line(row, marks[place])}"
        if done[place] and n <= FEW:
            yield from (f"    {line}" for line in _indices(row))
    doubted = done & (product["flag"].to_numpy() > 0)
    took = f"{1e3 * made.seconds / max(n, 1):.0f} ms a spectrum"
    yield f"  {done.sum()} of {n} denoised, {doubted.sum()} of them flagged; {took}"
    if any("survey.options" in str(reason) for reason in columns["reason"]):
        yield "  survey.options are given by --reader NAME --set survey.options.KEY=VALUE"
    yield from (f"  -> {path}" for path in made.paths)


def _line(row: Mapping[str, Any], marks: str) -> str:
    """One spectrum: what it is, and what to know of it."""
    name = row["observation"] or f"{row['source']} row {row['source_row']}"
    if row["status"] == Status.QUARANTINED:
        return f"{name}: quarantined: {row['reason']}"
    head = f"{name}: z {row['z']:.5g}, S/N(g) {row['snr_g']:.3g}"
    if row["status"] != Status.DONE:
        return f"{head}: not denoised: {row['reason'] or 'a sky fibre'}"
    doubt = f"{marks} ({row['reason']})" if row["reason"] else marks
    dust = "" if row["ebv_known"] else ", E(B-V) unknown and taken as 0"
    return f"{head}, misfit {row['misfit']:.2f}: {doubt or 'no flag'}{dust}"


def _indices(row: Mapping[str, Any]) -> Iterator[str]:
    """Each index that has a value: as it was seen, and denoised."""
    for name in names_of(row):
        if np.isfinite(row[f"{DENOISED}.{name}"]):
            own, raw = (
                _value(row[f"{said}.{name}"], row[f"{said}.{name}_error"])
                for said in (DENOISED, RAW)
            )
            kind = ErrorKind(row[f"{DENOISED}.{name}_error_kind"]).name.lower().replace("_", " ")
            yield f"{name}: denoised {own} ({kind}), raw {raw}"


def _value(value: float, error: float) -> str:
    return f"{value:.3f} +- {error:.3f}" if np.isfinite(error) else f"{value:.3f} with no error"
