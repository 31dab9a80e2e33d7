"""Surveys whose options for the reader `table` are known: name of the preset, its options."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # One image; row 2 is wavelength from DR2 on, and flux over continuum in DR1: the header's
    # axis is right in both. No unit is written, the flux scale is relative (Luo et al. 2015).
    "lamost": {
        "survey": "lamost",
        "pattern": ("spec-*.fits", "spec-*.fits.gz"),
        "one_per_file": True,
        "hdu": 0,
        "rows": {"flux": 0, "uncertainty": 1, "mask": 3},
        "uncertainty_kind": "ivar",
        "wavelength_unit": "Angstrom",
        "flux_unit": "relative",
        "columns": {
            "target_id": ("OBJNAME",),
            "object_type": ("FIBERTYP", "OBJTYPE"),
            # MJD is that of the local day.
            "mjd": ("DATE-OBS",),
        },
    },
    # 2dfdr: wavelengths are those of the observatory, and in air unless VACUUM is true. DO_HELIO
    # and DO_CMB ask a redshifting program to shift; they do not say that it was done.
    "aaomega": {
        "survey": "aaomega",
        "pattern": ("*.fits", "*.fits.gz"),
        "hdu": 0,
        "rows_hdu": "FIBRES",
        "wavelength_unit": "Angstrom",
        "flux_unit": "relative",
        "medium_unsaid": "air",
        "frame": "topocentric",
        # A few pixels at the ends of its spectra have a variance below 0.
        "negative": "no-data",
        "angle": "rad",
        "columns": {"target_id": ("NAME",), "object_type": ("TYPE",), "mjd": ("UTMJD",)},
        "sky": ("S",),
        "standard": (),
    },
}
