"""Outside its footprint: what follows from the bins, and what is written of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.card import Card
from pipeline.card_outside import Outside
from pipeline.cli import app
from pipeline.outside import NUMBERS, PICTURE, outside, own, write
from pipeline.places import Found, Place
from tests.pipeline.scene import FOOTPRINT, card_of, save
from training.frame import Frame
from training.frames import named
from training.verdict import REFERENCE

PRESENT = {"z": (0.05, 0.1), "sigma_v": None, "snr": (3.0, 20.0)}


def place(axis: str, low: float, high: float, worth: float | None) -> Place:
    values = {} if worth is None else {"Dn4000": 1.0, "Mgb": worth}
    return Place(
        axis=axis,
        low=low,
        high=high,
        name=f"{axis} {low}-{high}",
        worth=values,
        noise={name: 0.3 * value for name, value in values.items()},
        error={name: 0.1 * value for name, value in values.items()},
        why="" if values else "the frame is not covered",
    )


def found(*worths: float | None, axis: str = "z", **present: Any) -> Found:
    """Bins of 0.05 that begin at 0."""
    places = tuple(
        place(axis, 0.05 * number, 0.05 * (number + 1), worth)
        for number, worth in enumerate(worths)
    )
    return Found(path=Path("x"), present={**PRESENT, **present}, at=(5, 6), places=places)


def test_the_worst_index_decides_a_bin() -> None:
    assert place("z", 0, 1, REFERENCE).holds
    assert not place("z", 0, 1, REFERENCE + 0.01).holds
    assert not place("z", 0, 1, float("nan")).holds
    assert not place("z", 0, 1, None).holds


def test_what_adds_to_the_noise_does_not_hold() -> None:
    # At high S/N a linear reference may be worse than the spectrum itself.
    poor = replace(place("snr", 25, 40, 0.9), noise={"Dn4000": 1.3, "Mgb": 0.5})
    assert not poor.holds


@pytest.mark.parametrize(
    ("worths", "expected"),
    [
        ((1.0, 1.2, 1.4, 2.0), (0.0, 0.15)),
        ((3.0, 1.2, 3.0, 1.0, 1.0), (0.05, 0.1)),
        ((1.0, 3.0, 1.0, 1.0), None),
        ((1.0, 1.0, None, 1.0), (0.0, 0.1)),
        ((2.0, 2.0), None),
    ],
)
def test_a_footprint_is_the_bins_around_it_without_a_gap(
    worths: tuple[float | None, ...], expected: tuple[float, float] | None
) -> None:
    follows = found(*worths).follows["z"]
    assert follows == (expected if expected is None else pytest.approx(expected))


def test_without_a_footprint_the_longest_run_of_bins_follows() -> None:
    follows = found(1.0, 2.0, 1.0, 1.0, axis="sigma_v").follows["sigma_v"]
    assert follows == pytest.approx((0.1, 0.2))


def test_what_was_found_is_written_as_json_and_drawn(tmp_path: Path) -> None:
    places = (
        *(place("z", 0.1 * n, 0.1 * (n + 1), 1.0 + n) for n in range(3)),
        place("z", 0.3, 0.4, None),
        *(place("sigma_v", 100 * n, 100 * (n + 1), float("nan")) for n in range(2)),
        *(place("snr", 2**n, 2 ** (n + 1), 1.2) for n in range(3)),
        place("survey", 0, 0, 9.0),
    )
    write(Found(path=tmp_path, present=PRESENT, at=(5, 6), places=places))
    told = json.loads((tmp_path / NUMBERS).read_text())
    assert told["present"]["z"] == [0.05, 0.1]
    assert told["follows"] == {"z": [0.0, 0.1], "sigma_v": None, "snr": [1, 8]}
    assert told["tried"] == {"z": [0.0, 0.4], "sigma_v": [0, 200], "snr": [1, 8]}
    assert told["at"] == [5, 6]
    assert [one["holds"] for one in told["places"]][:4] == [True, False, False, False]
    assert told["places"][4]["worth"]["Mgb"] is None
    assert told["places"][3]["why"] == "the frame is not covered"
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_edges_ascend() -> None:
    with pytest.raises(ValueError, match=r"z = \[0.2, 0.1\]: expected two or more edges"):
        Outside(z=(0.2, 0.1))
    card = card_of(Path("x"), outside={"n": 17})
    assert card.digest == card_of(Path("x")).digest


def small(folder: Path, **table: Any) -> Card:
    bins = {"z": (0.06, 0.1), "sigma_v": (150, 200), "snr": (5, 6), "n": 40, "reference": 200}
    return card_of(folder, outside={**bins, **table})


def test_a_mock_that_has_no_such_bins_is_named(tmp_path: Path) -> None:
    save(tmp_path, "low")
    with pytest.raises(ValueError, match=r"mock mock-v1 does not take .*; \[outside\] is for gal"):
        outside(small(tmp_path, z=(0.3, 0.5)), ["low"])


def test_on_observed_wavelengths_the_reference_learns_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def none(made: object, frame: Frame, *_: object) -> None:
        asked.append(frame.name)
        raise ValueError("none lies on it")

    monkeypatch.setattr("pipeline.outside.linear", none)
    save(tmp_path, "low", frame=named("spender"))
    (seen,) = outside(small(tmp_path), ["low"])
    assert set(asked) == {"fs"}
    assert {one.why for one in seen.places} == {"none lies on it"}
    assert set(seen.follows.values()) == {None}


def test_the_models_of_a_card_are_those_that_it_trains(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint in .*; `specmill train` makes them"):
        own(small(tmp_path))
    save(tmp_path, "low")
    save(tmp_path, "other", cutoff=0.1)
    assert own(small(tmp_path)) == ["low", "other"]
    trains = card_of(tmp_path, train={"model": [{"name": "low", "card": "butterworth"}]})
    assert own(trains) == ["low"]


@pytest.mark.slow
def test_filters_are_no_denoisers_anywhere(tmp_path: Path) -> None:
    paths = [save(tmp_path, "low"), save(tmp_path, "lower", cutoff=0.1)]
    desi = {"name": "desi", "mock": "mock-desi", "reader": "desi"}
    every = outside(small(tmp_path, survey=[desi]))
    assert [seen.path for seen in every] == paths
    for seen, path in zip(every, paths, strict=True):
        assert [one.axis for one in seen.places] == ["z", "sigma_v", "snr", "survey"]
        for one in seen.places:
            assert set(one.worth) == {"Dn4000", "HdeltaF", "Mgb"}
            assert one.worth["Mgb"] > REFERENCE
        assert seen.follows == {"z": None, "sigma_v": None, "snr": None}
        assert seen.present["z"] == FOOTPRINT.z
        assert (path / NUMBERS).is_file()
        assert (path / PICTURE).is_file()
    for one in every[0].places:
        assert one.noise["Mgb"] == pytest.approx(1, abs=0.1)


def test_the_verb_takes_many_models_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def seen(card: Card, models: list[str]) -> list[Found]:
        asked.append(models)
        return [
            replace(found(2.0, 1.0, 1.0), path=tmp_path / name) for name in models or ["a", "b"]
        ]

    monkeypatch.setattr("pipeline.outside.outside", seen)
    file = tmp_path / "card.toml"
    file.write_text("[run]\ndir='x'\n[survey]\nroot='y'\n")
    for names, count in (([], 2), (["p"], 1)):
        said = CliRunner().invoke(app, ["outside", str(file), *names])
        assert said.exit_code == 0, said.output
        assert said.output.count("z: footprint 0.05-0.1, holds in 0.05-0.15") == count
        assert said.output.count("beyond") == count
    assert asked == [[], ["p"]]
