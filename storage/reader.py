"""The contract of a survey format: find its files lazily, read them into the one shape.

A reader is a module on the shelf `storage.readers` with the attributes and functions of `Reader`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import xarray as xr

from storage.grid import Grid


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of a survey, stated before they are read: one row a file, or rows of one file."""

    files: tuple[str, ...]
    "Paths, sorted."
    rows: int
    "Number of spectra."
    start: int = 0
    "First row, when they come from one file of many rows."

    def part(self, first: int, last: int) -> "Source":
        """Rows first:last of this source."""
        if not 0 <= first < last <= self.rows:
            raise ValueError(f"{self.files[0]}: rows {first}:{last} of {self.rows}")
        if len(self.files) > 1:
            return Source(files=self.files[first:last], rows=last - first)
        return replace(self, rows=last - first, start=self.start + first)


class Reader(Protocol):
    """One survey format.

    A row that cannot be read keeps its place: `status` is quarantined, `reason_code` and `reason`
    say why (naming the file and the cure), every other value is empty. `read` never raises for a
    bad file.
    """

    IDENTITY: Literal["target_id", "position"]
    "What makes two rows one sky object: the survey's own id, or 1.5 arcsec on the sky."
    CONFIGS: dict[str, Grid]
    "Instrument configurations and the wavelength axis of each; the first is the default."

    def find(self, root: str) -> Iterator[Source]:
        """Sources below a folder, sorted, lazily, of at most 256 MiB decoded each.

        Raises
        ------
        FileNotFoundError
            When there is no such folder, or none of its files is of this format.
        """
        ...

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source, in order, as `storage.schema.check` wants them."""
        ...

    def write(self, ds: xr.Dataset, root: str) -> list[str]:
        """Write rows in the survey's own format below root; gives the paths. For mocks."""
        ...
