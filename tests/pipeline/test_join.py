"""A catalogue beside the spectra: what matches, what is refused, what is written of it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table

from pipeline.join import drop, join
from pipeline.query import catalogue, open_survey
from storage.lease import LeaseError
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.stores import CONFIG, PRODUCT, Known, build

N = 80
GROUP = f"catalog/{CONFIG}/gz"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Rows 0 and 1 are one object; the third last row is quarantined."""
    known = build(tmp_path_factory.mktemp("survey"), n=N)
    with writing(known.card.store, "test") as writer:
        writer.write_columns(f"spectra/{CONFIG}", 1, {"object_id": np.array([1], "u8")})
        writer.commit("repeat")
    return known


def table(known: Known, rows: np.ndarray) -> Table:
    """What another survey says of some rows."""
    names = known.columns["observation"].to_numpy()[rows].tolist()
    return Table(
        {
            "observation": names,
            "object_id": known.columns["object_id"].to_numpy()[rows],
            "RA": known.columns["ra"].to_numpy()[rows] + 1 / 3600,
            "DEC": known.columns["dec"].to_numpy()[rows],
            "smooth": rows + 0.5,
            "kind": np.where(rows % 2, "spiral", "elliptical"),
            "votes": rows + 1,
        }
    )


def put(folder: Path, values: Table, name: str = "zoo.parquet") -> str:
    path = folder / name
    if path.suffix == ".csv":
        values.write(path, format="ascii.csv")
    else:
        values.write(path)
    return str(path)


def test_every_row_gets_the_values_of_its_key(known: Known, tmp_path: Path) -> None:
    rows = np.array([9, 4, 30, 77, 2])
    done = join(known.card.store, put(tmp_path, table(known, rows)), "observation", "gz")
    # Row 77 was quarantined at ingest.
    there = np.array([9, 4, 30, 2])
    assert (done.rows, done.matched, done.unmatched, done.ambiguous) == (5, 4, 76, 0)
    ds = open_survey(known.card.store)
    smooth, kind, votes = np.full(N, np.nan), np.full(N, "", object), np.full(N, np.nan)
    smooth[there], votes[there] = there + 0.5, there + 1.0
    kind[there] = np.where(there % 2, "spiral", "elliptical")
    np.testing.assert_array_equal(ds["gz.smooth"], smooth)
    np.testing.assert_array_equal(ds["gz.votes"], votes)
    assert ds["gz.kind"].to_numpy().tolist() == kind.tolist()
    assert np.flatnonzero(ds["gz.matched"]).tolist() == sorted(there)
    assert ds["gz.catalogue_row"].to_numpy()[[9, 4, 30, 2, 77]].tolist() == [0, 1, 2, 4, -1]


def test_no_comparison_holds_where_nothing_matches(known: Known, tmp_path: Path) -> None:
    rows = np.arange(10)
    join(known.card.store, put(tmp_path, table(known, rows)), "observation", "gz")
    ds = open_survey(known.card.store)
    for expression, count in {
        "gz.votes < 5": 4,
        "gz.votes != 5": 9,
        "gz.smooth >= 0": 10,
        "gz.kind == 'spiral' and gz.matched": 5,
        "not gz.matched": 70,
    }.items():
        assert ds.spectra.select(expression).sizes["spectrum"] == count, expression
    assert len(catalogue(ds.spectra.select("gz.votes < 5"), ["z", "gz.votes"])) == 4


def test_repeats_of_an_object_all_get_its_values(known: Known, tmp_path: Path) -> None:
    done = join(known.card.store, put(tmp_path, table(known, np.array([0]))), "object_id", "gz")
    assert done.matched == 2
    assert open_survey(known.card.store)["gz.votes"].to_numpy()[:3].tolist()[:2] == [1.0, 1.0]


def test_the_nearest_on_the_sky_counts(known: Known, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    place = known.columns[["ra", "dec"]].isel(spectrum=rng.integers(0, N, 300))
    ra = place["ra"].to_numpy() + rng.normal(0, 1, 300) / 3600
    dec = place["dec"].to_numpy() + rng.normal(0, 1, 300) / 3600
    ra[5] = np.nan
    file = put(tmp_path, Table({"RA": ra, "Dec": dec, "number": np.arange(300)}), "zoo.fits")
    done = join(known.card.store, file, "sky", "gz")
    ds = open_survey(known.card.store)
    good = ds["status"].to_numpy() == Status.DONE
    ours = SkyCoord(ds["ra"].to_numpy() * units.deg, ds["dec"].to_numpy() * units.deg)
    theirs = SkyCoord(np.delete(ra, 5) * units.deg, np.delete(dec, 5) * units.deg)
    apart = ours[:, None].separation(theirs[None]).arcsec
    near, least = np.delete(np.arange(300), 5)[apart.argmin(axis=1)], apart.min(axis=1)
    hit = good & (least <= 1.5)
    assert 10 < hit.sum() < N
    assert done.matched == hit.sum()
    assert done.ambiguous == (good & ((apart <= 1.5).sum(axis=1) > 1)).sum()
    np.testing.assert_array_equal(ds["gz.number"], np.where(hit, near, np.nan))
    np.testing.assert_allclose(ds["gz.distance"], np.where(hit, least, np.nan), atol=1e-7)
    assert ds["gz.distance"].attrs["units"] == "arcsec"


def test_of_rows_at_one_place_the_first_counts(known: Known, tmp_path: Path) -> None:
    values = table(known, np.array([6, 5, 5, 5]))
    done = join(known.card.store, put(tmp_path, values), "sky=RA,DEC", "gz", radius=1.1)
    assert (done.matched, done.ambiguous) == (2, 1)
    assert open_survey(known.card.store)["gz.catalogue_row"].to_numpy()[5] == 1


def test_a_radius_that_is_too_small_matches_nothing(known: Known, tmp_path: Path) -> None:
    file = put(tmp_path, table(known, np.arange(9)))
    assert join(known.card.store, file, "sky", "gz", radius=0.9).matched == 0
    for radius in (0.0, -1.0, np.nan, 1e9):
        with pytest.raises(ValueError, match=r"--radius is .*, expected more than 0 arcsec"):
            join(known.card.store, file, "sky", "gz", radius=radius)


def test_integers_and_texts_of_one_id_are_the_same(known: Known, tmp_path: Path) -> None:
    ids = np.arange(N) + 39_627_652_591_521_181
    with writing(known.card.store, "test") as writer:
        texts = ids.astype(np.dtypes.StringDType())
        writer.write_columns(f"spectra/{CONFIG}", 0, {"target_id": texts})
        writer.write_columns(f"spectra/{CONFIG}", 0, {"object_id": ids.astype("u8")})
        writer.commit("long ids")
    rows = np.array([3, 8, 40])
    number = Table({"TARGETID": ids[rows], "x": rows})
    text = Table({"TARGETID": ids[rows].astype(str), "x": rows})
    for name, values, key in (
        ("a.fits", text, "object_id"),
        ("b.parquet", text, "target_id"),
        ("c.csv", number, "object_id"),
        ("d.fits", number, "target_id"),
    ):
        done = join(known.card.store, put(tmp_path, values, name), f"{key}=TARGETID", "gz")
        ds = Survey.open(known.card.store).dataset(GROUP)
        assert np.flatnonzero(ds["status"] == Status.DONE).tolist() == rows.tolist()
        assert done.matched == 3
    ds = open_survey(known.card.store)
    # An id keeps its digits, and is an integer for that.
    assert ds["gz.TARGETID"].to_numpy()[rows].tolist() == ids[rows].tolist()
    file = put(tmp_path, Table({"TARGETID": ids[rows].astype(float)}), "e.parquet")
    with pytest.raises(ValueError, match=r"key is float64, expected integers or texts"):
        join(known.card.store, file, "target_id=TARGETID", "gz")
    file = put(tmp_path, Table({"TARGETID": ["4e3", "5"]}), "f.parquet")
    with pytest.raises(ValueError, match=r"the key is not an integer everywhere"):
        join(known.card.store, file, "object_id=TARGETID", "gz")


def test_a_key_that_is_there_twice_is_refused_unless_the_first_is_asked_for(
    known: Known, tmp_path: Path
) -> None:
    values = table(known, np.array([5, 6, 5]))
    values["votes"][2] = 99
    file = put(tmp_path, values)
    with pytest.raises(ValueError, match=r"1 keys .* more than once \('0266-51602-0006' in rows 0"):
        join(known.card.store, file, "observation", "gz")
    done = join(known.card.store, file, "observation", "gz", first=True)
    assert (done.matched, done.ambiguous) == (2, 1)
    assert open_survey(known.card.store)["gz.votes"].to_numpy()[5] == 6
    # Of objects that the survey has not, a catalogue may say what it likes.
    values["observation"] = ["a", "0266-51602-0006", "a"]
    assert join(known.card.store, put(tmp_path, values, "b.fits"), "observation", "gz").matched == 1


def test_what_is_missing_in_the_catalogue_is_missing_here(known: Known, tmp_path: Path) -> None:
    values = table(known, np.arange(3))
    for name in ("smooth", "kind", "votes"):
        values[name] = MaskedColumn(values[name], mask=[False, True, False])
    join(known.card.store, put(tmp_path, values, "zoo.ecsv"), "observation", "gz")
    ds = open_survey(known.card.store)
    assert ds["gz.matched"].to_numpy()[:4].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(ds["gz.votes"][:4], [1, np.nan, 3, np.nan])
    np.testing.assert_array_equal(ds["gz.smooth"][:4], [0.5, np.nan, 2.5, np.nan])
    assert ds["gz.kind"][:3].to_numpy().tolist() == ["elliptical", "", "elliptical"]
    assert "gz.votes_known" not in ds
    assert "votes_known" in Survey.open(known.card.store).dataset(GROUP)


def test_the_ledger_says_why_a_row_has_no_values(known: Known, tmp_path: Path) -> None:
    join(known.card.store, put(tmp_path, table(known, np.arange(N))[:70]), "observation", "gz")
    ds = Survey.open(known.card.store).dataset(GROUP)
    status, code = ds["status"].to_numpy(), ds["reason_code"].to_numpy()
    assert set(status[:70]) == {Status.DONE}
    assert set(status[70:]) == {Status.NOT_APPLICABLE}
    assert code[N - 3] == Reason.UPSTREAM_QUARANTINED
    assert (code[:70] == Reason.NONE).all()
    assert (code[70:] != Reason.NONE).all()
    assert [n for n, v in ds.data_vars.items() if "units" not in v.attrs] == []


def test_it_is_written_where_the_columns_came_from(known: Known, tmp_path: Path) -> None:
    file = put(tmp_path, table(known, np.arange(4)))
    done = join(known.card.store, file, "sky=RA,DEC", "gz", radius=2.0)
    attrs = Survey.open(known.card.store).attrs(GROUP)
    digest = hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()
    expected = {"catalogue": "zoo.parquet", "catalogue_digest": digest, "catalogue_rows": 4}
    expected |= {"matched": 4, "on": "sky", "key": ["RA", "DEC"], "radius_arcsec": 2.0, "rows": N}
    assert {name: attrs[name] for name in expected} == expected
    assert {"code_version", "packages", "platform", "card_digest", "joined"} <= attrs.keys()
    assert "4 of 80 spectra matched" in str(done)


def test_joining_again_replaces_in_one_version(known: Known, tmp_path: Path) -> None:
    first = join(known.card.store, put(tmp_path, table(known, np.arange(9))), "observation", "gz")
    versions = len(Survey.open(known.card.store).history())
    values = table(known, np.arange(3))
    values.remove_column("smooth")
    second = join(known.card.store, put(tmp_path, values, "b.fits"), "observation", "gz")
    assert len(Survey.open(known.card.store).history()) == versions + 1
    assert Survey.open(known.card.store).snapshot == second.snapshot
    ds = open_survey(known.card.store)
    assert "gz.smooth" not in ds
    assert int(ds["gz.matched"].sum()) == 3
    before = open_survey(known.card.store, snapshot=first.snapshot)
    assert int(before["gz.matched"].sum()) == 9


def test_a_prefix_can_be_dropped(known: Known, tmp_path: Path) -> None:
    join(known.card.store, put(tmp_path, table(known, np.arange(9))), "observation", "gone")
    snapshot = drop(known.card.store, "gone")
    assert Survey.open(known.card.store).snapshot == snapshot
    assert [n for n in open_survey(known.card.store) if str(n).startswith("gone.")] == []
    with pytest.raises(ValueError, match=r"no catalogue is joined as 'gone' \(there: "):
        drop(known.card.store, "gone")


def test_new_rows_are_pending_until_it_is_joined_again(tmp_path: Path) -> None:
    known = build(tmp_path, n=12, products=())
    file = put(tmp_path, table(known, np.arange(12)))
    join(known.card.store, file, "observation", "gz")
    with writing(known.card.store, "test") as writer:
        writer.resize(GROUP, 15)
        writer.commit("room")
    ds = Survey.open(known.card.store).dataset(GROUP)
    assert (ds["status"].to_numpy()[12:] == Status.PENDING).all()


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("ppca", r"--prefix is 'ppca', which .* has for columns of its own"),
        (PRODUCT.replace("-", "_"), r"which .* has for columns of its own"),
        ("best", r"taken: best, "),
        ("raw", r"taken: best, "),
        ("g-z", r"--prefix is 'g-z', expected letters, digits and _"),
        ("not", r"expected letters, digits and _"),
        ("../x", r"expected letters, digits and _"),
    ],
)
def test_a_prefix_is_a_free_name(known: Known, tmp_path: Path, prefix: str, words: str) -> None:
    file = put(tmp_path, table(known, np.arange(3)))
    with pytest.raises(ValueError, match=words):
        join(known.card.store, file, "observation", prefix)


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("target_id", r"zoo.parquet: no column 'target_id'; did you mean 'object_id'\?"),
        ("sky=RA,DE", r"no column 'DE'; did you mean 'DEC'\?"),
        ("sky=RA", r"expected sky=RA,DEC"),
        ("observation=a,b", r"expected observation=COLUMN"),
        ("sky=kind,DEC", r"'kind' is StringDType\(\), expected degrees, ICRS"),
        ("name", r"--on is 'name', expected one of object_id, target_id, observation, sky"),
    ],
)
def test_what_cannot_be_matched_on_is_refused(
    known: Known, tmp_path: Path, on: str, words: str
) -> None:
    file = put(tmp_path, table(known, np.arange(3)))
    before = Survey.open(known.card.store).snapshot
    with pytest.raises(ValueError, match=words):
        join(known.card.store, file, on, "gz")
    assert Survey.open(known.card.store).snapshot == before


def test_a_store_that_is_written_to_is_left_alone(known: Known, tmp_path: Path) -> None:
    file = put(tmp_path, table(known, np.arange(3)))
    taken = pytest.raises(LeaseError, match=r"ingest \(pid \d+")
    with writing(known.card.store, "ingest"), taken:
        join(known.card.store, file, "observation", "gz")
