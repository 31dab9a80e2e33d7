"""Compare: two runs held against each other, in formal errors, by S/N and class."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.compare import SNR, compare, side
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.stores import CONFIG, build

INDEX = "Mgb"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(build(tmp_path / "one", n=60).card.store)


def shifted(path: str, row: int, by: float) -> float:
    """Move one raw@frame index of one row by so many of its errors; gives its error."""
    survey = Survey.open(path)
    (group,) = (g for g in survey.groups() if g.startswith(f"indices/{CONFIG}/raw@"))
    ds = survey.dataset(group).load()
    column = [str(name) for name in ds["index"].to_numpy()].index(INDEX)
    value, error = ds["value"].to_numpy(), ds["error"].to_numpy()
    value[row, column] += by * error[row, column]
    with writing(path, "test") as writer:
        writer.write_columns(group, 0, {"value": value})
        writer.commit("moved")
    return float(error[row, column])


def test_a_run_does_not_differ_from_itself(store: str) -> None:
    found = compare(side(f"{store}:raw@fs"), side("raw@fs", other=f"{store}:raw@fs"))
    assert (found.bins["median"] == 0).all()
    assert (found.bins["far"] == 0).all()
    assert (found.rows[["only A", "only B"]] == 0).all(axis=None)
    assert set(found.bins["by"]) == {"snr_g", "class"}


def test_the_row_that_moved_is_the_worst_and_by_how_much(store: str) -> None:
    before = Survey.open(store).snapshot
    done = Survey.open(store).dataset(f"indices/{CONFIG}/raw")["status"].to_numpy() == 1
    row = int(np.flatnonzero(done)[7])
    shifted(store, row, 5.0)
    found = compare(side(f"{store}:raw@fs"), side(f"{store}@{before}:raw@fs"))
    names = Survey.open(store).dataset(f"spectra/{CONFIG}")["observation"].to_numpy()
    first = found.worst.iloc[0]
    assert first["observation"] == names[row]
    assert first["index"] == INDEX
    assert first["difference"] == pytest.approx(5.0, rel=1e-3)
    moved = found.bins[(found.bins["index"] == INDEX) & (found.bins["far"] > 0)]
    assert set(moved["by"]) == {"snr_g", "class"}
    assert (found.bins[found.bins["index"] != INDEX]["far"] == 0).all()


def test_bins_hold_every_row_once(store: str) -> None:
    found = compare(side(f"{store}:raw"), side(f"{store}:raw@fs"))
    both = found.rows.set_index("index")["both"]
    for by in ("snr_g", "class"):
        counted = found.bins[found.bins["by"] == by].groupby("index")["n"].sum()
        assert counted.to_dict() == both.to_dict()
    assert SNR[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}:none", r"no input 'none' in sdss \(there: "),
        ("{}", "which input of it"),
        ("raw", "expe"),
    ],
)
def test_what_is_not_there_is_named(store: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare(side(text.format(store)), side(f"{store}:raw"))
