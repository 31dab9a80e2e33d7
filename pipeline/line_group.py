"""The group of lines of an input: its shape, and what it says of its numbers."""

from typing import Any

import numpy as np
import xarray as xr

from pipeline.errors import ErrorKind
from pipeline.flags import bits
from pipeline.inputs import Input
from pipeline.line_templates import LineTemplates
from pipeline.lines.fit import LineFlag
from pipeline.lines.line_list import LINES
from pipeline.lines.templates import ANALYTIC
from pipeline.product import loaded
from storage.dust import Law
from storage.schema import FLUX_UNIT, LEDGER, Field, template

DUST: Law = "F99"
"Law by which observed spectra are dereddened, with R_V 3.1; framed ones are by their frame."
LINE_UNIT = FLUX_UNIT.removesuffix(" Angstrom-1")
"Of line fluxes."

_CELL = ("spectrum", "line")


def _cell(units: str, description: str) -> Field:
    return Field(dtype="f4", units=units, dims=_CELL, description=description)


_FIELDS = {
    "flux": _cell(LINE_UNIT, "flux of the line, emission positive, dereddened"),
    "flux_err": _cell(LINE_UNIT, "one standard deviation"),
    "ew": _cell("Angstrom", "equivalent width at rest, emission positive"),
    "ew_err": _cell("Angstrom", "one standard deviation"),
    "sigma": _cell("km/s", "width, Gaussian sigma"),
    "sigma_err": _cell("km/s", "one standard deviation; NaN where not fitted"),
    "velocity": _cell("km/s", "velocity relative to z"),
    "velocity_err": _cell("km/s", "one standard deviation; NaN where not fitted"),
    "continuum": _cell(FLUX_UNIT, "starlight under the line"),
    "limit": _cell(LINE_UNIT, "upper limit, three errors, where the line is not detected"),
    "flag": Field(dtype="u2", units="1", dims=_CELL, description="what to know of the line, bits"),
    "chi2": Field(dtype="f4", units="1", description="chi square per pixel of starlight"),
    "vdisp": Field(dtype="f4", units="km/s", description="velocity dispersion of starlight"),
    "error_kind": Field(
        dtype="u1",
        units="1",
        description="where the errors are from; draws of lines are bare, not calibrated on a mock",
        codes=ErrorKind,
    ),
    **LEDGER,
}


def lines(n: int) -> xr.Dataset:
    """The shape of a group of lines of n rows; of values that are not there, which are NaN."""
    made = template(n, None, _FIELDS, {"line": len(LINES)})
    for name, field in _FIELDS.items():
        if field.dims == _CELL and field.dtype == "f4":
            # Unlike a pixel, a line that was not measured is not zero.
            made[name].data = np.broadcast_to(np.float32(np.nan), made[name].shape)
    made["flag"].attrs |= bits(LineFlag)
    words = np.array([line.name for line in LINES], np.dtypes.StringDType())
    said = {"units": "1", "long_name": "name of the line"}
    return made.assign_coords(line=("line", words, said))


def about(given: Input, stars: LineTemplates) -> dict[str, Any]:
    """Attributes that say what the numbers of a group are."""
    frame = loaded(given.checkpoint).frame if given.checkpoint else given.frame
    sharp = given.checkpoint or (given.group.startswith("spectra/") and given.variable == "flux")
    return {
        "wavelengths": {line.name: line.wavelength for line in LINES},
        "templates": stars.files or ANALYTIC,
        "templates_digest": stars.digest,
        "dust": DUST if frame is None else frame.dust or "",
        "sigma_is": "the line's own, but for flag as_observed" if sharp else "as observed",
    }
