"""What a card asks to be measured, and what of it makes values stale."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.card_measure import Measure
from pipeline.index import Flag, find, measure
from pipeline.index_lick import on_axis
from pipeline.index_rules import Rules
from storage.grid import Grid
from tests.pipeline.our_table import OURS

WAVE = 4100.0 + np.arange(2200)


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "ours.toml"
    path.write_text(OURS)
    return str(path)


def spectra() -> np.ndarray:
    lines = [np.exp(-0.5 * ((WAVE - centre) / 3) ** 2) for centre in (5177, 5270, 5334, 6020)]
    return np.asarray(2 - 0.6 * np.sum(lines, 0))[None]


def test_definitions_travel_without_their_file(table: str) -> None:
    rules = Rules.of(Measure(indices=("Mg_b", "Ours"), tables=(table,)))
    Path(table).unlink()
    there = pickle.loads(pickle.dumps(rules))
    assert there == rules
    # A table of errors is asked by them, in the worker too.
    assert (there.keys, there.recipe) == (rules.keys, rules.recipe)
    assert there.keys[0] == "Mgb"
    assert there.names == ("Mgb", "Ours")
    assert there.units == {"Mgb": "Angstrom", "Ours": "Angstrom"}
    found = there(WAVE, spectra(), None).value
    expected = measure(WAVE, spectra(), None, rules.indices).value
    np.testing.assert_array_equal(found, expected)
    assert found.isfinite().all()


def test_what_is_as_ever_makes_nothing_stale(table: str) -> None:
    assert Rules.of(Measure()).recipe == {"indices": ["Dn4000", "HdeltaF", "Mgb"]}
    assert Rules.of(Measure(tables=(table,))).recipe == Rules.of(Measure()).recipe


def test_a_changed_definition_or_rule_makes_stale(table: str) -> None:
    first = Rules.of(Measure(indices=("Ours",), tables=(table,))).recipe
    assert first["definitions"]["Ours"]["feature"] == [6010.0, 6030.0]
    Path(table).write_text(OURS.replace("our paper", "our published paper") + "# a note")
    assert Rules.of(Measure(indices=("Ours",), tables=(table,))).recipe == first
    Path(table).write_text(OURS.replace("6030.0]", "6029.0]"))
    assert Rules.of(Measure(indices=("Ours",), tables=(table,))).recipe != first
    assert Rules.of(Measure(missing=0.2)).recipe["missing"] == 0.2
    assert Rules.of(Measure(resolution="lick")).recipe["resolution"] == "lick"


def test_the_rules_of_the_card_are_kept() -> None:
    flux, ivar = spectra(), np.full((1, WAVE.size), 100.0)
    ivar[0, (WAVE > 5145) & (WAVE < 5149.2)] = 0
    strict, lenient = (Rules.of(Measure(indices=("Mgb",), missing=m)) for m in (0.1, 0.4))
    assert strict(WAVE, flux, ivar).value.isnan().all()
    assert lenient(WAVE, flux, ivar).value.isfinite().all()


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_without_a_line_spread_there_is_no_resolution_of_lick(kind: type) -> None:
    rules = Rules.of(Measure(indices=("Mgb",), resolution="lick"))
    flux = kind(spectra())
    assert int(rules(WAVE, flux, None).flag) & Flag.RESOLUTION
    known = rules(WAVE, flux, None, lsf=kind(np.full((1, WAVE.size), 1.5)))
    assert not int(known.flag) & Flag.RESOLUTION
    assert float(known.value) < float(measure(WAVE, flux, None, (find("Mgb"),)).value)


def test_line_spread_follows_a_spectrum_to_its_frame() -> None:
    """A line of so many km/s is as many at rest."""
    observed = Grid(kind="log", start=3.6, step=1e-4, size=3000)
    rest = Grid(kind="linear", start=4000, step=1, size=1500)
    z = np.array([0.05, 0.2, 1.5])
    found = on_axis(np.full((3, observed.size), 1.2), observed, rest, z)
    expected = 1.2 * (10**1e-4 - 1) * rest.wavelength
    np.testing.assert_allclose(found[:2], np.stack([expected, expected]), rtol=1e-3)
    # At z = 1.5 the blue end of the frame is beyond what was observed.
    assert (found[2, rest.wavelength * 2.5 > observed.edges[-1]] == 0).all()
    same = on_axis(np.full((1, observed.size), 1.2), observed, observed, None)
    np.testing.assert_allclose(same, 1.2, rtol=1e-6)
