"""WEAVE L1 files: what their names and headers say of product, run, arm and configuration.

After the data model (version 8) and the L2 software that the survey publishes; see docs/weave.md.
Extensions are found by their names, one arm is in a file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from storage.border import RefusedError
from storage.fits import FitsError
from storage.fits_scan import Hdu, headers
from storage.fits_unpack import open_file
from storage.grid import Grid
from storage.schema import Reason

Product = Literal["single", "stack", "superstack", "supertarget"]

GRIDS: dict[str, Grid] = {
    "weave-lr-blue": Grid(kind="linear", start=3660.0, step=0.25, size=9601),
    "weave-lr-red": Grid(kind="linear", start=5790.0, step=0.25, size=15201),
    "weave-hr-blue": Grid(kind="linear", start=4040.0, step=0.05, size=12201),
    "weave-hr-green": Grid(kind="linear", start=4730.0, step=0.05, size=14401),
    "weave-hr-red": Grid(kind="linear", start=5950.0, step=0.05, size=18001),
}
"Design coverage of each arm, in the pixels that the files have, but in vacuum; A."
MOST_ROWS = 100_000
"Fibres that a file may have; the instrument has 960."
_BROAD = 1500.0
"Low resolution covers 2400 A and more, high resolution 900 A and less."
_BLUE_ENDS = 4690.0
"Between the high-resolution blue and green; A."

NAMES = re.compile(
    r"(?:(single|stack|superstack)(?:ed)?_([0-9A-Za-z]+)|(WVE_[0-9]+[+-][0-9]+_[0-9A-Za-z]+))"
    r"\.fits?(?:\.gz)?"
)
"Of L1 files of spectra; cubes are none."
_ARMS = ("BLUE", "GREEN", "RED")


@dataclass(frozen=True, kw_only=True)
class Name:
    """What the name of a file says."""

    product: Product
    "single: one exposure; stack: one block; superstack: several; supertarget: all of one target."
    run: str
    "The run, the first one of a stack; of a supertarget the target and its setup."


def named(path: str) -> Name | None:
    """What the name of an L1 file says; None where it is no such name."""
    match = NAMES.fullmatch(Path(path).name)
    if match is None:
        return None
    if match[3]:
        return Name(product="supertarget", run=match[3])
    product: Product = (
        "single" if match[1] == "single" else "stack" if match[1] == "stack" else "superstack"
    )
    return Name(product=product, run=match[2])


def glance(path: str, most: int | None = None) -> tuple[Hdu, ...]:
    """HDUs of a file as far as its headers can be read, whether or not their data are there."""
    found: list[Hdu] = []
    try:
        with open_file(path) as file:
            found.extend(islice(headers(file), most))
    except (OSError, FitsError):
        pass
    return tuple(found)


def extension(hdus: Sequence[Hdu], name: str) -> Hdu:
    """The extension of a name.

    Raises
    ------
    RefusedError
        When there is none; says which there are.
    """
    for hdu in hdus:
        if hdu.name == name:
            return hdu
    there = ", ".join(hdu.name or "unnamed" for hdu in hdus[1:]) or "none"
    raise RefusedError(
        Reason.MISSING_HDU, f"no extension {name} (there: {there}); fetch the file again"
    )


def arm_of(hdus: Sequence[Hdu]) -> str:
    """BLUE, GREEN or RED: the arm of which there is a <ARM>_DATA.

    Raises
    ------
    RefusedError
        When there is none, or more than one.
    """
    names = {hdu.name for hdu in hdus}
    arms = [arm for arm in _ARMS if f"{arm}_DATA" in names]
    if len(arms) == 1:
        return arms[0]
    there = ", ".join(hdu.name or "unnamed" for hdu in hdus[1:]) or "none"
    raise RefusedError(
        Reason.MISSING_HDU,
        f"expected one of BLUE_DATA, GREEN_DATA, RED_DATA (there: {there}); L1 files have one "
        "arm each: fetch the file again, or leave it out",
    )


def config_of(hdus: Sequence[Hdu]) -> str:
    """The configuration that a file belongs to.

    Raises
    ------
    RefusedError
        As `arm_of`.
    """
    arm = arm_of(hdus)
    data = extension(hdus, f"{arm}_DATA")
    grating, mode = (_text(hdus[0], data, key) for key in ("VPH", "MODE"))
    first, last = _ends(data)
    if "LOW" in grating + mode or grating == "1":
        high = False
    elif "HIGH" in grating + mode or grating in ("2", "3"):
        high = True
    else:
        high = last - first < _BROAD
    if not high:
        return f"weave-lr-{'red' if arm == 'RED' else 'blue'}"
    numbered = re.search(r"HIGHRES([12])", grating)
    green = (
        numbered[1] == "2"
        if numbered
        else grating == "3" or (grating != "2" and (first + last) / 2 > _BLUE_ENDS)
    )
    return f"weave-hr-{'red' if arm == 'RED' else 'green' if green or arm == 'GREEN' else 'blue'}"


def _text(primary: Hdu, data: Hdu, key: str) -> str:
    return (primary.value(key) or data.value(key) or "").replace(" ", "").upper()


def _ends(data: Hdu) -> tuple[float, float]:
    """Rough ends of the axis; 0, 0 where they cannot be read."""
    try:
        first, step = (float(data.value(key) or "") for key in ("CRVAL1", "CD1_1"))
    except ValueError:
        return 0.0, 0.0
    return first, first + step * (data.image[-1] if data.image else 0)


def table_rows(hdus: Sequence[Hdu]) -> int:
    """Rows of FIBTABLE; 1 where they cannot be told: one row says why."""
    for hdu in hdus:
        if hdu.name == "FIBTABLE" and hdu.kind == "BINTABLE" and 0 < hdu.shape[0] <= MOST_ROWS:
            return hdu.shape[0]
    return 1
