"""Velocities of observatories, against erfa, published values and headers."""

from pathlib import Path

import erfa
import numpy as np
import pytest

from storage import velocity

AAT = (149.0661, -31.27704, 1164.0)


def by_erfa(ra: float, dec: float, mjd: float, site: tuple[float, float, float]) -> float:
    """Earth's and the site's velocity towards a source, km/s, from the ephemeris by hand."""
    heliocentric, _ = erfa.epv00(2400000.5, mjd)
    orbit = np.array(heliocentric["v"]) * 149597870.7 / 86400
    angle = erfa.gst06a(2400000.5, mjd, 2400000.5, mjd)
    longitude, latitude = np.radians(site[:2])
    x, y, _ = erfa.gd2gc(1, longitude, latitude, site[2])
    distance, phase = np.hypot(x, y) / 1000, np.arctan2(y, x) + angle
    spin = distance * 7.292115e-5 * np.array([-np.sin(phase), np.cos(phase), 0])
    # From the equator of the date to the ICRS.
    spin = np.linalg.inv(erfa.pnm06a(2400000.5, mjd)) @ spin
    a, d = np.radians([ra, dec])
    towards = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    return float((orbit + spin) @ towards)


@pytest.mark.parametrize("mjd", [51544.5, 55861.8, 57373.56])
@pytest.mark.parametrize(("ra", "dec"), [(35.4, -28.9), (99.3, 27.2), (250.0, 80.0)])
def test_the_computed_velocity_is_that_of_the_ephemeris(mjd: float, ra: float, dec: float) -> None:
    actual = velocity.computed([ra], [dec], mjd, AAT)[0]
    # 20 m/s: second-order terms and the gravity of the Sun, left out by hand.
    assert actual == pytest.approx(by_erfa(ra, dec, mjd, AAT), abs=0.02)


def test_a_source_at_the_apex_of_the_earth_is_approached_at_30_kms() -> None:
    # At the March equinox the Earth moves towards ecliptic longitude 270: 18 h, -23.4 deg.
    actual = velocity.computed([270.0], [-23.44], 57467.2, (0.0, 89.9, 0.0))[0]
    assert actual == pytest.approx(29.8, abs=0.2)


def test_velocities_of_many_rows_are_those_of_each() -> None:
    ra, dec = np.array([10.0, 200.0]), np.array([-30.0, 40.0])
    both = velocity.computed(ra, dec, 57373.0, AAT)
    each = [velocity.computed(ra[[n]], dec[[n]], 57373.0, AAT)[0] for n in (0, 1)]
    np.testing.assert_allclose(both, each, rtol=1e-12)


def test_an_exposure_beyond_the_shipped_table_needs_no_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("astropy.utils.data.download_file", refuse)
    monkeypatch.setattr("astropy.utils.iers.iers.download_file", refuse, raising=False)
    assert np.isfinite(velocity.computed([10.0], [0.0], 65000.0, AAT)).all()


def test_wavelengths_grow_when_the_observatory_approaches_the_source() -> None:
    actual = velocity.to_heliocentric([5000.0, 6000.0], 29.9792458)
    np.testing.assert_allclose(actual, [5000.5, 6000.6], rtol=1e-12)


def test_a_header_says_its_frame() -> None:
    assert velocity.frame({"SPECSYS": "BARYCENT"}) == "barycentric"
    assert velocity.frame({"SPECSYS": "heliocen "}) == "heliocentric"
    assert velocity.frame({"SPECSYS": "TOPOCENT", "HELIO": True}) == "topocentric"
    assert velocity.frame({"HELIO": True}) == "heliocentric"
    assert velocity.frame({"HELIO": False}) == "topocentric"
    assert velocity.frame({"DO_HELIO": True, "HELIO_RV": -26.4}) is None


def test_a_stated_velocity_has_the_sign_that_its_name_is_given() -> None:
    assert velocity.stated({"HELIO_RV": -26.4}, "HELIO_RV") == -26.4
    assert velocity.stated({"HELIO_RV": "-26.4"}, "-helio_rv") == 26.4
    assert velocity.stated({"HELIO_RV": "unknown"}, "HELIO_RV") is None
    assert velocity.stated({}, "HELIO_RV") is None


def test_a_site_needs_longitude_and_latitude() -> None:
    assert velocity.site({"LONG_OBS": 149.0, "LAT_OBS": -31.0, "ALT_OBS": 1164}) == (149, -31, 1164)
    assert velocity.site({"LONGITUD": 117.58, "LATITUDE": 40.39}) == (117.58, 40.39, 0)
    assert velocity.site({"LONGITUD": 117.58}) is None
    assert velocity.site({"LONGITUD": 117.58, "LATITUDE": 400}) is None
    assert velocity.site({"LONGITUD": 1, "LATITUDE": 2, "ALTITUDE": 1e9}) == (1, 2, 0)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"MJD-MID": 57373.5}, 57373.5),
        ({"DATE-AVG": "2015-12-17T12:00:00"}, 57373.5),
        ({"DATE-BEG": "2015-12-17T00:00:00", "DATE-END": "2015-12-18T00:00:00Z"}, 57373.5),
        ({"MJD-OBS": 57373.0, "EXPTIME": 86400.0}, 57373.5),
        ({"DATE-OBS": "2015-12-17", "EXPTIME": 900}, None),
        ({"MJD-OBS": 57373.0}, None),
        ({}, None),
    ],
)
def test_the_middle_of_an_exposure(cards: dict[str, object], expected: float | None) -> None:
    assert velocity.middle(cards) == expected


def test_a_date_is_an_mjd() -> None:
    assert velocity.mjd("2000-01-01T12:00:00") == 51544.5
    assert velocity.mjd(2451545.0) == 51544.5
    assert velocity.mjd("NaN") is None
    assert velocity.mjd(1e300) is None
    assert velocity.mjd("2000-13-41T12:00:00") is None


def test_lamost_writes_the_velocity_that_it_took_away(survey_data: Path) -> None:
    from astropy.io import fits

    for path in sorted((survey_data / "lamost").glob("*.fits"))[:5]:
        cards = dict(fits.getheader(path))
        site, time = velocity.site(cards), velocity.mjd(cards["DATE-OBS"])
        assert site is not None
        assert time is not None
        computed = velocity.computed(cards["RA"], cards["DEC"], time, site)
        # 0.4 km/s apart, for a reason that the header does not tell.
        assert velocity.stated(cards, "-HELIO_RV") == pytest.approx(float(computed), abs=0.5)
