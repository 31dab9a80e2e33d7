"""Indices beside those of the MaNGA DAP (sdss-mangadap), whose answers are kept in dap_peer.npz."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.definition import Atomic, Break
from pipeline.index import find, measure
from storage.grid import air_to_vacuum, vacuum_to_air
from tests.pipeline import dap_peer

KEPT = Path(__file__).with_name("dap_peer.npz")


def theirs(name: str) -> np.ndarray:
    with np.load(KEPT) as answer:
        return np.asarray(answer[name])


@pytest.mark.parametrize("axis", dap_peer.AXES)
def test_indices_are_those_of_the_manga_dap(axis: str) -> None:
    wave, flux = dap_peer.AXES[axis], dap_peer.toy(axis)
    found = measure(wave, flux, None, dap_peer.NAMES).value
    # On log pixels the DAP takes the continuum at their geometric middle.
    np.testing.assert_allclose(found, theirs(axis), rtol=0, atol=5e-6 if axis == "log" else 1e-10)


def seen_by_dap() -> Sequence[Atomic | Break]:
    """Our indices at the bands that the DAP has in vacuum."""
    made = []
    for name in dap_peer.NAMES:
        index, bands = find(name), vacuum_to_air(theirs(f"bands/{name}"))
        assert isinstance(index, Atomic | Break)
        fields = ("blue", "feature", "red") if isinstance(index, Atomic) else ("blue", "red")
        made.append(replace(index, **dict(zip(fields, map(tuple, bands.tolist()), strict=True))))
    return made


@pytest.mark.parametrize("axis", dap_peer.AXES)
def test_at_its_own_bands_the_dap_differs_by_the_refraction_of_air(axis: str) -> None:
    wave, flux = dap_peer.AXES[axis], dap_peer.toy(axis)
    for name in dap_peer.NAMES:
        ours = air_to_vacuum(find(name).bands)
        # Ciddor (1996) there, Morton (1991) here.
        np.testing.assert_allclose(theirs(f"bands/{name}"), ours, rtol=0, atol=3e-3)
    found = measure(wave, flux, None, seen_by_dap()).value
    np.testing.assert_allclose(found, theirs(f"{axis}/own"), rtol=0, atol=5e-6)
    published = measure(wave, flux, None, dap_peer.NAMES).value
    np.testing.assert_allclose(published, theirs(f"{axis}/own"), rtol=0, atol=1e-3)


def test_populations_in_air_have_the_indices_of_the_dap(survey_data: Path) -> None:
    wave, flux = dap_peer.miuscat(survey_data / "ssp_miuscat")
    found = measure(wave, flux, None, dap_peer.NAMES, medium="air").value
    # The DAP was run in air: its widths are in A of air, 2.8e-4 shorter than in vacuum.
    longer = [np.diff(air_to_vacuum(find(n).bands[1])) / np.diff(find(n).bands[1]) for n in LICK]
    width = dict(zip(LICK, np.ravel(longer), strict=True))
    scale = [width.get(name, 1.0) for name in dap_peer.NAMES]
    np.testing.assert_allclose(found, theirs("miuscat") * scale, rtol=0, atol=1e-5)


LICK = [name for name in dap_peer.LICK if name not in dap_peer.MAGNITUDES]
