"""Cards: strict, with words that find the mistake."""

from pathlib import Path

import pytest

from pipeline.card import CARDS, CardError, digest8, load, shipped

MINIMAL = "[run]\ndir = 'runs/x'\n[survey]\nroot = 'files'\n"


def write(folder: Path, text: str) -> str:
    file = folder / "card.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", sorted(p.name for p in CARDS.glob("*.toml")))
def test_every_card_that_ships_is_valid(name: str) -> None:
    assert load(str(CARDS / name)).run.dir


def test_defaults_follow_the_run_folder(tmp_path: Path) -> None:
    card = load(write(tmp_path, MINIMAL))
    assert card.store == "runs/x/survey.icechunk"
    assert card.checkpoints == "runs/x/checkpoints"
    assert card.train is None


def test_a_setting_replaces_one_value(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    card = load(path, ["survey.root=../elsewhere", "run.seed=7", "measure.indices=['Mgb']"])
    assert (card.survey.root, card.run.seed) == ("../elsewhere", 7)
    assert card.measure.indices == ("Mgb",)
    assert card.digest != load(path).digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            MINIMAL + "[measur]\ninputs = []\n",
            r"unknown key 'measur' in the card; did you mean 'measure'\?",
        ),
        (
            MINIMAL + "[measure]\nindizes = ['Mgb']\n",
            r"unknown key 'indizes' in \[measure\]; did you mean 'indices'\?",
        ),
        (MINIMAL + "[split.shares]\ntrain = 0.9\n", r"train \+ val \+ calib \+ test is 1.2"),
        (MINIMAL + "[simulate]\nmock = 'mock-v1'\nn = -3\n", "greater than 0, found -3"),
        ("[run]\ndir = 'x'\n", "survey: Field required"),
        (
            MINIMAL + "[sample]\nstep = {}\n",
            r"unknown key 'step' in \[sample\]; did you mean 'steps'\?",
        ),
        (
            MINIMAL + "[tune]\nmodel = 'a'\n[tune.ranges]\nx = { choise = [1] }\n",
            r"unknown key 'choise' in \[tune.ranges.x\]",
        ),
        (MINIMAL + "[[train.model]]\nname='a'\n[[train.model]]\nname='a'\n", "names must differ"),
        ("[run\n", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CardError, match=words):
        load(write(tmp_path, text))


def test_a_setting_of_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="did you mean 'seed'"):
        load(write(tmp_path, MINIMAL), ["run.seeed=1"])
    with pytest.raises(CardError, match=r"expected table\.key=value"):
        load(write(tmp_path, MINIMAL), ["seed"])


def test_a_range_of_a_search_may_have_the_name_of_any_key(tmp_path: Path) -> None:
    tables = "[[train.model]]\nname = 'a'\n[tune]\nmodel = 'a'\n[tune.ranges]\n"
    ranges = "'options.dropout' = { choice = [0.1, 0.5] }\n'fit.lr' = { log = [1e-5, 1e-3] }\n"
    tune = load(write(tmp_path, MINIMAL + tables + ranges)).tune
    assert tune is not None
    assert set(tune.ranges) == {"options.dropout", "fit.lr"}


def test_a_missing_card_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="specmill init"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(CardError, match=r"there: .*mock-v1"):
        shipped("mocks", "mock-v9")


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest8({"a": 1, "b": 2}) == digest8({"b": 2, "a": 1}) != digest8({"a": 1, "b": 3})
