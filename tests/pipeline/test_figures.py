"""Figures: what is drawn of what there is, and nothing where there is nothing."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from pipeline.examples import Example, portrait
from pipeline.figures import curves


def test_an_index_that_no_product_has_is_not_drawn() -> None:
    score = {"ratio": None, "curve": {}, "n": 0, "snr": None, "ratio_error": None}
    assert curves([{"alias": "stars", "indices": {"Dn4000": score}}], {}) == ""


@pytest.mark.parametrize(
    ("span", "titles"),
    [
        ((3700.0, 7499.0), ["4000 Å break, Hδ", "Mg b"]),
        ((3500.0, 4899.0), ["4000 Å break, Hδ", "Hβ"]),
        ((5520.0, 7659.0), ["Na D", "Hα, [N II]"]),
        ((7100.0, 8850.0), ["Ca II 8542", "Ca II 8662"]),
        ((9000.0, 9500.0), []),
    ],
)
def test_lines_are_shown_larger_where_they_lie_on_the_frame(
    span: tuple[float, float], titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **how: drawn.append(text))
    wavelength = np.linspace(*span, 2000)
    flux = 1 + 0.1 * np.sin(wavelength / 50)
    given = Example(
        title="whole",
        wavelength=wavelength,
        noisy=flux,
        sigma=np.full(2000, 0.1),
        denoised=flux,
        reference=None,
        words="",
    )
    assert portrait(given).startswith("data:image/png")
    assert drawn == ["whole", *titles]
