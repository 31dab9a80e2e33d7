"""The contract of a survey format: find its files lazily, read them into the one shape.

A reader is a module on the shelf `storage.readers` with a `build(**options)` that gives a `Reader`;
the options are `[survey.options]` of a card. Workers get the reader itself, so it can be pickled.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import xarray as xr
from pydantic import BaseModel, ConfigDict

from storage.grid import Grid
from storage.schema import Field


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
    """One survey format, as its options say.

    A row that cannot be read keeps its place: `status` is quarantined, `reason_code` and `reason`
    say why (naming the file and the cure), every other value is empty. `read` never raises for a
    bad file. `storage.border.admit` does that for a reader that has filled in what it found.
    """

    @property
    def identity(self) -> Literal["target_id", "position"]:
        """What makes two rows one sky object: the survey's own id, or 1.5 arcsec on the sky."""
        ...

    @property
    def configs(self) -> dict[str, Grid]:
        """Instrument configurations and the wavelength axis of each; the first is the default."""
        ...

    @property
    def fields(self) -> dict[str, Field]:
        """Variables that it gives beyond those of `storage.schema.SPECTRA`."""
        ...

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of the axes that only those have."""
        ...

    def find(self, root: str, config: str) -> Iterator[Source]:
        """Sources of a configuration below a folder, lazily, of at most 256 MiB decoded each.

        In an order that depends on the files alone. A file that cannot be opened is a source of
        one row: reading it says why.

        Raises
        ------
        FileNotFoundError
            When there is no such folder, or none of its files is of this format.
        """
        ...

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source, in order, as `storage.schema.check` wants them.

        A source of several files has one row of each. `source` and `source_row` say which file
        and row, relative to root, also for a row that is quarantined.
        """
        ...

    def beside(self, path: str, root: str, config: str) -> tuple[str, ...]:
        """Other files whose content goes into the rows of a file, in an order of their own.

        Such as redshifts. Those that are there: one that comes, changes or goes is a change of
        the rows, as one of the file itself is. `digest` is `storage.files.digest` of them all.
        """
        ...

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Write rows in the survey's own format below root; gives the paths. For mocks.

        Raises
        ------
        ValueError
            When the format is not written.
        """
        ...


class Format(BaseModel):
    """What readers begin from: options that are checked, and no variables of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def fields(self) -> dict[str, Field]:
        """None beyond the schema's."""
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        """None beyond the schema's."""
        return {}

    def beside(self, path: str, root: str, config: str) -> tuple[str, ...]:
        """None: a file holds all of its rows."""
        return ()

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Not written."""
        raise ValueError(
            f"{type(self).__module__}: this format is only read; simulate with another reader"
        )
