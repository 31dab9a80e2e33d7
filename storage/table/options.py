"""What a card may say of a survey of spectra in tables or images: `[survey.options]`."""

from typing import Any, Literal

from pydantic import Field as Setting
from pydantic import PositiveFloat, model_validator

from storage.grid import Grid
from storage.reader import Format
from storage.schema import Field
from storage.table.presets import PRESETS

GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)

FIELDS: dict[str, Field] = {
    "flux_relative": Field(
        dtype="u1", units="1", description="1 where flux is in units of its own, not the house's"
    ),
    "ivar_estimated": Field(
        dtype="u1", units="1", description="1 where ivar is estimated from the flux itself"
    ),
}

Scale = Literal["linear", "log10", "ln"]
Kind = Literal["ivar", "variance", "std"]


class Options(Format):
    """Options of the reader `table`; a preset is a bundle of them, what a card says goes above."""

    preset: str = ""
    "A survey whose options are known: see `storage.table.presets`."
    survey: str = ""
    "Name of the survey, where the files do not say it."
    pattern: tuple[str, ...] = ("*.fits", "*.fit", "*.fits.gz", "*.ecsv", "*.parquet")
    "File names, as a shell writes them."
    one_per_file: bool = False
    "Each file holds one spectrum: finding them opens none."
    identity: Literal["target_id", "position"] = "position"
    "What makes two rows one sky object."
    grid: Grid = GRID
    "The wavelength axis of the store, vacuum A: every spectrum is rebinned to it."

    loader: str = ""
    "Empty: read here. 'specutils', or the name of one of its formats: read by specutils."
    hdu: int | str = ""
    "FITS: number or name of the extension with the flux; empty for the first that has one."
    rows: dict[str, int] = Setting(default_factory=dict)
    """Image whose rows are one spectrum: row number of flux, wavelength, uncertainty, mask."""
    rows_hdu: int | str = ""
    "FITS: extension of a table with one row for each spectrum: position, name ..."
    wavelength: str = ""
    "Column or extension; empty for the usual names, then for the header's axis."
    flux: str = ""
    "Column; empty for the usual names."
    uncertainty: str = ""
    "Column or extension; empty for the usual names."
    uncertainty_kind: Kind | Literal[""] = ""
    "What it is; empty where its name says it."
    mask: str = ""
    "Column or extension; empty for the usual names."
    bad_bits: int = 0xFFFFFFFF
    "Bits of the mask that mean no data; 0 for none."
    negative: Literal["refuse", "no-data"] = "refuse"
    "A variance below 0: the file is damaged, or that pixel has no data."
    error: Literal["file", "estimate"] = "file"
    "'estimate': the noise from differences of pixels, where the file has no uncertainty."

    wavelength_unit: str = ""
    "Such as 'Angstrom', 'nm', 'um'; empty where the file says it. Goes above the file."
    wavelength_scale: Scale | Literal[""] = ""
    "Whether its numbers are logarithms; empty where the file says it."
    flux_unit: str = ""
    "As astropy reads it; 'relative' keeps the numbers. Empty where the file says it."
    uncertainty_unit: str = ""
    "Of its numbers; empty where the file says it, 'same' for what follows from the flux's."
    medium: Literal["air", "vacuum", "header"] = "header"
    "Of the wavelengths; 'header': VACUUM, AIRORVAC or CTYPE1."
    medium_unsaid: Literal["air", "vacuum", ""] = ""
    "What a header that does not say it means; empty: the row is refused."
    frame: Literal["heliocentric", "barycentric", "topocentric", "header"] = "header"
    "Of the wavelengths; 'header': SPECSYS or HELIO. Topocentric ones are made heliocentric."
    frame_unsaid: Literal["heliocentric", "barycentric", "topocentric", ""] = ""
    "What a header that does not say it means; empty: the row is refused."
    velocity: str = ""
    "Keyword of the velocity to add, km/s, '-KEY' to subtract it; empty: it is computed."
    site: tuple[float, float, float] | None = None
    "East longitude, latitude (deg) and height (m), where the header does not say them."
    time: str = ""
    "Keyword of the middle of the exposure, MJD or date, where its name is unusual."
    resolution: PositiveFloat | None = None
    "Resolving power: fills the line spread, where one number is enough."

    columns: dict[str, str | tuple[str, ...]] = Setting(default_factory=dict)
    "Our variable: the keywords or columns to take it from, first found; adds to the usual ones."
    angle: Literal["deg", "rad", "hour"] = "deg"
    "Unit of ra and dec; with 'hour', of ra (dec is in deg)."
    sky: tuple[str, ...] = ("SKY",)
    "Values of object_type that mean a sky fibre."
    standard: tuple[str, ...] = ("STANDARD", "STD", "SPECTROPHOTO_STD", "FLUXSTD")
    "Values of object_type that mean a standard star."
    catalog: str = ""
    "A table that astropy reads, with one row for each file; goes above what the files say."
    catalog_key: str = "file"
    "Its column with the file name, with or without folder and suffix; 'name:row' in files of many."

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        name = given.get("preset", "") if isinstance(given, dict) else ""
        if not name:
            return given
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} is not known; one of {', '.join(sorted(PRESETS))}")
        both = {**PRESETS[name], **given}
        if isinstance(both.get("columns"), dict):
            both["columns"] = {**PRESETS[name].get("columns", {}), **both["columns"]}
        return both

    @property
    def configs(self) -> dict[str, Grid]:
        """One: the grid of the options."""
        return {"table": self.grid}

    @property
    def fields(self) -> dict[str, Field]:
        """What was not in the house's units, or not in the file at all."""
        return FIELDS
