"""Tables of indices of one's own: what is read, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.card_words import CardError
from pipeline.index import find, measure, names
from pipeline.user_indices import chosen, definitions, load
from storage.grid import air_to_vacuum
from tests.pipeline.our_table import OURS

GOOD = f"""\
{OURS}
[[index]]
name = "Gap"
kind = "break"
density = "lambda"
blue = [4200, 4300]
red = [4400, 4500]
reference = "another paper"

[[index]]
name = "Two"
kind = "generic"
units = "Angstrom"
continuum = [[6000, 6010], [6050, 6060]]
features = [[6012, 6020], [6025, 6035]]
factors = [1.0, 0.5]
"""
ECSV = """\
# %ECSV 1.0
# ---
# datatype:
# - {name: name, datatype: string}
# - {name: kind, datatype: string}
# - {name: units, datatype: string}
# - {name: density, datatype: string}
# - {name: blue_start, unit: UNIT, datatype: float64}
# - {name: blue_end, unit: UNIT, datatype: float64}
# - {name: feature_start, unit: UNIT, datatype: float64}
# - {name: feature_end, unit: UNIT, datatype: float64}
# - {name: red_start, unit: UNIT, datatype: float64}
# - {name: red_end, unit: UNIT, datatype: float64}
# meta: {medium: air, reference: our paper}
name kind units density blue_start blue_end feature_start feature_end red_start red_end
Ours atomic Angstrom "" 600.0 601.0 601.0 603.0 603.0 604.0
Gap break "1" lambda 420.0 430.0 "" "" 440.0 450.0
"""
WAVE = 4100.0 + np.arange(2200)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def to(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return to


Write = Callable[..., str]


def test_a_table_is_measured_as_it_says(write: Write) -> None:
    path = write(GOOD)
    indices = chosen(["Ours", "Gap", "Two", "Mgb"], [path])
    assert [index.reference for index in indices[:2]] == ["our paper", "another paper"]
    centre = float(air_to_vacuum(6016.0))
    flux = np.where(WAVE > 4350, 3.0, 2.0)
    flux = flux * (1 - 0.3 * np.exp(-0.5 * ((WAVE - centre) / 1.0) ** 2))
    found = measure(WAVE, flux[None], None, indices).value[0]
    width = 0.3 * np.sqrt(2 * np.pi)
    np.testing.assert_allclose(found, [width, 1.5, width, 0.0], atol=2e-3)


@pytest.mark.parametrize(("unit", "ten"), [("nm", 1.0), ("um", 1e-3), ("Angstrom", 10.0)])
def test_an_ecsv_table_says_the_same_in_any_unit_of_length(
    unit: str, ten: float, write: Write
) -> None:
    *head, columns, ours, gap = ECSV.replace("UNIT", unit).splitlines()
    data = re.sub(r"\d+\.\d", lambda found: f"{float(found[0]) * ten:.9g}", f"{ours}\n{gap}\n")
    toml = {index.name: index for index in load(write(GOOD))}
    for index in load(write("\n".join([*head, columns, data]), "mine.ecsv")):
        assert type(index) is type(toml[index.name])
        assert index.bands == toml[index.name].bands
        assert index.reference == "our paper"


def test_bands_in_vacuum_are_the_same_index(write: Write) -> None:
    (air,) = load(write(atomic("A", *SOUND)))
    vacuum = [[float(air_to_vacuum(end)) for end in band] for band in SOUND]
    (found,) = load(write(atomic("A", *vacuum, medium='medium = "vacuum"')))
    np.testing.assert_allclose(found.bands, air.bands, rtol=0, atol=1e-8)
    # The trap: the same numbers in the other medium are another index.
    (other,) = load(write(atomic("A", *SOUND, medium='medium = "vacuum"')))
    np.testing.assert_allclose(np.subtract(air.bands, other.bands), 1.66, atol=0.02)


def lick(shift: float, *, medium: str = "air", vacuum: bool = False) -> str:
    """The atomic indices of the shelf as somebody wrote them down."""
    text = f'medium = "{medium}"\nreference = "a list"\n'
    for name in ("CN1", "HdeltaF", "Mgb", "Fe5270", "NaD", "TiO2"):
        index = find(name)
        bands = np.asarray(air_to_vacuum(index.bands) if vacuum else index.bands) + shift
        blue, feature, red = (f"[{low:.3f}, {high:.3f}]" for low, high in bands)
        text += f'[[index]]\nname = "{name}"\nkind = "atomic"\nunits = "{index.units}"\n'
        text += f"blue = {blue}\nfeature = {feature}\nred = {red}\n"
    return text


def test_what_the_shelf_says_may_be_said_again(write: Write) -> None:
    for text in (lick(0.0), lick(0.0, medium="vacuum", vacuum=True)):
        for index in load(write(text)):
            assert index is find(index.name)


def test_the_table_that_circulates_is_refused_with_the_reason(write: Write) -> None:
    told = r"they were moved to vacuum, but are said to be in air"
    with pytest.raises(CardError, match=rf"index CN1: .*from those of 'CN1' \(Trager.*{told}"):
        load(write(lick(1.25)))
    with pytest.raises(CardError, match=told):
        load(write(lick(0.0, vacuum=True)))
    # Its feature is enough: side bands circulate unmoved.
    mixed = atomic("Fe5335", [5304.625, 5315.875], [5314.125, 5354.125], [5353.375, 5363.375])
    with pytest.raises(CardError, match=rf"\+2.00 to \+2.00 A from those of 'Fe5335'.*{told}"):
        load(write(mixed))
    # Under another name all of its bands give it away, and so does another name of the same.
    renamed = atomic("Magnesium", [5143.875, 5162.625], [5161.375, 5193.875], [5192.625, 5207.625])
    with pytest.raises(CardError, match=rf"from those of 'Mgb'.*{told}"):
        load(write(renamed))
    with pytest.raises(CardError, match=rf"from those of 'Mgb'.*{told}"):
        load(write(renamed.replace("Magnesium", "Mg_b")))


def test_bands_in_air_that_are_said_to_be_vacuum_are_refused(write: Write) -> None:
    with pytest.raises(CardError, match=r"they are in air, but are said to be in vacuum"):
        load(write(lick(0.0, medium="vacuum")))


def atomic(
    name: str,
    blue: list[float],
    feature: list[float],
    red: list[float],
    units: str = "Angstrom",
    medium: str = 'medium = "air"',
) -> str:
    return (
        f'{medium}\nreference = "x"\n[[index]]\nname = "{name}"\nkind = "atomic"\n'
        f'units = "{units}"\nblue = {blue}\nfeature = {feature}\nred = {red}\n'
    )


SOUND = ([6000.0, 6010.0], [6010.0, 6030.0], [6030.0, 6040.0])
TIO1 = ([5936.625, 5994.125], [5936.625, 5994.125], [6038.625, 6103.625])
BREAK = GOOD.split("[[index]]")[0] + "[[index]]" + GOOD.split("[[index]]")[2]
GENERIC = GOOD.split("[[index]]")[0] + "[[index]]" + GOOD.split("[[index]]")[3]
REFUSED = {
    "no medium": (atomic("A", *SOUND, medium=""), r'say medium = "air" or medium = "vacuum"'),
    "no such medium": (atomic("A", *SOUND, medium='medium = "water"'), r"medium: .*'water'"),
    "unit": (atomic("A", *SOUND, units="nm"), r"units: .*'Angstrom' or 'mag', found 'nm'"),
    "kind": (atomic("A", *SOUND).replace("atomic", "atom"), r"kind: expected 'atomic', 'break'"),
    "no kind": (atomic("A", *SOUND).replace('kind = "atomic"', ""), r"kind: expected 'atomic'"),
    "name": (atomic("A.b", *SOUND), r"index A.b: name: .*pattern"),
    "extra": (atomic("A", *SOUND) + "width = 3\n", r"width: Extra inputs are not permitted"),
    "reference": (atomic("A", *SOUND).replace('reference = "x"', ""), r"reference: Field required"),
    "three ends": (atomic("A", [1.0, 2.0, 3.0], *SOUND[1:]), r"blue: .*"),
    "reversed": (atomic("A", [6010.0, 6000.0], *SOUND[1:]), r"band 6010-6000 is reversed or empty"),
    "empty": (atomic("A", [6000.0, 6000.0], *SOUND[1:]), r"band 6000-6000 is reversed or empty"),
    "nan": (atomic("A", [float("nan"), 6010.0], *SOUND[1:]), r"band nan-6010 is reversed or empty"),
    "nm": (atomic("A", [600.0, 601.0], [601.0, 603.0], [603.0, 604.0]), r"are in Angstrom"),
    "micron": (atomic("A", [0.6, 0.61], [0.61, 0.63], [0.63, 0.64]), r"are in Angstrom"),
    "swapped": (atomic("A", SOUND[2], SOUND[1], SOUND[0]), r"blue band .* lies redward of its red"),
    "overlap": (atomic("A", [6000.0, 6035.0], *SOUND[1:]), r"blue band .* overlaps its red one"),
    "known mistake": (atomic("TiO1", *TIO1, units="mag"), r"blue side band is the feature itself"),
    "blue inside": (
        atomic("A", [6008.0, 6020.0], *SOUND[1:]),
        r"the middle of its blue side band \(6008-6020 A\) is not on the blue side",
    ),
    "red inside": (
        atomic("A", *SOUND[:2], [6025.0, 6032.0]),
        r"the middle of its red side band \(6025-6032 A\) is not on the red side",
    ),
    "other bands": (
        atomic("Mgb", [5142.625, 5161.375], [5160.125, 5182.625], [5191.375, 5206.375]),
        r"the shelf has 'Mgb' with other bands .*give yours another name",
    ),
    "other name": (atomic("Fe4668", *SOUND), r"the shelf has 'C2_4668' with other bands"),
    "other units": (
        atomic("Mgb", *map(list, find("Mgb").bands), units="mag"),  # type: ignore[arg-type]
        r"the shelf has 'Mgb' with other bands \(.*Angstrom",
    ),
    "twice": (
        atomic("A", *SOUND) + atomic("A", *SOUND, medium="").split("\n", 2)[2],
        r"index 'A' is there twice",
    ),
    "break swapped": (BREAK.replace("4500", "4310").replace("4400", "4100"), r"lies redward"),
    "no density": (BREAK.replace('density = "lambda"', ""), r"density: Field required"),
    "factors": (GENERIC.replace("[1.0, 0.5]", "[1.0]"), r"2 features, but 1 factors"),
    "factor nan": (GENERIC.replace("[1.0, 0.5]", "[1.0, nan]"), r"factors.1: .*finite number"),
    "one continuum": (GENERIC.replace(", [6050, 6060]", ""), r"continuum: .*at least 2"),
    "continua overlap": (GENERIC.replace("[6050,", "[6005,"), r"bands of its continuum overlap"),
    "continua swapped": (
        GENERIC.replace("[[6000, 6010], [6050, 6060]]", "[[6050, 6060], [6000, 6010]]"),
        r"bands of its continuum do not ascend",
    ),
    "other key": ("frame = 1\n" + atomic("A", *SOUND), r"unknown frame; known: medium, reference"),
    "nothing": ('medium = "air"\n', r"no \[\[index\]\] in it"),
    "no TOML": ("medium: air", r"not TOML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_is_wrong_is_refused(case: str, write: Write) -> None:
    text, told = REFUSED[case]
    with pytest.raises(CardError, match=told):
        load(write(text))


def test_the_same_table_without_the_mistake_is_read(write: Write) -> None:
    for text in (atomic("A", *SOUND), BREAK, GENERIC):
        assert len(load(write(text))) == 1


def test_files_that_are_no_tables_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.toml: no such table of indices"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(CardError, match=r"a table of indices is a .toml or an .ecsv file"):
        load(write(GOOD, "mine.txt"))
    with pytest.raises(CardError, match=r"not ECSV"):
        load(write("name kind\nA\n", "bad.ecsv"))
    with pytest.raises(CardError, match=r"column 'blue_start': unit None; expected one of length"):
        load(write(ECSV.replace("unit: UNIT, ", ""), "none.ecsv"))
    with pytest.raises(CardError, match=r"column 'blue_start': unit Hz; expected one of length"):
        load(write(ECSV.replace("UNIT", "Hz"), "hz.ecsv"))
    with pytest.raises(CardError, match=r"there is no default"):
        load(write(ECSV.replace("UNIT", "nm").replace("medium: air, ", ""), "medium.ecsv"))


def test_a_name_is_of_a_table_or_of_the_shelf(write: Write) -> None:
    path = write(GOOD)
    with pytest.raises(ValueError, match=r"no index 'Our'.*; in tables: Ours, Gap, Two"):
        chosen(["Our"], [path])
    assert chosen(["Fe4668"])[0] is find("C2_4668")
    other = write(GOOD.replace("6030.0]", "6029.0]"), "other.toml")
    with pytest.raises(CardError, match=r"index 'Ours' is another one in another table"):
        chosen(["Ours"], [path, other])
    assert chosen(["Ours"], [path, write(GOOD, "again.toml")]) == chosen(["Ours"], [path])


def test_only_what_is_not_on_the_shelf_is_told_and_only_what_changes_values(write: Write) -> None:
    assert definitions(chosen(names())) == {}
    first = definitions(chosen(["Mgb", "Ours"], [write(GOOD)]))
    assert list(first) == ["Ours"]
    assert first["Ours"]["feature"] == [6010.0, 6030.0]
    cited = GOOD.replace("our paper", "our published paper").replace("\n\n", "\n# a note\n")
    assert definitions(chosen(["Mgb", "Ours"], [write(cited)])) == first
    moved = GOOD.replace("6030.0]", "6030.5]").replace("[6030.0,", "[6030.5,")
    assert definitions(chosen(["Mgb", "Ours"], [write(moved)])) != first


def test_the_example_of_the_docs_is_read(write: Write) -> None:
    text = (Path(__file__).parents[2] / "docs" / "indices.md").read_text()
    table = text.split("```toml\n# our_indices.toml")[1].split("```")[0]
    found = load(write(table))
    assert [index.name for index in found] == ["Fe5015_narrow", "Gap3650", "NaI_pair"]
    program = text.split("```python\n# our_indices.py")[1].split("```")[0]
    flux = np.ones((1, 6500))
    wave = 3500.0 + np.arange(6500)
    space = {"wavelength": wave, "flux": flux, "ivar": flux, "z": np.zeros(1)}
    exec(program.replace("our_indices.toml", write(table)), space)
    assert space["found"].value.shape == (1, 4)
    assert space["found"].value.isfinite().all()
