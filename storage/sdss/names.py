"""Names of SDSS spectra: of their files, and in the survey.

Up to SDSS-IV a spectrum is `PLATE-MJD-FIBER`, plates of 4 or 5 digits; in SDSS-V it is
`FIELD-MJD-CATALOGID`, fields of 6 digits, the catalogue's number with or without leading zeros.
"""

import os
import re
from pathlib import Path

FILE = re.compile(r"spec-([0-9]{4,6})-([0-9]{5})-([0-9]{4,19})\.fits(\.gz)?")
"Whole name of a spec file. Drafts of a writer that died begin with a dot and are none."

_FIBER_DIGITS = 4


def observation(plate: int, mjd: int, fiber: int) -> str:
    """The name of a spectrum up to SDSS-IV.

    Examples
    --------
    >>> observation(266, 51602, 13)
    '0266-51602-0013'
    """
    return f"{plate:04d}-{mjd:05d}-{fiber:04d}"


def observation5(field: int, mjd: int, catalogid: int) -> str:
    """The name of a spectrum of SDSS-V; the same for files of all its releases.

    Examples
    --------
    >>> observation5(15143, 59205, 4544940698)
    '015143-59205-4544940698'
    """
    return f"{field:06d}-{mjd:05d}-{catalogid}"


def of_file(path: str) -> str:
    """The name of the spectrum in a file, from the file's name; empty where that says nothing.

    Examples
    --------
    >>> of_file("lite/spec-015143-59205-04544940698.fits")
    '015143-59205-4544940698'
    """
    match = FILE.fullmatch(Path(path).name)
    if match is None:
        return ""
    name = observation5 if len(match[3]) > _FIBER_DIGITS else observation
    return name(int(match[1]), int(match[2]), int(match[3]))


def plate_mjd_fiber(name: str) -> tuple[int, int, int]:
    """The numbers of a spectrum up to SDSS-IV.

    Raises
    ------
    ValueError
        When it is named otherwise.
    """
    match = re.fullmatch(r"([0-9]{1,6})-([0-9]{5})-([0-9]{1,4})", name)
    if match is None:
        raise ValueError(
            f"observation {name!r} is not plate-mjd-fiber; expected such as '0266-51602-0013'"
        )
    return int(match[1]), int(match[2]), int(match[3])


def leads_out(path: str, root: str) -> bool:
    """Whether a path is not below root; links count for what they are called.

    Examples
    --------
    >>> leads_out("/data/26/../../etc/spec.fits", "/data")
    True
    """
    return Path(os.path.relpath(path, root)).parts[:1] == (os.pardir,)
