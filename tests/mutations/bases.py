"""Sound surveys, as small as can be: what is damaged, and the rows that its readers find."""

import gzip
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from storage import schema
from storage.reader import Reader, Source
from storage.readers import desi, sdss, weave
from tests.mutations.damage import Form
from tests.storage import desi_mock, sdss_mock, table_mock, weave_mock

Rows = dict[str, NDArray[Any]]
Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The files of a survey, and what is in them."""

    files: dict[str, bytes] = field(repr=False)
    "By their names below the root."
    rows: dict[Key, Rows] = field(repr=False)
    "Values by the file and its row."


@dataclass(frozen=True, kw_only=True)
class Base:
    """A reader, and how its files are made."""

    reader: Reader
    config: str
    make: Callable[[Path], Any]
    "Writes a survey below a folder."
    unsaid: tuple[str, ...] = ()
    "Kinds of damage that leave a whole file of this survey, of fewer spectra or arms."

    def survey(self, form: Form) -> Survey:
        """The sound survey, stored plainly, with checksums, or in gzip."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            self.make(root)
            paths = sorted(path for path in root.rglob("*") if path.is_file())
            for path in paths:
                _store(path, form)
            files = {
                str(path.relative_to(root)): path.read_bytes()
                for path in sorted(root.rglob("*"))
                if path.is_file()
            }
            found = read(self.reader, [*self.reader.find(folder, self.config)], folder, self.config)
        done = {key: row for key, row in found.items() if row["status"] == schema.Status.DONE}
        assert done.keys() == found.keys(), [row["reason"] for row in found.values()]
        return Survey(files=files, rows=found)


def _store(path: Path, form: Form) -> None:
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            for key in ("CHECKSUM", "DATASUM"):
                hdu.header.remove(key, ignore_missing=True)
        hdus.writeto(path, overwrite=True, checksum=form == "summed")
    if form == "packed":
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1, mtime=0))
        path.unlink()


def read(reader: Reader, sources: list[Source], root: str, config: str) -> dict[Key, Rows]:
    """All rows of sources; what the contract of readers says of them holds."""
    found: dict[Key, Rows] = {}
    for source in sources:
        ds = schema.check(reader.read(source, root, config), source.files[0])
        assert ds.sizes["spectrum"] == source.rows, f"{source.rows} rows became {dict(ds.sizes)}"
        columns = {
            str(name): variable.to_numpy()
            for name, variable in ds.data_vars.items()
            if variable.dims[:1] == ("spectrum",)
        }
        for row in range(source.rows):
            values = {name: column[row] for name, column in columns.items()}
            key = str(values["source"]), int(values["source_row"])
            assert key not in found, f"{key} came twice"
            found[key] = values
    return found


def spec_files(root: Path) -> None:
    ds = sdss_mock.mock(2)
    # The spectrum of 200 pixels that is left makes a file of 40 kB.
    for name in sdss_mock.PIXELS:
        ds[name].to_numpy()[:, :900] = 0
        ds[name].to_numpy()[:, 1100:] = 0
    sdss_mock.SDSS.write(ds, str(root), "sdss")


def _sdss_fifth(root: Path) -> None:
    spec_files(root)
    sdss_mock.fifth(root)


def _exposures(root: Path) -> None:
    spec_files(root)
    for path in sorted(root.rglob("spec-*.fits"))[:1]:
        sdss_mock.cameras(path, {"00012345": 1, "00012346": 2})


def _desi(root: Path) -> None:
    desi_mock.survey(root, 3)


def _desi_exposures(root: Path) -> None:
    name = "spectra-main-dark-9.fits"
    desi_mock.save(root, desi_mock.arms(3), desi_mock.fibermap(3), name, compressed=True)
    desi_mock.redrock(root, desi_mock.redshifts(3), name)


def _weave(root: Path) -> None:
    data = weave_mock.counts(3, 201)
    table = weave_mock.fibtable(
        **{
            "Nspec": np.arange(1, 4),
            "CNAME": [weave_mock.cname(n) for n in (1, 2, 3)],
            # Where a target has no place, that of its fibre is as good.
            "FIBRERA": 150.0 + np.arange(1, 4),
            "FIBREDEC": 2.0 + 0.1 * np.arange(1, 4),
        }
    )
    weave_mock.l1(root / "stack_1002046.fit", table=table, DATA=data)
    weave_mock.l2(
        root / "stack_1002046__stack_1002045_APS.fits",
        CNAME=[weave_mock.cname(n) for n in (1, 2, 3)],
        TARGID=["target 1", "target 2", "target 3"],
        Z=[0.1, 0.2, 0.3],
        ZERR=[1e-4] * 3,
        ZWARN=[0, 4, 0],
        CLASS=["GALAXY", "QSO", "STAR"],
        SUBCLASS=["", "HIZ", "K"],
    )


def _table(root: Path) -> None:
    table_mock.write_table(root / "column.fits", table_mock.columns())
    wave, vacuum = table_mock.axis()
    cards = {"CRVAL1": wave[0], "CDELT1": wave[1] - wave[0], "CTYPE1": "WAVE", "CUNIT1": "Angstrom"}
    flux = [table_mock.density(vacuum), table_mock.density(vacuum) + 1]
    ivar = np.full_like(flux, 4.0, dtype="f4")
    table_mock.write_image(
        root / "image.fits", flux, ("IVAR", ivar), BUNIT="1E-17 erg/(s cm2 Angstrom)", **cards
    )


_FEWER = ("cut short at a block", "an extension dropped", "an extension without its name")
_BASES: dict[str, Callable[[], Base]] = {
    "sdss": lambda: Base(reader=sdss.build(), config="sdss", make=_sdss_fifth),
    "sdss-exposure": lambda: Base(
        reader=sdss.build(), config="sdss-exposure", make=_exposures, unsaid=_FEWER
    ),
    "desi": lambda: Base(reader=desi.build(), config="desi", make=_desi, unsaid=_FEWER[:1]),
    "desi-exposure": lambda: Base(
        reader=desi.build(resolution="diagonals"),
        config="desi-exposure",
        make=_desi_exposures,
        unsaid=_FEWER[:1],
    ),
    "weave": lambda: Base(reader=weave.build(), config="weave-lr-blue", make=_weave),
    "table": lambda: Base(
        reader=table_mock.reader(uncertainty_unit="same"), config="table", make=_table
    ),
}
NAMES = tuple(_BASES)


@cache
def base(name: str) -> Base:
    """The base of a reader; of one that is not ours `module:function`, which makes it."""
    if name in _BASES:
        return _BASES[name]()
    module, _, function = name.partition(":")
    made: Base = getattr(import_module(module), function)()
    return made


@cache
def survey(name: str, form: Form) -> Survey:
    """The sound survey of a base; made once in a process."""
    return base(name).survey(form)
