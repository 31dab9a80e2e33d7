"""Emission lines of a survey: in the pass of denoise and measure, resumed, stale, asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client

from pipeline import line_stage, reprocess, stage
from pipeline import product as products
from pipeline.block import Bad, Block
from pipeline.card import Card
from pipeline.card_measure import Measure as Table
from pipeline.compare import compare, side
from pipeline.errors import ErrorKind
from pipeline.held import Held
from pipeline.inputs import inputs
from pipeline.line_stage import MeasureLines
from pipeline.line_templates import line_templates
from pipeline.lines import fit, solve
from pipeline.lines.fit import LineFlag
from pipeline.lines.line_list import LINES, number
from pipeline.passes import Pass, is_done, look, run, steps_of
from pipeline.query import open_survey
from pipeline.verify import verify
from storage.dust import curve
from storage.schema import Reason, Status
from storage.store import Survey
from storage.velocity import C_KMS
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, GRID

pytestmark = pytest.mark.cluster

N = 24
HALPHA, HBETA = number("Halpha"), number("Hbeta")
INPUTS = ("raw", "raw@frame", "truth@frame", "denoised")
ROUTES = {"where": "z < 0.08", "model": "factors"}, {"where": "z >= 0.08", "model": "filter"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


def survey_in(folder: Path, **measure: Any) -> Card:
    save(folder, "factors", factors(ingested(folder, N)))
    save(folder, "filter")
    tables = {"inputs": ["raw", "denoised"], "lines": INPUTS, **measure}
    return card_of(folder, *ROUTES, measure=tables)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Card:
    """A survey that is denoised by two models, with the lines of everything."""
    found = survey_in(tmp_path_factory.mktemp("lines"))
    run(found, client)
    return found


def changed(card: Card, **tables: Any) -> Card:
    return Card.model_validate({**card.model_dump(mode="json"), **tables})


def measured(card: Card, name: str) -> xr.Dataset:
    """A group of lines, by the beginning of its name."""
    survey = Survey.open(card.store)
    names = [g for g in survey.groups() if g.startswith(f"lines/{CONFIG}/")]
    (group,) = (g for g in names if g.rpartition("/")[2].partition("-")[0] == name)
    return survey.dataset(group).load()


def rows_of(card: Card, name: str, first: int, last: int, *bad: Bad) -> xr.Dataset:
    """What a worker makes of rows, in this process."""
    survey = Survey.open(card.store)
    steps = steps_of(card, survey, ["measure"])
    (step,) = (s for s in steps if isinstance(s, MeasureLines) and s.input.alias == name)
    work = Pass(store=card.store, snapshot=survey.snapshot, config=CONFIG, steps=(step,))
    block = Block(first=first, last=last, groups=frozenset([step.group]), bad=bad)
    return work(block, work.read(block))[step.group]


def test_every_input_has_its_lines_with_units_and_provenance(card: Card) -> None:
    survey = Survey.open(card.store)
    groups = [group for group in survey.groups() if group.startswith("lines/")]
    labels = sorted(group.rpartition("/")[2].partition("-")[0] for group in groups)
    assert labels == ["factors", "filter", "raw", "raw@fs", "truth@fs"]
    for group in groups:
        ds, about = survey.dataset(group), survey.attrs(group)
        assert [name for name, v in ds.variables.items() if "units" not in v.attrs] == []
        assert {"input", "input_snapshot", "code_version", "card_digest"} <= set(about)
        assert about["dust"] == "F99"
        assert about["wavelengths"]["Halpha"] == pytest.approx(6564.61, abs=0.01)
    assert is_done(card)


def test_lines_of_raw_are_of_the_dereddened_spectra(card: Card) -> None:
    ds, found = Survey.open(card.store).dataset(SPECTRA).load(), measured(card, "raw")
    flux, ivar, lsf, z, ebv = (ds[n].to_numpy() for n in ("flux", "ivar", "lsf", "z", "ebv"))
    bright = 10 ** (0.4 * curve("F99", GRID.wavelength)[None] * ebv[:, None])
    rows = [0, 5, 9]
    expected = fit.measure_lines(
        GRID.wavelength,
        (flux * bright)[rows].astype("f4"),
        (ivar / bright**2)[rows].astype("f4"),
        z[rows],
        lsf=lsf[rows].astype("f4"),
    )
    for name, unlike in (("flux", 0.02), ("flux_err", 0.01), ("ew", 0.02), ("velocity", 0.05)):
        want, have = (
            getattr(expected, name).numpy()[:, HALPHA],
            found[name].to_numpy()[rows, HALPHA],
        )
        # Within some of its error: the two have other neighbours in their block.
        error = getattr(expected, f"{name.removesuffix('_err')}_err").numpy()[:, HALPHA]
        assert (np.abs(have - want) <= unlike * error + 1e-6).all(), name
    assert (found["error_kind"].to_numpy()[rows] == ErrorKind.FORMAL).all()


def test_only_what_is_done_upstream_and_of_the_sky_is_measured(card: Card) -> None:
    found = measured(card, "raw")
    assert found["reason_code"].to_numpy()[-3:].tolist() == [
        Reason.UPSTREAM_QUARANTINED,
        Reason.NOT_SCIENCE,
        Reason.NONE,
    ]
    assert np.isnan(found["flux"].to_numpy()[-3:-1]).all()
    assert (found["error_kind"].to_numpy()[-3:-1] == ErrorKind.NONE).all()


def test_a_frame_keeps_the_flux_of_the_sky_and_the_width_at_rest(card: Card) -> None:
    native, framed = measured(card, "raw"), measured(card, "raw@fs")
    strong = native["flux"].to_numpy()[:, HALPHA] > 20 * native["flux_err"].to_numpy()[:, HALPHA]
    assert strong.sum() >= 5
    for name in ("flux", "ew"):
        ratio = (framed[name] / native[name]).to_numpy()[strong, HALPHA]
        # 5 to 14 % if 1 + z, or three times that if the level of the frame, were forgotten.
        assert abs(np.median(ratio) - 1) < 0.03, name


def test_the_instrument_is_as_wide_on_a_frame_as_where_it_was(card: Card) -> None:
    survey, z = Survey.open(card.store), 0.1
    steps = {s.input.alias: s for s in steps_of(card, survey, ["measure"])}
    held = Held(card.store, survey.snapshot, CONFIG, Block(first=0, last=2))
    held._values[SPECTRA, "lsf"] = np.full((2, GRID.size), 1.3, "f2")
    held._values[SPECTRA, "z"] = np.full(2, z)
    done = np.ones(2, bool)
    native, framed = (
        line_stage._given(steps[name].input, held, done) for name in ("raw", "raw@fs")
    )
    velocity = 1.3 * GRID.step * np.log(10) * C_KMS
    for given, at in ((native, 5500 * (1 + z)), (framed, 5500)):
        pixel = np.abs(given.wavelength - at).argmin()
        width = np.gradient(given.wavelength)[pixel] / given.wavelength[pixel] * C_KMS
        found = float(given.lsf[0, pixel]) * width
        assert found == pytest.approx(velocity, rel=0.01)


def test_what_has_no_noise_has_no_error_and_no_limit(card: Card) -> None:
    found = measured(card, "truth@fs")
    done = (found["status"] == Status.DONE).to_numpy()
    assert np.isfinite(found["flux"].to_numpy()[done, HALPHA]).all()
    for name in ("flux_err", "ew_err", "sigma_err", "velocity_err", "limit", "chi2"):
        assert np.isnan(found[name]).all(), name
    assert not (found["flag"].to_numpy() & LineFlag.NOT_DETECTED).any()
    assert (found["error_kind"] == ErrorKind.NONE).all()


def test_a_product_without_a_posterior_has_no_errors(card: Card) -> None:
    found = measured(card, "filter")
    assert (found["status"] == Status.DONE).any()
    assert np.isnan(found["flux_err"]).all()


def test_errors_on_a_product_are_the_scatter_of_its_posterior(card: Card) -> None:
    found = measured(card, "factors")
    done = (found["status"] == Status.DONE).to_numpy()
    error = found["flux_err"].to_numpy()[done, HALPHA]
    assert (error > 0).all()
    assert (found["error_kind"].to_numpy()[done] == ErrorKind.DRAWS).all()
    # Of four components: nothing like what independent pixels of no noise would give.
    flux, raw = (ds["flux"].to_numpy()[done, HALPHA] for ds in (found, measured(card, "raw@fs")))
    noise = measured(card, "raw@fs")["flux_err"].to_numpy()[done, HALPHA]
    pull = (flux - raw) / np.hypot(error, noise)
    assert np.median(np.abs(pull)) < 1.5
    assert "not calibrated" in found["error_kind"].attrs["long_name"]


def test_what_is_given_and_not_fitted_has_no_error_on_a_product_either(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "STANDS_OUT", 1e9)
    found = rows_of(card, "factors", 0, N)
    done = (found["status"] == Status.DONE).to_numpy()
    assert (found["sigma"].to_numpy()[done, HALPHA] == solve.USUAL_KMS).all()
    assert (found["flux_err"].to_numpy()[done, HALPHA] > 0).all()
    # Sixteen draws of what is given scatter by 0.
    for name in ("sigma_err", "velocity_err"):
        assert np.isnan(found[name]).all(), name


def test_draws_that_are_all_alike_are_no_error(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_stage, "scatter", lambda *_, **__: torch.zeros(N, 4 * len(LINES)))
    found = rows_of(card, "factors", 0, N)
    assert np.isnan(found["flux_err"]).all()
    assert not (found["flag"].to_numpy() & LineFlag.NOT_DETECTED).any()
    assert (found["error_kind"] == ErrorKind.NONE).all()


def test_nothing_depends_on_who_measures_which_block(card: Card) -> None:
    once, again = (rows_of(card, "raw", 0, N) for _ in range(2))
    whole = measured(card, "raw")
    for name in ("flux", "flux_err", "sigma", "flag"):
        assert once[name].to_numpy().tobytes() == again[name].to_numpy().tobytes(), name
    # Workers have another number of threads, which round differently.
    apart = np.abs(once["flux"] - whole["flux"]) / once["flux_err"]
    assert float(apart.max()) < 0.1


def test_a_row_that_is_left_out_changes_no_bit_of_others(card: Card) -> None:
    bad = Bad(row=7, code=Reason.FAILED, text="left out")
    whole, without = rows_of(card, "raw", 0, N), rows_of(card, "raw", 0, N, bad)
    others = np.arange(N) != 7
    for name in whole.data_vars:
        one, other = (ds[name].to_numpy()[others] for ds in (whole, without))
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert np.isnan(without["flux"].to_numpy()[7]).all()


def test_a_second_pass_has_nothing_to_do_and_a_broken_one_goes_on(
    tmp_path: Path, client: Client
) -> None:
    card = survey_in(tmp_path, inputs=["raw"], lines=["raw"])
    first = run(card, client, ["measure"])
    group = f"lines/{CONFIG}/raw"
    assert first[group].computed == N
    assert not run(card, client, ["measure"])[group].computed
    before = measured(card, "raw")
    with writing(card.store, "test") as writer:
        writer.reset(group, np.array([3, 5]))
        writer.commit("two rows pending")
    (stale,) = look(card, ["measure"])
    assert (stale.group, stale.rows) == (group, 2)
    assert [found.stage for found in reprocess.look(card) if group in found.what] == ["map"]
    run(card, client, ["measure"])
    assert is_done(card, ["measure"])
    after = measured(card, "raw")
    for name in before.data_vars:
        assert before[name].to_numpy().tobytes() == after[name].to_numpy().tobytes(), name


def test_a_new_fit_makes_lines_stale_and_nothing_else(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_stage, "VERSION", line_stage.VERSION + 1)
    stale = look(card)
    assert {one.group.split("/")[0] for one in stale} == {"lines"}
    assert {one.rows for one in stale} == {N}
    assert all("version" in one.why[0] for one in stale)


def test_other_draws_concern_products_alone(card: Card) -> None:
    table = card.measure.model_dump(mode="json") | {"draws": 20}
    stale = {one.group.partition("-")[0]: one.why for one in look(changed(card, measure=table))}
    assert set(stale) == {
        f"{kind}/{CONFIG}/{name}" for kind in ("indices", "lines") for name in ("factors", "filter")
    }
    assert set(stale.values()) == {("draws: 16 -> 20",)}


def test_templates_count_by_what_is_in_their_files(card: Card, tmp_path: Path) -> None:
    folder, moved = tmp_path / "ssp", tmp_path / "moved"
    for path in (folder, moved):
        path.mkdir()
        (path / "one.fits").write_bytes(b"as it was")
    table = card.measure.model_dump(mode="json")

    def why(pattern: Path, **more: Any) -> set[tuple[str, ...]]:
        asked = changed(card, measure={**table, "templates": str(pattern), **more})
        return {one.why for one in look(asked) if one.group.startswith("lines/")}

    ((first,),) = why(folder / "*.fits")
    assert first.startswith("templates: computed -> ")
    assert why(moved / "*.fits") == {(first,)}
    assert why(folder / "*.fits", template_fwhm=2.5) != {(first,)}
    (folder / "one.fits").write_bytes(b"as it is")
    assert why(folder / "*.fits") != {(first,)}


def test_templates_that_are_not_there_are_named(card: Card, tmp_path: Path) -> None:
    table = Table(lines=("raw",), templates=str(tmp_path / "*.fits"))
    with pytest.raises(FileNotFoundError, match=r"measure.templates: no file matches .*\*\.fits"):
        line_templates(table)


def test_a_changed_rule_makes_lines_of_its_product_pending(card: Card, client: Client) -> None:
    moved = [{**ROUTES[0], "where": "z < 0.09"}, {**ROUTES[1], "where": "z >= 0.09"}]
    table = card.denoise.model_dump(mode="json") | {"route": moved}
    stale = look(changed(card, denoise=table))
    rows = {one.group.split("/")[0]: one.rows for one in stale}
    assert rows.keys() == {"denoised", "indices", "lines"}
    assert len(set(rows.values())) == 1


def test_without_lines_on_the_card_there_are_none(card: Card) -> None:
    survey = Survey.open(card.store)
    table = card.measure.model_dump(mode="json") | {"lines": []}
    steps = steps_of(changed(card, measure=table), survey, ["measure"])
    assert not [step for step in steps if isinstance(step, MeasureLines)]


def test_an_input_that_does_not_exist_is_named(card: Card) -> None:
    table = card.measure.model_dump(mode="json") | {"lines": ["raw@sf"]}
    wrong = changed(card, measure=table)
    with pytest.raises(ValueError, match=r"measure.lines: no 'raw@sf' \(there: raw, raw@frame"):
        inputs(wrong, Survey.open(card.store), key="lines")


def test_the_other_verbs_cope_with_lines(card: Card) -> None:
    findings = [f for f in verify(card.store) if f.group.startswith("lines/")]
    assert findings == []
    found = compare(side(f"{card.store}:raw"), side(f"{card.store}:raw"))
    assert (found.bins["median"] == 0).all()


def test_lines_are_queried_beside_indices(card: Card) -> None:
    ds = open_survey(card.store)
    ds = ds[["raw.Halpha_flux", "raw.Halpha_flux_error", "raw.Mgb", "raw.bpt", "factors.bpt"]]
    found = ds.spectra.select("raw.Halpha_flux > 20 * raw.Halpha_flux_error and raw.Mgb < 5")
    assert 0 < found.sizes["spectrum"] < N
    kinds = set(ds["raw.bpt"].to_numpy().tolist())
    assert kinds <= {"", "star-forming", "composite", "AGN", "unclassified"}
    assert "" in kinds
