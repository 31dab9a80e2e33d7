"""Single populations of Bruzual & Charlot (2003) as GALAXEV writes them in ASCII.

Two kinds of file: a whole library of one metallicity (``*.ised_ASCII``: ages, wavelengths, then a
spectrum an age, each behind its count), and what ``galaxevpl`` takes out of one (columns: the
wavelength, and a flux an age). Fluxes are Lsun/A of a population born with 1 Msun.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from storage.grid import Float

SUFFIXES = (".ised_ASCII", ".spec")
SOLAR = 0.02
"Z of the Sun in these tracks (Padova 1994): [Z/H] = log10(Z / 0.02)."

# Of the names: bc2003_hr_m62_chab_ssp, bc2003_z020_chab_hr_stelib_ssp.
_NAMED = {"22": 1e-4, "32": 4e-4, "42": 4e-3, "52": 8e-3, "62": 0.02, "72": 0.05, "82": 0.1}
_IN_NAME = re.compile(r"(?:^|_)(?:m([2-8]2)|z(?:0\.)?(\d{2,4}))(?=[_.])")
_IN_TEXT = re.compile(r"\bZ\s*=\s*(0?\.\d+)")
# Where air and vacuum are one formula; what lies outside is never used.
_KEPT = (2400.0, 11500.0)
_MANY, _STEPS = 64, np.arange(6.0, 10.31, 0.1)
_COARSEST = 10.0

Population = tuple[float, float, Float, Float]
"Age (Gyr), [Z/H], wavelength (A, as the file has it), flux (Lsun/A)."


def read(path: str) -> list[Population]:
    """The populations of one file.

    Of more than 64 ages those nearest to every 0.1 dex from 1 Myr to 20 Gyr; age 0 is left out.

    Raises
    ------
    ValueError
        When the file is cut short or of another format, says no metallicity, or has too coarse
        pixels.
    """
    text = Path(path).read_text("ascii", errors="replace")
    columns = _library if path.endswith(SUFFIXES[0]) else _extracted
    head, ages, wavelength, flux = columns(path, text)
    metallicity = float(np.log10(_metallicity(path, head) / SOLAR))
    _check(path, wavelength, flux)
    kept = (wavelength >= _KEPT[0]) & (wavelength <= _KEPT[1])
    _check_pixels(path, wavelength[kept])
    return [
        (float(ages[k]) / 1e9, metallicity, wavelength[kept], flux[k, kept]) for k in _chosen(ages)
    ]


def _library(path: str, text: str) -> tuple[str, Float, Float, Float]:
    """Header, ages (A,) in years, wavelengths (W,) and fluxes (A, W) of an ised_ASCII file."""
    lines = text.splitlines()
    spoken = [k for k, line in enumerate(lines) if not _is_numbers(line)]
    if not spoken:
        raise ValueError(f"{path}: no header beside ages and wavelengths; is it an .ised_ASCII?")
    before, after = lines[: spoken[0]], lines[spoken[-1] + 1 :]
    # Ages stand before the header, as GALAXEV has it, or after it, as its heirs in Python do.
    # Behind the ages there are parameters of the model: the count says where those begin.
    records = [*islice(_records(path, before), 1), *_records(path, after)]
    if len(records) < 2 or not (records[0].size and records[1].size):
        raise ValueError(
            f"{path}: expected ages, a header and wavelengths, as in .ised_ASCII files"
        )
    ages, wavelength, *rest = records
    # Between two spectra there may be what the indices are fitted with: a short record.
    spectra = [record for record in rest if record.size == wavelength.size][: ages.size]
    if len(spectra) < ages.size:
        raise ValueError(
            f"{path}: {ages.size} ages but {len(spectra)} spectra of {wavelength.size} pixels; "
            "the file is cut short: convert it or fetch it again"
        )
    return "\n".join(lines[k] for k in spoken), ages, wavelength, np.stack(spectra)


def _extracted(path: str, text: str) -> tuple[str, Float, Float, Float]:
    """The same of a file of galaxevpl, whose header gives the ages above the columns."""
    head = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    table = np.loadtxt(path, comments="#", ndmin=2)
    count = table.shape[1] - 1
    for line in head:
        label, *words = line.replace("#", " ").replace("Age (yr)", "Age(yr)").split() or [""]
        if (
            label.startswith(("Age", "Lambda"))
            and len(words) == count
            and _is_numbers(" ".join(words))
        ):
            ages = np.array(words, float)
            return "\n".join(head), ages, table[:, 0], table[:, 1:].T
    raise ValueError(
        f"{path}: no line such as '# Lambda(A)  1.000E+09 ...' with {count} ages (yr) above its "
        f"{count} columns of flux; let galaxevpl write it, or name it otherwise if it is no .spec"
    )


def _records(path: str, lines: list[str]) -> Iterator[Float]:
    """Records of numbers, each behind its count, wherever the lines break."""
    numbers = np.array(" ".join(lines).split(), float)
    at = 0
    while at < numbers.size:
        count = int(numbers[at])
        if count < 0 or count != numbers[at]:
            raise ValueError(f"{path}: {numbers[at]:g} where a count of numbers should be")
        if at + 1 + count > numbers.size:
            return
        yield numbers[at + 1 : at + 1 + count]
        at += 1 + count


def _is_numbers(line: str) -> bool:
    try:
        [float(word) for word in line.split()]
    except ValueError:
        return False
    return True


def _metallicity(path: str, head: str) -> float:
    """Z from the file's name, or from what its header says of its input."""
    for name in (Path(path).name, *re.findall(r"(\S+)\.ised", head)):
        found = _IN_NAME.search(Path(name).name + ".")
        if found:
            return _NAMED[found[1]] if found[1] else float(f"0.{found[2]}")
    said = _IN_TEXT.search(head)
    if said is None or float(said[1]) <= 0:
        raise ValueError(
            f"{path}: neither its name (..._m62_... or ..._z020_...) nor its header (Z=0.02) says "
            "the metallicity; name it so"
        )
    return float(said[1])


def _check(path: str, wavelength: Float, flux: Float) -> None:
    if not (np.diff(wavelength) > 0).all():
        raise ValueError(f"{path}: its wavelengths do not ascend; a line is lost or there twice")
    if not np.isfinite(flux).all() or (flux < 0).any():
        raise ValueError(f"{path}: a flux is negative or no number; Lsun/A are >= 0")


def _check_pixels(path: str, wavelength: Float) -> None:
    near = wavelength[(wavelength > 4900) & (wavelength < 5600)]
    if near.size < 3:
        raise ValueError(f"{path}: no spectrum at 4900-5600 A, where templates are normalised")
    step = float(np.diff(near).max())
    if step > _COARSEST:
        raise ValueError(
            f"{path}: pixels of {step:g} A at 5000 A hold no lines; take the library of high "
            "resolution (_hr_)"
        )


def _chosen(ages: Float) -> list[int]:
    """Rows to keep, ascending in age."""
    alive = np.flatnonzero(ages > 0)
    if alive.size <= _MANY:
        return [int(k) for k in alive[np.argsort(ages[alive])]]
    away = np.abs(np.log10(ages[alive]) - _STEPS[:, None])
    return sorted({int(alive[k]) for k in away.argmin(axis=1)}, key=lambda k: float(ages[k]))
