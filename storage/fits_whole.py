"""A FITS file read through once: its digest, and whether its HDUs are what their checksums say.

Files of many GB are read by rows, which shows no damage elsewhere; their bytes are all read for the
digest, and summed on the way, a MiB at a time. What is in gzip is summed unpacked.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from storage import files, fits_scan, fits_unpack
from storage.fits_blocks import CARD, FitsError, padded
from storage.fits_checksum import Promise, folded, promised, total
from storage.fits_scan import Hdu

_PART = 1 << 20
"Bytes read at once; sums are of words of four."


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What reading all of a file shows."""

    digest: str
    "blake2b-128 of its bytes, hex."
    damage: str
    "Which checksum does not hold; empty when all do, or none is stated."

    def require(self) -> None:
        """Refuse a damaged file.

        Raises
        ------
        FitsError
            Names the extension.
        """
        if self.damage:
            raise FitsError(self.damage)


@dataclass
class _Sum:
    """An HDU that promises its sums, while a file is read."""

    promise: Promise
    begin: int
    data: int
    end: int
    of_header: int = 0
    of_data: int = 0

    def add(self, at: int, part: bytes) -> None:
        """Bytes of the file from a position on."""
        if at < self.end and at + len(part) > self.begin:
            self.of_header += total(_between(at, part, self.begin, self.data))
            self.of_data += total(_between(at, part, self.data, self.end))

    @property
    def damage(self) -> str:
        """What does not hold; empty when all does."""
        return self.promise.broken(folded(self.of_data), folded(self.of_header + self.of_data))


def whole(path: str) -> Whole:
    """The digest of a file, FITS or not, and what is damaged in it.

    Of a file that is truncated, nothing is said: who reads it sees that.

    Raises
    ------
    OSError
        As `storage.files.regular`, or when it cannot be read.
    """
    state = files.regular(path)
    return _read(path, state.st_size, (state.st_mtime_ns, state.st_ctime_ns), state.st_ino)


def digest(found: Whole, beside: Sequence[str]) -> str:
    """As `storage.files.digest`, of a file that was read through and those beside it."""
    return files.joined([found.digest, *map(files.of_bytes, beside)])


# A file of many sources is read through once in a process.
@lru_cache(maxsize=1024)
def _read(path: str, size: int, times_ns: tuple[int, int], inode: int) -> Whole:
    try:
        plain = fits_unpack.plain(path)
        sums = _sums(plain.path)
    except FitsError:
        plain, sums = None, []
    if plain is not None and plain.path != path:
        _through(plain.path, sums)
        found = _through(path, [])
    else:
        found = _through(path, sums)
    broken = [each.damage for each in sums if each.damage]
    return Whole(digest=found, damage="; ".join(broken))


def _sums(path: str) -> list[_Sum]:
    """HDUs of a file that promise something, where all of their bytes are there."""
    size, found = Path(path).stat().st_size, []
    with Path(path).open("rb") as file:
        for hdu in fits_scan.headers(file, size):
            promise = promised(hdu.header)
            if promise and hdu.offset + hdu.size <= size:
                found.append(_sum_of(hdu, promise))
    return found


def _sum_of(hdu: Hdu, promise: Promise) -> _Sum:
    return _Sum(
        promise=promise,
        begin=hdu.offset - padded(len(hdu.header) + CARD),
        data=hdu.offset,
        end=hdu.offset + padded(hdu.size),
    )


def _through(path: str, sums: list[_Sum]) -> str:
    hashed, at = hashlib.blake2b(digest_size=files.DIGEST_BYTES), 0
    with Path(path).open("rb") as file:
        while part := file.read(_PART):
            hashed.update(part)
            for each in sums:
                each.add(at, part)
            at += len(part)
    return hashed.hexdigest()


def _between(at: int, part: bytes, begin: int, end: int) -> bytes:
    return part[max(begin - at, 0) : max(end - at, 0)]
