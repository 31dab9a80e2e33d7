"""Circles on the sky: the index answers as a scan does, whatever it covers, and reads little."""

from pathlib import Path

import icechunk
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy_healpix import boundaries_lonlat, healpix_to_lonlat

from storage import schema, sky
from storage.schema import COLUMNS
from storage.store import Survey
from storage.writer import Writer, writing

N = 20_000
CIRCLES = [
    (185.0, 30.0, 5.0),
    (185.0, 30.0, 7200.0),
    (0.0, 0.0, 36_000.0),
    (359.99, -12.0, 20_000.0),
    (0.0, 90.0, 3600.0),
    (77.0, -90.0, 7200.0),
    (120.0, 89.9, 3600.0),
    (45.0, 41.8, 200_000.0),
    (10.0, 10.0, 0.0),
    (10.0, 10.0, 648_000.0),
    (10.0, 10.0, 647_000.0),
    # The search of astropy-healpix 2.0 leaves out pixels of these.
    (282.29809364095695, -81.29740073363901, 0.3877736023544827 * 3600),
    (80.71340872900463, -55.28405832437998, 0.040544542887691444 * 3600),
]


@pytest.fixture(scope="module")
def place() -> tuple[np.ndarray, np.ndarray]:
    """Positions over the whole sky, denser at the corners, and rows without one."""
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    dec[:500], dec[500:1000] = rng.uniform(88, 90, 500), rng.uniform(-90, -88, 500)
    ra[1000:1500], dec[1000:1500] = rng.uniform(-1, 1, 500) % 360, rng.uniform(-1, 1, 500)
    for start, (ra0, dec0, radius) in enumerate(CIRCLES):
        near = slice(2000 + 200 * start, 2200 + 200 * start)
        angle = rng.uniform(0, 360, 200) * units.deg
        reach = min(radius, 36_000) * np.sqrt(rng.uniform(0, 1.2, 200)) * units.arcsec
        found = SkyCoord(ra0 * units.deg, dec0 * units.deg).directional_offset_by(angle, reach)
        ra[near], dec[near] = found.ra.deg, found.dec.deg
    ra[:4], dec[:4] = (0.0, 360.0, 10.0, 185.0), (0.0, 0.0, 10.0, 30.0)
    order = rng.permutation(N)
    ra, dec = ra[order], dec[order]
    ra[7], dec[8], dec[9], ra[10] = np.nan, np.nan, -9999.0, np.inf
    return ra, dec


def expected(place: tuple[np.ndarray, np.ndarray], circle: tuple[float, ...]) -> np.ndarray:
    ra, dec = place
    good = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))
    all_sky = SkyCoord(ra[good] * units.deg, dec[good] * units.deg)
    centre = SkyCoord(circle[0] * units.deg, circle[1] * units.deg)
    return good[all_sky.separation(centre).arcsec <= circle[2]]


def store(folder: Path, place: tuple[np.ndarray, np.ndarray], covers: int | None) -> Survey:
    """Spectra at these places, of which an index covers the first ones; none when None."""
    path = str(folder / "survey.icechunk")
    Survey.create(path)
    with writing(path, "test") as writer:
        if covers is not None:
            _put(writer, place, covers)
            sky.write(writer, "sdss")
            writer.commit("index")
        _put(writer, place, len(place[0]))
        writer.commit("all rows")
    return Survey.open(path)


def _put(writer: Writer, place: tuple[np.ndarray, np.ndarray], rows: int) -> None:
    if "spectra/sdss" in writer:
        writer.resize("spectra/sdss", rows)
    else:
        fields = {name: COLUMNS[name] for name in ("ra", "dec", "z")}
        writer.create_group("spectra/sdss", schema.template(rows, None, fields), {})
    columns = {"ra": place[0][:rows], "dec": place[1][:rows], "z": np.zeros(rows)}
    writer.write_columns("spectra/sdss", 0, columns)


@pytest.mark.parametrize("covers", [None, 0, 12_345, N])
def test_a_circle_holds_what_astropy_says_whatever_the_index_covers(
    tmp_path: Path, place: tuple[np.ndarray, np.ndarray], covers: int | None
) -> None:
    survey = store(tmp_path, place, covers)
    for circle in CIRCLES:
        found = sky.cone(survey, "sdss", *circle)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected(place, circle), err_msg=str(circle))


def test_a_circle_across_zero_and_of_no_radius_finds_its_centre() -> None:
    ra, dec = np.array([0.0, 360.0, 1e-9, np.nan, 5.0]), np.array([0.0, 0.0, 0.0, 0.0, -9999.0])
    inside = [True, True, False, False, False]
    assert sky.within(ra, dec, 0.0, 0.0, 0.0).tolist() == inside
    assert sky.within(ra, dec, 360.0, 0.0, 0.0).tolist() == inside
    poles = sky.within(np.array([0.0, 200.0]), np.array([90.0, 90.0]), 77.0, 90.0, 0.0)
    assert poles.all()
    # Twice round the sky is no smaller than once.
    assert sky.within(ra, dec, 180.0, 0.0, 1e6).tolist() == [True, True, True, False, False]


def test_no_pixel_reaches_farther_than_is_searched() -> None:
    pixels = np.arange(12 * sky.NSIDE**2)
    lon, lat = boundaries_lonlat(pixels, 1, sky.NSIDE, order="nested")
    lon0, lat0 = healpix_to_lonlat(pixels, sky.NSIDE, order="nested")
    corners, centres = SkyCoord(lon, lat), SkyCoord(lon0[:, None], lat0[:, None])
    assert corners.separation(centres).deg.max() < sky._REACH_DEG


def test_the_index_is_no_group_of_rows(
    tmp_path: Path, place: tuple[np.ndarray, np.ndarray]
) -> None:
    survey = store(tmp_path, place, N)
    assert survey.groups() == ["spectra/sdss"]
    assert "sky/sdss" not in survey


def test_the_index_is_made_again_in_the_same_transaction(
    tmp_path: Path, place: tuple[np.ndarray, np.ndarray]
) -> None:
    store(tmp_path, place, 500)
    path, moved = str(tmp_path / "survey.icechunk"), (place[0] + 1.0, place[1])
    with writing(path, "test") as writer:
        writer.write_columns("spectra/sdss", 0, {"ra": moved[0]})
        sky.write(writer, "sdss")
        writer.commit("moved")
    found = sky.cone(Survey.open(path), "sdss", 186.0, 30.0, 7200.0)
    np.testing.assert_array_equal(found, expected(moved, (186.0, 30.0, 7200.0)))


def test_an_index_of_more_rows_than_there_are_is_not_used(
    tmp_path: Path, place: tuple[np.ndarray, np.ndarray]
) -> None:
    store(tmp_path, place, N)
    path, few = str(tmp_path / "survey.icechunk"), (place[0][:900], place[1][:900])
    with writing(path, "test") as writer:
        writer.delete_group("spectra/sdss")
        _put(writer, few, 900)
        writer.commit("fewer")
    found = sky.cone(Survey.open(path), "sdss", *CIRCLES[1])
    np.testing.assert_array_equal(found, expected(few, CIRCLES[1]))


def test_a_small_circle_reads_few_bytes_and_none_of_the_columns(
    tmp_path: Path, place: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = store(tmp_path, place, N)
    read: dict[str, int] = {}
    plain = icechunk.IcechunkStore.get

    async def get(self: object, key: str, *args: object, **kwargs: object) -> object:
        found = await plain(self, key, *args, **kwargs)
        if "/c/" in key and found is not None:
            read[key.partition("/c/")[0]] = read.get(key.partition("/c/")[0], 0) + len(found)
        return found

    monkeypatch.setattr(icechunk.IcechunkStore, "get", get)
    assert sky.cone(survey, "sdss", 185.0, 30.0, 60.0).size
    assert set(read) <= {f"sky/sdss/{name}" for name in ("start", "ra", "dec", "row")}
    # One or two chunks of 4096 numbers, and the index of the shard.
    assert 0 < read["sky/sdss/ra"] <= 2 * 8 * sky.CHUNK + 2000


@pytest.mark.parametrize(
    ("circle", "words"),
    [
        ((10.0, 20.0, -1.0), r"the radius is -1.0, expected 0 arcsec or more"),
        ((10.0, 20.0, np.nan), r"the radius is nan, expected 0 arcsec or more"),
        ((10.0, 91.0, 1.0), r"no position \(10.0, 91.0\); expected degrees, dec in -90..90"),
        ((np.inf, 1.0, 1.0), r"no position \(inf, 1.0\)"),
    ],
)
def test_what_is_no_circle_is_refused(
    tmp_path: Path, circle: tuple[float, float, float], words: str
) -> None:
    nobody = (np.full(3, np.nan), np.zeros(3))
    with pytest.raises(ValueError, match=words):
        sky.cone(store(tmp_path, nobody, 3), "sdss", *circle)
    with pytest.raises(ValueError, match=words):
        sky.within(*nobody, *circle)
