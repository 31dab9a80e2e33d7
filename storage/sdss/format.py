"""The SDSS spec file: its tables, its mask bits, its lines; and a file made of a row's values.

Columns, their order and types are those of the legacy files (DR8 and later). EXTINCTION is the
one that BOSS files add: there it tells E(B-V).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.fits_write import card, primary, table
from storage.schema import ObjectType

Values = dict[str, Any]

EBV_PER_EXTINCTION_R = 1 / 2.751
"E(B-V) for one magnitude of EXTINCTION[2], r (Stoughton et al. 2002, table 22)."

BAD = np.uint32(1 << 18 | 1 << 23 | 1 << 24)
"and_mask bits of pixels without data: FULLREJECT, BRIGHTSKY, NODATA."

COADD = np.dtype(
    [
        *(("flux", ">f4"), ("loglam", ">f4"), ("ivar", ">f4"), ("and_mask", ">i4")),
        *(("or_mask", ">i4"), ("wdisp", ">f4"), ("sky", ">f4"), ("model", ">f4")),
    ]
)

SPECOBJ = np.dtype(
    [
        *(("SURVEY", "S16"), ("INSTRUMENT", "S4"), ("PROGRAMNAME", "S23")),
        *(("PLATEQUALITY", "S8"), ("SPECPRIMARY", "u1")),
        *(("BESTOBJID", "S19"), ("SOURCETYPE", "S19"), ("TARGETTYPE", "S8")),
        *(("OBJTYPE", "S16"), ("PLATE", ">i4"), ("MJD", ">i4"), ("FIBERID", ">i4")),
        *(("PLUG_RA", ">f8"), ("PLUG_DEC", ">f8"), ("CLASS", "S6"), ("SUBCLASS", "S21")),
        *(("Z", ">f4"), ("Z_ERR", ">f4"), ("VDISP", ">f4"), ("VDISP_ERR", ">f4")),
        *(("WAVEMIN", ">f4"), ("WAVEMAX", ">f4"), ("ZWARNING", ">i4")),
        *(("SN_MEDIAN_ALL", ">f4"), ("SN_MEDIAN", ">f4", (5,)), ("EXTINCTION", ">f4", (5,))),
    ]
)

SPZLINE = np.dtype(
    [
        *(("PLATE", ">i4"), ("MJD", ">i4"), ("FIBERID", ">i4"), ("LINENAME", "S13")),
        *(("LINEWAVE", ">f8"), ("LINEZ", ">f4"), ("LINEZ_ERR", ">f4"), ("LINESIGMA", ">f4")),
        *(("LINESIGMA_ERR", ">f4"), ("LINEAREA", ">f4"), ("LINEAREA_ERR", ">f4")),
        *(("LINEEW", ">f4"), ("LINEEW_ERR", ">f4"), ("LINECONTLEVEL", ">f4")),
        *(("LINECONTLEVEL_ERR", ">f4"), ("LINENPIXLEFT", ">i4"), ("LINENPIXRIGHT", ">i4")),
        *(("LINEDOF", ">f4"), ("LINECHI2", ">f4")),
    ]
)

LINES: dict[str, float] = {
    "Ly_alpha": 1215.67,
    "N_V 1240": 1240.81,
    "C_IV 1549": 1549.48,
    "He_II 1640": 1640.42,
    "C_III] 1908": 1908.734,
    "Mg_II 2799": 2800.3151837,
    "[O_II] 3725": 3727.0917268,
    "[O_II] 3727": 3729.875448,
    "[Ne_III] 3868": 3869.8567972,
    "H_epsilon": 3890.1510799,
    "[Ne_III] 3970": 3971.1231872,
    "H_delta": 4102.8916309,
    "H_gamma": 4341.6843127,
    "[O_III] 4363": 4364.4353004,
    "He_II 4685": 4686.9914442,
    "H_beta": 4862.6829937,
    "[O_III] 4959": 4960.2949015,
    "[O_III] 5007": 5008.2396377,
    "He_II 5411": 5413.0244226,
    "[O_I] 5577": 5578.8877038,
    "[O_I] 6300": 6302.0463767,
    "[S_III] 6312": 6313.8055329,
    "[O_I] 6363": 6365.5354196,
    "[N_II] 6548": 6549.8589293,
    "H_alpha": 6564.6138943,
    "[N_II] 6583": 6585.2684453,
    "[S_II] 6716": 6718.2942081,
    "[S_II] 6730": 6732.6780763,
    "[Ar_III] 7135": 7137.7571033,
}
"The lines that the survey's pipeline fits: name, vacuum A."

# u, g, r, i, z per unit E(B-V) (Stoughton et al. 2002, table 22).
_EXTINCTION = np.array([5.155, 3.793, 2.751, 2.086, 1.479])
_BANDS = ((3000, 4000), (4000, 5400), (5600, 6900), (6900, 8200), (8200, 10400))


def spec_file(row: Values, plate: int, mjd: int, fiber: int, loglam: NDArray[Any]) -> bytes:
    """The bytes of a spec file.

    Parameters
    ----------
    row : dict
        One value for every variable of `storage.schema.SPECTRA`; pixels are (L,).
    loglam : (L,) float
        log10 of vacuum A.

    Raises
    ------
    ValueError
        When no pixel has data or a mask bit, or a text is longer than its column.
    """
    values = {"PLATE": plate, "MJD": mjd, "FIBERID": fiber, **_specobj_values(row)}
    coadd = _coadd(row, loglam)
    return (
        primary(_cards(values, coadd))
        + table("COADD", coadd)
        + table("SPECOBJ", _specobj(values, coadd))
        + table("SPZLINE", _spzline(values))
    )


def _coadd(row: Values, loglam: NDArray[Any]) -> NDArray[np.void]:
    covered = np.flatnonzero((row["ivar"] > 0) | (row["mask"] != 0))
    if not covered.size:
        raise ValueError(f"{row['observation']}: no pixel has data; leave the row out")
    pixels = slice(covered[0], covered[-1] + 1)
    coadd = np.zeros(covered[-1] + 1 - covered[0], dtype=COADD)
    coadd["loglam"] = loglam[pixels]
    for name in ("flux", "ivar", "model"):
        coadd[name] = row[name][pixels]
    coadd["wdisp"] = row["lsf"][pixels]
    coadd["and_mask"] = coadd["or_mask"] = row["mask"][pixels].view("i4")
    return coadd


def _specobj_values(row: Values) -> Values:
    kind = ObjectType(row["object_type"])
    target = {ObjectType.SKY: "SKY", ObjectType.STANDARD: "SPECTROPHOTO_STD"}
    source = target.get(kind, str(row["class"]) or "GALAXY")
    return {
        **{"SURVEY": row["survey"] or "sdss", "INSTRUMENT": "SDSS", "PROGRAMNAME": "mock"},
        **{"PLATEQUALITY": "good", "SPECPRIMARY": 1, "BESTOBJID": row["target_id"]},
        **{"SOURCETYPE": source, "OBJTYPE": source, "TARGETTYPE": kind.name},
        **{"PLUG_RA": float(row["ra"]), "PLUG_DEC": float(row["dec"])},
        **{"CLASS": row["class"], "SUBCLASS": row["subclass"], "VDISP": row["vdisp"]},
        **{"Z": row["z"], "Z_ERR": row["z_err"], "ZWARNING": row["zwarn"]},
        "EXTINCTION": (row["ebv"] if row["ebv_known"] else 0.0) * _EXTINCTION,
    }


def _cards(values: Values, coadd: NDArray[np.void]) -> list[bytes]:
    start = round(float(coadd["loglam"][0]), 4)
    return [
        card("RADECSYS", "FK5"),
        card("EQUINOX", 2000.0),
        card("TELESCOP", "SDSS 2.5-M", "Sloan Digital Sky Survey"),
        card("FLAVOR", "science"),
        card("MJD", values["MJD"], "MJD of observation"),
        card("PLATEID", values["PLATE"], "Plate Id"),
        card("FIBERID", values["FIBERID"], "Fiber number"),
        card("VACUUM", True, "Wavelengths are in vacuum"),
        card("NWORDER", 2, "Linear-log10 coefficients"),
        card("WFITTYPE", "LOG-LINEAR", "Linear-log10 dispersion"),
        card("COEFF0", start, "Central wavelength (log10) of first pixel"),
        card("COEFF1", 1e-4, "Log10 dispersion per pixel"),
        card("BUNIT", "1E-17 erg/cm^2/s/Ang"),
        card("PLUG_RA", values["PLUG_RA"], "RA of object [deg]"),
        card("PLUG_DEC", values["PLUG_DEC"], "dec of object [deg]"),
    ]


def _specobj(values: Values, coadd: NDArray[np.void]) -> NDArray[np.void]:
    rows = np.zeros(1, dtype=SPECOBJ)
    for name in SPECOBJ.names or ():
        kind = SPECOBJ[name]
        if kind.kind == "S":
            rows[name] = _padded_text(name, str(values.get(name, "")), kind.itemsize)
        elif name in values:
            rows[name] = values[name]
    snr = coadd["flux"] * np.sqrt(coadd["ivar"].astype("f4"))
    loglam, good = coadd["loglam"], coadd["ivar"] > 0
    rows["WAVEMIN"], rows["WAVEMAX"] = 10.0 ** loglam[0], 10.0 ** loglam[-1]
    rows["SN_MEDIAN_ALL"] = _median(snr[good])
    edges = np.searchsorted(loglam, np.log10(_BANDS))
    rows["SN_MEDIAN"] = [_median(snr[a:b][good[a:b]]) for a, b in edges]
    return rows


def _spzline(values: Values) -> NDArray[np.void]:
    """Every line as the survey marks one that it did not fit: 0, with an error of -1."""
    rows = np.zeros(len(LINES), dtype=SPZLINE)
    for name in ("PLATE", "MJD", "FIBERID"):
        rows[name] = values[name]
    rows["LINENAME"] = [name.encode().ljust(13) for name in LINES]
    rows["LINEWAVE"] = list(LINES.values())
    for name in ("LINEZ", "LINESIGMA", "LINEAREA", "LINEEW", "LINECONTLEVEL"):
        rows[f"{name}_ERR"] = -1
    rows["LINECHI2"] = -1
    return rows


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else 0.0


def _padded_text(name: str, text: str, size: int) -> bytes:
    encoded = text.encode("ascii", "replace")
    if len(encoded) > size:
        raise ValueError(f"{name} {text!r} does not fit into its {size} characters; shorten it")
    return encoded.ljust(size)
