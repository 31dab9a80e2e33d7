"""One: files that no reader takes, models that may not be used, and results that are there."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from pipeline import one_files
from pipeline.card import Card
from pipeline.cli import OK, QUARANTINED, USAGE
from storage.names import resolve
from storage.readers import desi, weave
from tests.pipeline import one_mock
from tests.pipeline.one_mock import DESI, NAME, Command, sdss_file, spectra
from tests.pipeline.scene import POOR
from tests.storage.table_mock import HOUSE
from training import registry


@pytest.fixture
def denoise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return one_mock.command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_mock.model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with nothing wrong."""
    return sdss_file(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("gone.fits", "--model", "MODEL"), "gone.fits: no such file"),
        (("FILE",), "name the checkpoint with --model"),
        (("FILE", "--model", "wavy"), "--model wavy: no checkpoint is there"),
        (
            ("FILE", "--model", "wavy", "--checkpoints", "FOLDER"),
            "no checkpoint 'wavy' in FOLDER (there: wave -> ",
        ),
        (
            ("FILE", "--model", "wave", "--checkpoints", "nowhere"),
            "nowhere: no checkpoints",
        ),
        (("FILE", "--model", "none", "--checkpoints", "FOLDER"), "--model none: expected"),
        (
            ("FILE", "--model", "MODEL", "--reader", "desi"),
            "reader desi does not take it (",
        ),
        (("FILE", "--model", "MODEL", "--reader", "sdsss"), "did you mean 'sdss'?"),
        (
            ("FILE", "--model", "MODEL", "--set", "survey.config=blue"),
            "no reader takes a file of such a name",
        ),
        (("FILE", "--model", "MODEL", "--rows", "1"), "has 1 spectra, 0 to 0; --rows is 1"),
        (("FILE", "--model", "MODEL", "--rows", "3:2"), "--rows 3:2: expected such as 0,4,10:20"),
        (("FILE", "--model", "MODEL", "--rows", "-1"), "--rows -1: expected such as"),
        (("FILE", "--model", "MODEL", "--z", "11"), "--z 11: expected -0.02 to 10"),
        (("FILE", "--model", "MODEL", "--z", "nan"), "--z nan: expected -0.02 to 10"),
        (("FILE", "FILE", "--model", "MODEL"), "would both be written to"),
        (
            ("FILE", "FILE", "--model", "MODEL", "--z", "0.1"),
            "--z is the redshift of one spectrum, and here are 2",
        ),
        (("FILE", "--model", "MODEL", "--set", "run.seed=1"), "--set run.seed=1: of files"),
        (("FILE", "--model", "MODEL", "--set", "measure.missing=0.5"), "of files, expected one of"),
        (
            ("FILE", "--model", "MODEL", "--set", "survey.options.hdu=1"),
            "survey.options are those of one reader; name it with --reader",
        ),
        (
            ("FILE", "--model", "MODEL", "--set", "denoise.outside=drop"),
            "[denoise] outside: Input should be 'skip' or 'flag', found 'drop'",
        ),
        (("FILE", "--model", "MODEL", "--set", "measure.indices=['Mbg']"), "did you mean 'Mgb'?"),
        (("card.toml", "FILE", "--model", "MODEL"), "one CARD, which says everything itself"),
        (("card.toml", "--z", "0.1"), "one CARD, which says everything itself"),
        (("card.toml",), "card.toml: no such card"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_wrong_usage_is_2_and_writes_nothing(
    denoise: Command, model: Path, good: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    meant = {"FILE": str(good), "MODEL": str(model), "FOLDER": str(model.parent)}
    said = denoise(*(meant.get(word, word) for word in words), *_out(words, tmp_path))
    assert said.status == USAGE
    assert expected.replace("FOLDER", str(model.parent)) in said.err
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


def _out(words: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    return () if words == ("card.toml",) else ("--out", str(folder))


def test_a_model_is_meant_by_its_name_too(
    denoise: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    run = model.parents[1]
    for number, name in enumerate(("wave", model.name, model.name[-8:], "best")):
        words = (
            "--model",
            name,
            "--checkpoints",
            run,
            "--no-figure",
            "--out",
            tmp_path / f"{number}",
        )
        said = denoise(good, *words)
        assert said.status == OK, said.err
        assert f"; {model.name}, verdict passed" in said.out


@pytest.mark.parametrize("verdict", [POOR, None], ids=["failed", "missing"])
def test_a_model_that_is_not_proven_is_refused(
    denoise: Command, good: Path, tmp_path: Path, verdict: object
) -> None:
    poor = one_mock.model(tmp_path / "model", verdict)  # type: ignore[arg-type]
    said = denoise(good, "--model", poor, "--out", tmp_path / "out")
    assert said.status == USAGE
    word = "missing" if verdict is None else "failed"
    assert f"{poor}: verdict {word}" in said.err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_only_replaced_by_force(
    denoise: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    there = tmp_path / f"{NAME}.denoised.png"
    there.write_text("mine")
    words = (good, "--model", model, "--out", tmp_path)
    said = denoise(*words)
    assert said.status == USAGE
    assert f"{there}: is there already; --force replaces it" in said.err
    assert there.read_text() == "mine"
    assert denoise(*words, "--force").status == OK
    assert there.read_bytes().startswith(b"\x89PNG")
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [f"{NAME}.denoised.fits", f"{NAME}.denoised.png"]


def test_a_truncated_file_is_1_and_says_so(denoise: Command, model: Path, tmp_path: Path) -> None:
    path = sdss_file(tmp_path / "in")
    path.write_bytes(path.read_bytes()[:11520])
    said = denoise(path, "--model", model, "--out", tmp_path)
    assert said.status == QUARANTINED
    assert f"quarantined: {path.name}: " in said.out
    assert "0 of 1 denoised" in said.out
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_a_file_that_is_no_spectrum_is_refused(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    text, image = tmp_path / "notes.txt", tmp_path / "image.fits"
    text.write_text("no spectrum")
    said = denoise(text, "--model", model, "--out", tmp_path)
    assert said.status == USAGE
    assert "notes.txt: no reader takes a file of such a name (tried: desi, sdss, table" in said.err
    fits.PrimaryHDU().writeto(image)
    said = denoise(image, "--model", model, "--out", tmp_path)
    assert said.status == QUARANTINED
    assert "no image and no table with a column of flux" in said.out


def test_a_file_that_two_readers_take_is_refused(
    monkeypatch: pytest.MonkeyPatch, denoise: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    names = ["sdss", "storage.readers.sdss", "table"]
    monkeypatch.setattr(one_files, "shelf", lambda _: names)
    said = denoise(good, "--model", model, "--out", tmp_path)
    assert said.status == USAGE
    assert "readers sdss and storage.readers.sdss take files of such a name" in said.err
    named = denoise(good, "--model", model, "--out", tmp_path, "--reader", "sdss", "--no-figure")
    assert named.status == OK


@pytest.mark.parametrize(
    ("reader", "config"),
    [("sdss", "sdss"), ("desi", "desi"), ("desi", "desi-exposure"), ("table", "table")]
    + [("weave", config) for config in weave.build().configs],
)
def test_a_file_is_known_by_the_name_that_its_survey_gives_it(
    tmp_path: Path, reader: str, config: str
) -> None:
    writer = resolve("storage.readers", reader).build()
    ds = spectra(2, writer.configs[config])
    path = next(p for p in writer.write(ds, str(tmp_path / "in"), config) if "L2" not in p)
    card = Card(run={"dir": "."}, survey={"root": "."})
    known = one_files.recognised(path, card, "", tmp_path / "links")
    assert (known.name, known.config) == (reader, config)
    (found,) = known.read(range(known.rows))
    assert known.rows == (2 if reader in ("desi", "weave") else 1)
    np.testing.assert_allclose(found["flux"], ds["flux"][: known.rows], atol=2e-6)
    np.testing.assert_allclose(found["z"], ds["z"][: known.rows], rtol=1e-6)


def test_a_packed_file_has_the_name_of_what_is_in_it(
    denoise: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    packed = tmp_path / f"{good.name}.gz"
    packed.write_bytes(gzip.compress(good.read_bytes()))
    said = denoise(packed, "--model", model, "--out", tmp_path / "out", "--no-figure")
    assert said.status == OK, said.err
    assert (tmp_path / "out" / f"{NAME}.denoised.fits").exists()


def test_files_beside_go_into_the_rows_and_strangers_do_not(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    """The redshifts of a coadd stand in another file; a tile's coadd there is another survey's."""
    ds = spectra(2, desi.GRID)
    (path,) = DESI.write(ds, str(tmp_path), "desi")
    Path(path).with_name("coadd-1-80000-thru20210401.fits").write_bytes(b"")
    out = tmp_path / "out"
    said = denoise(path, "--model", model, "--out", out, "--no-figure")
    assert said.status == OK, said.err
    found = Table.read(out / f"{Path(path).stem}.denoised.fits", hdu="SPECTRA")
    np.testing.assert_allclose(found["z"], ds["z"], rtol=1e-6)


def test_a_table_says_which_option_it_needs_and_is_read_with_it(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    ds, path = spectra().isel(spectrum=0), tmp_path / "mine.fits"
    pixels = {name: ds[name].to_numpy() for name in ("flux", "ivar")}
    columns = {"wavelength": ds["wavelength"].to_numpy(), **pixels}
    about = {"RA": 150.0, "DEC": 2.0, "Z": 0.05, "CLASS": "GALAXY", "SPECSYS": "HELIOCEN"}
    made = Table(columns, meta=about)
    made["flux"].unit, made["ivar"].unit = HOUSE.unit * HOUSE.value, (HOUSE**-2)
    made["wavelength"].unit = "Angstrom"
    made.write(path)
    words = (path, "--model", model, "--out", tmp_path / "out", "--no-figure")
    said = denoise(*words)
    assert said.status == QUARANTINED
    assert "set survey.options.medium" in said.out
    assert "given by --reader NAME --set survey.options.KEY=VALUE" in said.out
    again = denoise(*words, "--reader", "table", "--set", "survey.options.medium=vacuum")
    assert again.status == OK, again.out
    # A table has no line spread and no E(B-V); the second is said.
    assert "E(B-V) unknown and taken as 0" in again.out
    target = tmp_path / "out" / "mine.denoised.fits"
    assert str(Table.read(target, hdu="SPECTRA")["flux"].unit).startswith("1e-17 ")
    options = ("survey.options.medium=vacuum", "survey.options.flux_unit=relative")
    given = [word for option in options for word in ("--set", option)]
    own = denoise(*words, "--reader", "table", *given, "--force")
    assert own.status == OK, own.out
    assert Table.read(target, hdu="SPECTRA")["flux"].unit is None


def test_the_indices_are_those_that_were_asked_for(
    denoise: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    asked = "measure.indices=['Hbeta', 'Fe5270']"
    denoise(good, "--model", model, "--out", tmp_path, "--no-figure", "--set", asked)
    found = Table.read(tmp_path / f"{NAME}.denoised.fits", hdu="SPECTRA").colnames
    assert "denoised.Hbeta" in found
    assert "raw@frame.Fe5270_error" in found
    assert "denoised.Dn4000" not in found


def test_the_folder_of_a_checkpoint_is_never_written_to(
    denoise: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    before = sorted(file.name for file in model.parent.rglob("*"))
    denoise(good, "--model", model, "--out", tmp_path, "--no-figure")
    assert sorted(file.name for file in model.parent.rglob("*")) == before
    assert registry.aliases(model.parent) == {"wave": model.name}
