"""Samples: what every cut leaves, how strata and caps choose, and what is missing."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from pipeline.card import CARDS, Card, CardError, load
from pipeline.card_sample import Sample, Strata
from pipeline.join import join
from pipeline.sample import choose, said, sample, sample_card
from storage.schema import Split
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, ingested
from tests.pipeline.stores import CONFIG

N = 80
BAD = [77, 78]
"Quarantined, and a sky fibre; row 79 is a star."
TEXT = np.dtypes.StringDType()


def put(path: str, first: int = 0, **columns: Any) -> None:
    with writing(path, "test") as writer:
        writer.write_columns(SPECTRA, first, columns)
        writer.commit("columns")


def joined(path: str, folder: Path, prefix: str, **columns: Any) -> None:
    """A catalogue of all rows, by observation."""
    names = Survey.open(path).dataset(SPECTRA)["observation"].to_numpy().tolist()
    file = folder / f"{prefix}.fits"
    Table({"observation": names, **columns}).write(file)
    join(path, file, "observation", prefix)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Galaxies all, but for the last three rows; z is row / 1000."""
    path = ingested(tmp_path_factory.mktemp("whole"), N)
    put(path, z=np.arange(N) / 1000, zwarn=np.zeros(N, "i4"))
    return path


@pytest.fixture
def path(whole: str, tmp_path: Path) -> str:
    """The same, to be changed."""
    return shutil.copytree(whole, str(tmp_path / "survey.icechunk"))


def chosen(folder: Path, path: str, **table: Any) -> Any:
    return choose(card_of(folder, sample=table), Survey.open(path))


def test_every_cut_says_what_it_left(tmp_path: Path, path: str) -> None:
    put(path, vdisp=np.where(np.arange(N) % 2, 120.0, np.nan).astype("f4"))
    steps = {"near": "z < 0.05", "far": "z >= 0.03", "dispersion": "vdisp > 100"}
    found = chosen(tmp_path, path, steps=steps)
    assert [(cut.name, cut.before, cut.left) for cut in found.cuts] == [
        ("read", 80, 79),
        ("sky objects", 79, 78),
        ("split", 78, 78),
        ("where", 78, 77),
        ("near", 77, 50),
        ("far", 50, 20),
        ("dispersion", 20, 10),
    ]
    assert np.flatnonzero(found.rows).tolist() == list(range(31, 50, 2))
    # Every fourth row trains, the rest tests.
    assert found.sides == {"train": 0, "val": 0, "calib": 0, "test": 10}


def test_objects_without_a_side_are_in_no_sample(tmp_path: Path, path: str) -> None:
    put(path, split=np.full(10, Split.NONE, "u1"))
    found = chosen(tmp_path, path)
    assert next(cut.left for cut in found.cuts if cut.name == "split") == 68
    assert not found.rows[:10].any()


def test_strata_take_so_many_of_each_bin(tmp_path: Path, path: str) -> None:
    flux = np.full(N, 5.0)
    flux[:4], flux[4:30], flux[30:32], flux[32] = 10.0, 99.9, 100.0, np.nan
    joined(path, tmp_path, "mpa", ha=flux)
    strata = {"by": "mpa.ha", "log10": (1, 3), "bins": 2, "each": 5}
    found = chosen(tmp_path, path, strata=strata)
    shown = [(one.low, one.high, one.there, one.taken) for one in found.bins]
    assert shown == [(10, 100, 30, 5), (100, 1000, 2, 2)]
    taken = np.flatnonzero(found.rows)
    assert len(taken) == 7
    assert {30, 31} < set(taken.tolist()) <= set(range(32))
    assert found.cuts[-1].expression == "5 a bin of mpa.ha"


def test_strata_of_an_expression(tmp_path: Path, path: str) -> None:
    found = chosen(tmp_path, path, strata={"by": "1000 * z - 20", "edges": (-5, 0, 5), "each": 9})
    assert [one.there for one in found.bins] == [5, 5]
    assert np.flatnonzero(found.rows).tolist() == list(range(15, 25))


def test_the_choice_does_not_depend_on_the_order_of_the_rows(tmp_path: Path, path: str) -> None:
    one = chosen(tmp_path, path, cap=30)
    ds = Survey.open(path).dataset(SPECTRA).load()
    shuffled = np.random.default_rng(5).permutation(77)
    names = ("object_id", "observation", "z", "split")
    ids = ds["object_id"].to_numpy()
    put(path, **{name: ds[name].to_numpy()[:77][shuffled] for name in names})
    other = chosen(tmp_path, path, cap=30)
    assert one.rows.sum() == other.rows.sum() == 30
    assert set(ids[one.rows]) == set(ids[:77][shuffled][other.rows[:77]])


def test_a_grown_survey_keeps_what_it_can(tmp_path: Path, path: str) -> None:
    before = chosen(tmp_path, path, cap=20, where="class == 'GALAXY' and z < 0.05").rows
    after = chosen(tmp_path, path, cap=20).rows
    kept = before & after
    assert before.sum() == after.sum() == 20
    # No old object comes in that was not there; the new ones are as frequent as chance has it.
    assert not (after[:50] & ~before[:50]).any()
    assert 8 <= kept.sum() < 20


def test_another_seed_is_another_choice_and_the_same_seed_the_same(
    tmp_path: Path, path: str
) -> None:
    one, same, other = (chosen(tmp_path, path, cap=40, seed=seed).rows for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert 0 < (one & other).sum() < 40


def test_exposures_of_one_object_come_together(tmp_path: Path, path: str) -> None:
    put(path, object_id=np.repeat(np.arange(1, 41, dtype="u8"), 2)[:76])
    rows = chosen(tmp_path, path, cap=30).rows
    np.testing.assert_array_equal(rows[0:76:2], rows[1:76:2])


def test_a_sample_of_one_side_is_part_of_the_whole(tmp_path: Path, path: str) -> None:
    card = card_of(tmp_path, sample={"cap": 40})
    survey = Survey.open(path)
    rows = choose(card, survey).rows
    split = survey.dataset(SPECTRA)["split"].to_numpy()
    expected = np.flatnonzero(rows & (split == Split.TRAIN))
    np.testing.assert_array_equal(sample(card, survey, Split.TRAIN), expected)


def test_an_empty_sample_says_which_cut_left_none(tmp_path: Path, path: str) -> None:
    card = card_of(tmp_path, sample={"steps": {"near": "z < 0.05", "far": "z > 0.06"}})
    with pytest.raises(ValueError, match=r"the cuts leave none \(.*near 50, far 0\) of 80 spectra"):
        sample(card, Survey.open(path), Split.TRAIN)


def test_a_missing_column_says_which_catalogue_has_it_and_how_to_join_it(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(
        ValueError,
        match=r"no column 'photo.r_petro' in .*; it is of SDSS photometry .*`specmill join .* "
        r"r_petro.fits --on target_id=bestObjID --prefix photo --columns r_petro` adds it",
    ):
        chosen(tmp_path, path, card="c25")
    # The catalogue is there, and lacks the column.
    joined(path, tmp_path, "photo", petro=np.zeros(N))
    with pytest.raises(ValueError, match=r"no column 'photo.r_petro'.*--columns r_petro` adds it"):
        chosen(tmp_path, path, card="c25")


def test_a_catalogue_that_nobody_knows_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"no catalogue is joined as 'gz' \(there: none\); `specmill join .*gz` adds",
    ):
        chosen(tmp_path, path, steps={"smooth": "gz.smooth > 0.5"})
    joined(path, tmp_path, "gz", smooth=np.zeros(N))
    with pytest.raises(ValueError, match=r"no column 'gz.smoth'; did you mean 'gz.smooth'\?"):
        chosen(tmp_path, path, steps={"smooth": "gz.smoth > 0.5"})
    with pytest.raises(ValueError, match=r"no column 'zz'; did you mean 'z'\?"):
        chosen(tmp_path, path, steps={"near": "zz < 1"})


def test_the_truth_of_a_mock_may_be_asked_for(tmp_path: Path, path: str) -> None:
    age = Survey.open(path).dataset(f"truth/{CONFIG}")["age"].to_numpy()
    found = chosen(tmp_path, path, steps={"old": "truth.age > 6"})
    np.testing.assert_array_equal(found.rows[:77], age[:77] > 6)


def test_the_sample_of_camilleri(tmp_path: Path, path: str) -> None:
    row = np.arange(N)
    r_petro = np.where(row < 60, 17.0, 17.77)
    vdisp = np.where(row % 3 == 0, 100.0, np.where(row % 3 == 1, 151.0, np.nan))
    put(
        path,
        z=np.linspace(0.05, 0.1, N),
        vdisp=vdisp.astype("f4"),
        snr_r=np.where(row < 30, 15.5, 15.0).astype("f4"),
    )
    joined(path, tmp_path, "photo", r_petro=r_petro)
    found = chosen(tmp_path, path, card="c25")
    assert {cut.name: cut.left for cut in found.cuts} == {
        "read": 79,
        "sky objects": 78,
        "split": 78,
        "galaxies": 77,
        "flux_limit": 60,
        "z": 60,
        "dispersion": 20,
        "snr": 10,
    }


def test_the_sample_of_scourfield_is_level_in_halpha(tmp_path: Path, path: str) -> None:
    put(path, z=np.full(N, 0.03))
    joined(path, tmp_path, "mpa", h_alpha_flux=np.logspace(-1, 4, N), bptclass=np.ones(N, int))
    found = chosen(tmp_path, path, card="s23")
    assert len(found.bins) == 10
    assert (found.bins[0].low, found.bins[-1].high) == pytest.approx((10**0.2, 10**3.4))
    # Five decades over 80 rows are 79/5 rows a decade; each bin is 0.32 of one.
    assert {one.there for one in found.bins} <= {5, 6}
    assert found.rows.sum() == sum(one.taken for one in found.bins)
    stars = chosen(tmp_path, path, card="s23-desi")
    assert stars.bins[0].low == pytest.approx(10**1.4)


@pytest.mark.parametrize("name", sorted(p.stem for p in (CARDS / "samples").glob("*.toml")))
def test_every_sample_card_that_ships_runs(tmp_path: Path, path: str, name: str) -> None:
    found = sample_card(name)
    assert found.about
    for prefix, catalogue in found.catalogues.items():
        joined(path, tmp_path, prefix, **{column: np.ones(N) for column in catalogue.columns})
    cuts = chosen(tmp_path, path, card=name).cuts
    assert [cut.name for cut in cuts[3:]] == [*found.steps, *(["strata"] if found.strata else [])]


def test_a_sample_card_replaces_the_default_and_the_card_adds_to_it(
    tmp_path: Path, path: str
) -> None:
    assert Sample(card="stars").where == ""
    found = chosen(tmp_path, path, card="stars", where="z < 1", steps={"velocity": "z > -1"})
    assert [cut.name for cut in found.cuts[3:]] == ["stars", "velocity", "where", "velocity (4)"]
    put(path, z=np.full(N, 1e-4))
    assert np.flatnonzero(chosen(tmp_path, path, card="stars").rows).tolist() == [79]


def test_a_card_of_where_alone_keeps_its_digest() -> None:
    def content(**sample: Any) -> Card:
        return card_of(Path("x"), sample=sample)

    plain = content(where="z < 1")
    assert plain.model_dump(mode="json")["sample"] == {"where": "z < 1"}
    assert said(plain) == "z < 1"
    more = content(where="z < 1", steps={"far": "z > 0"})
    assert more.digest != plain.digest
    assert said(more) != said(plain)
    assert content(card="c25").digest != content(card="m22").digest


def test_what_is_in_a_sample_card_decides_whatever_its_words(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    told = []
    for about, cut in (("one", "z < 1"), ("two", "z < 1"), ("two", "z < 2")):
        file.write_text(f'about = "{about}"\n[steps]\nnear = "{cut}"\n')
        told.append(said(card_of(tmp_path, sample={"card": str(file)})))
    assert told[0] == told[1] != told[2]


def test_mistakes_in_a_sample_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"log10 = \[first, last\] with bins = N"):
        Strata(by="z", each=3)
    with pytest.raises(ValueError, match=r"edges are \[2\.0, 1\.0\], expected two or more"):
        Strata(by="z", edges=(2, 1), each=3)
    with pytest.raises(CardError, match=r"no card 'c26' in samples \(there: c25, m22"):
        sample_card("c26")
    file = tmp_path / "mine.toml"
    file.write_text('[step]\nnear = "z < 1"\n')
    with pytest.raises(CardError, match=r"unknown key 'step' in the card; did you mean 'steps'\?"):
        sample_card(str(file))
    wrong = tmp_path / "card.toml"
    wrong.write_text("[run]\ndir='x'\n[survey]\nroot='y'\n[sample.strata]\nby='z'\neach=1\n")
    with pytest.raises(CardError, match=r"\[sample\] strata: .*give edges"):
        load(str(wrong))
