"""WEAVE L1 and L2 files made with astropy, as the published data model has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from storage import schema
from storage.readers import weave

START, STEP, PIXELS = 5000.0, 0.25, 401
FIBRES = 6
SENSITIVITY = 3e-17
"Flux of a count, erg/s/cm2/A."


def cname(number: int) -> str:
    return f"WVE_1000{number:04d}+0200000"


def counts(fibres: int = FIBRES, pixels: int = PIXELS) -> NDArray[np.float32]:
    """Counts of image row r: 100 (r + 1), with a slope."""
    row = np.arange(1, fibres + 1)[:, None]
    return (100 * row + np.linspace(0, 10, pixels)).astype("f4")


def fibtable(**columns: Any) -> fits.BinTableHDU:
    """Fibres in the order of the images, unless columns say otherwise."""
    nspec = np.asarray(columns.get("Nspec", np.arange(1, FIBRES + 1)))
    n = len(nspec)
    found: dict[str, Any] = {
        "FIBREID": 100 + nspec,
        "CNAME": [cname(number) for number in nspec],
        "TARGID": [f"target {number}" for number in nspec],
        "STATUS": ["A"] * n,
        "TARGUSE": ["T"] * n,
        "TARGRA": 150.0 + nspec,
        "TARGDEC": 2.0 + 0.1 * nspec,
        "FIBRERA": 250.0 + nspec,
        "FIBREDEC": -2.0 + 0.1 * nspec,
        "Nspec": nspec,
    } | columns
    forms = {"i": "J", "f": "D"}
    return fits.BinTableHDU.from_columns(
        [
            fits.Column(
                name,
                f"{max(array.dtype.itemsize // 4, 1)}A"
                if (array := np.asarray(values)).dtype.kind == "U"
                else forms[array.dtype.kind],
                array=array,
            )
            for name, values in found.items()
            if values is not None
        ],
        name="FIBTABLE",
    )


def l1(
    path: Path,
    arm: str = "BLUE",
    axis: Mapping[str, Any] | None = None,
    primary: Mapping[str, Any] | None = None,
    table: fits.BinTableHDU | None = None,
    without: tuple[str, ...] = (),
    units: Mapping[str, str] | None = None,
    **images: NDArray[Any],
) -> Path:
    """Write an L1 file; images DATA, IVAR, SENSFUNC replace the ordinary ones."""
    data = images.get("DATA", counts())
    shape = data.shape
    found = {
        "DATA": data,
        "IVAR": images.get("IVAR", np.full(shape, 0.25, "f4")),
        "DATA_NOSS": data + 7,
        "SENSFUNC": images.get("SENSFUNC", np.full(shape, SENSITIVITY, "f4")),
    }
    header = fits.Header(
        {"OBSMODE": "MOS", "CAMERA": f"WEAVE{arm}", "VPH": "LowRes", "MJD-OBS": 60234.5}
        | dict(primary or {})
    )
    hdus = [fits.PrimaryHDU(header=header)]
    for name, image in found.items():
        cards = {"CTYPE1": "WAVE", "CRVAL1": START, "CRPIX1": 1.0, "CD1_1": STEP} | dict(axis or {})
        if units and name in units:
            cards["BUNIT"] = units[name]
        known = {key: value for key, value in cards.items() if value is not None}
        hdus.append(fits.ImageHDU(image, fits.Header(known), name=f"{arm}_{name}"))
    hdus.append(fibtable() if table is None else table)
    kept = [hdu for hdu in hdus if hdu.name.removeprefix(f"{arm}_") not in without]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(kept).writeto(path)
    return path


def l2(path: Path, suffix: str = "", name: str = "CLASS_TABLE", **columns: Any) -> Path:
    """Write an L2 file with a table of redshifts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [
        fits.Column(
            title if title in ("CNAME", "TARGID") else f"{title}{suffix}",
            {"U": "24A", "i": "J", "f": "D"}[np.asarray(values).dtype.kind],
            array=np.asarray(values),
        )
        for title, values in columns.items()
    ]
    table = fits.BinTableHDU.from_columns(made, name=name)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, checksum=True)
    return path


def redshifts(order: np.ndarray) -> dict[str, object]:
    return {
        "CNAME": [cname(number) for number in order],
        "Z": 0.1 * order,
        "ZERR": 1e-4 * order,
        "ZWARN": order % 2,
        "CLASS": np.array(["STAR", "GALAXY", "QSO_HIZ"])[order % 3],
        "SUBCLASS": [""] * len(order),
    }


def load(root: Path, config: str = "weave-lr-blue", **options: Any) -> xr.Dataset:
    """All rows below a folder."""
    reader = weave.build(**options)
    parts = [reader.read(source, str(root), config) for source in reader.find(str(root), config)]
    return schema.check(xr.concat(parts, "spectrum", data_vars="minimal", join="exact"))


def inside(ds: xr.Dataset, name: str = "flux") -> NDArray[np.float32]:
    """Pixels of the ordinary axis, of a file that has it in vacuum."""
    first = round((START - float(ds["wavelength"][0])) / STEP)
    return ds[name].to_numpy()[:, first : first + PIXELS]
