"""Stars of a block: who is measured, where fits start, and what is written where nothing is."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline.inputs import Input
from pipeline.stars import stage
from pipeline.stars.fit import measure_stars
from pipeline.stars.stage import MeasureStars, about, stars, steps
from pipeline.stars.templates import templates
from storage.schema import ObjectType, Reason, Status
from tests.pipeline.star_scene import CHOSEN, GRID, noisy, seen
from training.batch import Batch
from training.frame import Frame

SPECTRA, PRODUCT = "spectra/sdss", "denoised/sdss/dae-1a2b3c4d"
FRAME = Frame(name="small", grid=GRID, window=(8400.0, 8800.0), dust=None, rest=False)
DENOISED = Input(
    name="dae-1a2b3c4d", group=PRODUCT, variable="flux", alias="dae", checkpoint="somewhere"
)
VELOCITIES = np.array([120.0, -40.0, 300.0, 10.0, 77.0])
# A star, a galaxy, a standard, a quarantined row, a star without a product.
CLASSES = ["STAR", "GALAXY", "STAR", "STAR", "STAR"]


@dataclass
class Fake:
    """What a step sees of a block of a survey."""

    known: dict[tuple[str, str], np.ndarray]
    survey: None = None
    spectra: str = SPECTRA
    asked: list[str] = field(default_factory=list)

    def values(self, group: str, name: str) -> np.ndarray:
        self.asked.append(group)
        return self.known[group, name]

    def batch(self, frame: Frame) -> Batch:
        flux, ivar = (self.known[SPECTRA, name] for name in ("flux", "ivar"))
        return frame.on(GRID).to(flux, ivar, np.zeros(5), np.zeros(5))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Fake:
    clean = seen(VELOCITIES)
    flux, ivar = noisy(clean, snr=15)
    done = np.full(5, Status.DONE, "u1")
    status, made = done.copy(), done.copy()
    status[3], made[4] = Status.QUARANTINED, Status.NOT_APPLICABLE
    kind = np.full(5, ObjectType.SCIENCE, "u1")
    kind[2] = ObjectType.STANDARD
    monkeypatch.setattr(stage, "grid_of", lambda survey, group: GRID)
    monkeypatch.setattr(stage, "loaded", lambda path: SimpleNamespace(frame=FRAME))
    known = {
        (SPECTRA, "flux"): flux.astype("f4"),
        (SPECTRA, "ivar"): ivar.astype("f4"),
        (SPECTRA, "status"): status,
        (SPECTRA, "object_type"): kind,
        (SPECTRA, "class"): np.array(CLASSES, np.dtypes.StringDType()),
        (PRODUCT, "flux"): (clean * (made == Status.DONE)[:, None]).astype("f4"),
        (PRODUCT, "status"): made,
    }
    return Fake(known)


@pytest.mark.parametrize("start", [None, DENOISED])
def test_stars_of_science_are_measured(start: Input | None, held: Fake) -> None:
    step = MeasureStars(config="sdss", chosen=CHOSEN, start=start)
    made = step(held)  # type: ignore[arg-type]  # what is asked of it is there
    assert made["status"].values.tolist() == [Status.DONE, 3, 3, 3, Status.DONE]
    expected = [0, Reason.NOT_SCIENCE, Reason.NOT_SCIENCE, Reason.UPSTREAM_QUARANTINED, 0]
    assert made["reason_code"].values.tolist() == expected
    assert np.isnan(made["velocity"].values[1:4]).all()
    assert made["velocity"].values[[0, 4]] == pytest.approx(VELOCITIES[[0, 4]], abs=40)
    assert (PRODUCT in held.asked) == (start is not None)
    assert set(stars(5)) == set(made)


def test_the_observed_spectrum_is_what_is_fitted(held: Fake) -> None:
    flux, ivar = (held.known[SPECTRA, name][[0]] for name in ("flux", "ivar"))
    expected = measure_stars(GRID.wavelength, flux, ivar, templates=templates(CHOSEN))
    for start in (None, DENOISED):
        step = MeasureStars(config="sdss", chosen=CHOSEN, start=start)
        made = step(held)  # type: ignore[arg-type]
        assert made["velocity"].values[0] == pytest.approx(expected.velocity.item(), abs=2)
        assert made["velocity_err"].values[0] == pytest.approx(
            expected.velocity_err.item(), rel=0.1
        )


def test_a_group_is_named_by_where_its_fits_start() -> None:
    raw = MeasureStars(config="sdss", chosen=CHOSEN)
    assert (raw.group, about(raw)["start"]) == ("stars/sdss/raw", "raw")
    assert raw.needs == ((SPECTRA, "flux"), (SPECTRA, "ivar"))
    other = MeasureStars(config="sdss", chosen=CHOSEN, start=DENOISED)
    assert other.group == "stars/sdss/dae-1a2b3c4d"
    assert other.needs[-1] == (PRODUCT, "flux")


def test_the_line_spread_is_that_of_the_survey() -> None:
    lsf = np.zeros((4, GRID.size), "f2")
    lsf[1:3] = 1.0
    options = CHOSEN.model_dump(exclude={"line_spread"})
    found = steps("sdss", _survey(lsf), [DENOISED], options)
    assert [step.group for step in found] == ["stars/sdss/raw", "stars/sdss/dae-1a2b3c4d"]
    curve = np.array(found[0].chosen.line_spread)
    assert curve[:, 1] == pytest.approx(69.03 * np.sqrt(1 + 1 / 12), rel=1e-3)
    (told,) = steps("sdss", _survey(lsf), [], options | {"line_spread": 50.0})
    assert told.chosen.line_spread == 50.0
    with pytest.raises(ValueError, match=r"here: spectra/sdss/lsf: no pixel has a line spread"):
        steps("sdss", _survey(0 * lsf), [], options)


def test_every_column_says_its_unit() -> None:
    made = stars(3)
    assert [name for name, v in made.variables.items() if "units" not in v.attrs] == []
    assert made["flag"].attrs["flag_meanings"].split()[0] == "too_few"
    assert np.isnan(made["teff"].values).all()
    assert torch.tensor(made["flag"].values.tolist()).sum() == 0


def _survey(lsf: np.ndarray) -> Any:
    spectra = xr.Dataset({"lsf": (("spectrum", "wavelength"), lsf)})
    about = {"grid": GRID.model_dump()}
    return SimpleNamespace(path="here", dataset=lambda group: spectra, attrs=lambda group: about)
