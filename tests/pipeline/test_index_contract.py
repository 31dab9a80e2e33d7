"""Every index on the shelf keeps the contract."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from pipeline.card_words import CardError
from pipeline.definition import Atomic, Break
from pipeline.index import Index, find, measure, names, units
from pipeline.index_aliases import ALIASES
from pipeline.user_bands import faults
from pipeline.user_indices import chosen
from storage.names import resolve, shelf

TRAGER_98 = "Trager et al. 1998, ApJS 116, 1"
WORTHEY_97 = "Worthey & Ottaviani 1997, ApJS 111, 377"
WAVE = 3600.0 + np.arange(5300)


@pytest.mark.parametrize("module", shelf("pipeline.indices"))
def test_module_says_what_it_holds(module: str) -> None:
    found = resolve("pipeline.indices", module)
    assert found.__doc__
    assert len(found.INDICES) > 0


@pytest.mark.parametrize("name", names())
def test_index_is_described_and_its_bands_ascend(name: str) -> None:
    index = find(name)
    assert index.reference
    assert units(name) in {"Angstrom", "mag", "1"}
    assert all(3000 < low < high < 10000 for low, high in index.bands)
    assert list(faults(index)) == []


@pytest.mark.parametrize("name", names())
def test_index_is_measured_alike_at_rest_and_moved(name: str) -> None:
    strong = 0.6 * np.exp(-0.5 * ((WAVE - np.array([[5177], [5267], [5334]])) / 6) ** 2).sum(0)
    flux = (1.0 + 0.1 * np.sin(WAVE / 40.0) - strong)[None]
    ivar = np.full_like(flux, 900.0)
    rest = measure(WAVE, flux, ivar, (name,))
    moved = measure(WAVE * 1.2, flux, ivar, (name,), z=np.array([0.2]))
    np.testing.assert_allclose(moved.value, rest.value, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(moved.error, rest.error, rtol=1e-8)
    assert rest.value.isfinite().all()
    assert (rest.error > 0).all()


def test_the_shelf_has_the_lick_system_and_the_breaks() -> None:
    assert {"Dn4000", "D4000", "B4000", "HdeltaA", "HdeltaF", "HgammaF", "Hbeta", "Mgb"} < set(
        names()
    )
    magnitudes = {name for name in names() if units(name) == "mag"}
    assert {"CN1", "CN2", "Mg1", "Mg2", "TiO1", "TiO2"} < magnitudes
    lick = [name for name in names() if find(name).reference in (TRAGER_98, WORTHEY_97)]
    assert len(lick) == 25


@pytest.mark.parametrize(("other", "name"), ALIASES.items())
def test_an_index_goes_by_the_names_of_others(other: str, name: str) -> None:
    assert find(other) is find(name)
    assert find(name).name == name


OURS = Atomic(
    name="Ours", blue=(6000, 6010), feature=(6010, 6030), red=(6030, 6040), reference="ours"
)


def bring(monkeypatch: pytest.MonkeyPatch, *indices: Index) -> None:
    theirs = types.ModuleType("mylab.indices")
    theirs.INDICES = indices  # type: ignore[attr-defined]  # what their file would hold
    monkeypatch.setitem(sys.modules, "mylab.indices", theirs)


def test_anybody_may_bring_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    gap = Break(name="Gap", blue=(4200, 4300), red=(4400, 4500), density="lambda", reference="ours")
    bring(monkeypatch, gap, OURS)
    flux = np.where(WAVE > 4350, 3.0, 2.0)[None]
    found = measure(WAVE, flux, None, ("mylab.indices.Gap", "mylab.indices.Ours"))
    np.testing.assert_allclose(found.value, [[1.5, 0.0]], atol=1e-12)
    with pytest.raises(ValueError, match=r"no index 'mylab.indices.Gaps'.*did you mean 'Gap'"):
        find("mylab.indices.Gaps")


def test_what_anybody_brings_is_looked_at_as_a_table_is(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["mylab.indices.Ours", "Mgb"]
    bring(monkeypatch, OURS)
    assert [index.name for index in chosen(names)] == ["Ours", "Mgb"]
    bring(monkeypatch, replace(OURS, blue=(6010, 6000)))
    with pytest.raises(CardError, match=r"mylab.indices.Ours: band 6010-6000 is reversed or empty"):
        chosen(names)
    bring(monkeypatch, replace(OURS, name="Mgb"))
    with pytest.raises(CardError, match=r"the shelf has 'Mgb' with other bands"):
        chosen(["mylab.indices.Mgb"])
    bring(monkeypatch)
    with pytest.raises(ValueError, match=r"module 'mylab.indices': no INDICES in it"):
        chosen(names)


def test_an_index_is_asked_for_once() -> None:
    with pytest.raises(CardError, match=r"index C2_4668: asked for twice, or by two names"):
        chosen(["Fe4668", "Mgb", "C2_4668"])
