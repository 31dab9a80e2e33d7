"""A checkpoint is what its name says, opens to the same model, and denoises the same to the bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.grid import Grid
from storage.names import resolve as module
from training import origin, registry
from training.apply import apply
from training.batch import Batch
from training.checkpoint import Card, Checkpoint, Flag, load, save, write_verdict
from training.frame import Frame
from training.model import Denoiser

GRID = Grid(kind="log", start=3.6, step=4e-4, size=300)
FRAME = Frame(
    name="t",
    grid=Grid(kind="linear", start=4000, step=4, size=200),
    window=(4400, 4600),
    dust=None,
)
OPTIONS = {"components": 3}


def model() -> Denoiser:
    """A factor model whose loadings are drawn, not learnt."""
    made = module("training.models", "ppca").build(FRAME.grid, **OPTIONS)
    random = torch.Generator().manual_seed(1)
    made.loading.copy_(0.2 * torch.randn(200, 3, generator=random))
    return made.eval()


def card(**changes: object) -> Card:
    said = {"model": "ppca", "options": OPTIONS, "frame": FRAME}
    return Card.model_validate(said | {"training": {"seed": 1, "epochs": 2}} | changes)


def spectra(n: int) -> tuple[np.ndarray, ...]:
    """Flux, ivar, z: three in ten pixels of the last spectrum are missing."""
    random = np.random.default_rng(0)
    flux = 5 * (1 + 0.1 * random.normal(size=(n, GRID.size)))
    ivar = np.full(flux.shape, 4.0)
    ivar[-1, 50:140] = 0
    flux[-1, 50:140] = 0
    return flux, ivar, np.linspace(0.02, 0.05, n)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "checkpoints", "ppca", model(), card())


def test_opens_to_the_same_model(saved: Path) -> None:
    opened = load(saved)
    assert opened.label == saved.name
    assert opened.name == "ppca"
    assert saved.name == f"ppca-{opened.digest[:8]}"
    assert opened.frame == FRAME
    assert not opened.model.training
    batch = FRAME.on(GRID).to(*spectra(5), np.zeros(5))
    assert torch.equal(opened.run(batch).flux, apply(model(), batch).flux)


def test_is_two_files_that_anybody_can_read(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["card.json", "model.safetensors"]
    assert json.loads((saved / "card.json").read_text())["training"]["epochs"] == 2
    # Nothing half-written stays beside it.
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_the_same_twice_is_saving_once(saved: Path) -> None:
    assert save(saved.parent, "ppca", model(), card()) == saved
    other = save(saved.parent, "ppca", model(), card(training={"seed": 2}))
    assert other != saved


@pytest.mark.parametrize("file", ["card.json", "model.safetensors"])
def test_changed_content_is_refused(saved: Path, file: str) -> None:
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content[:-2] + b" \n")
    with pytest.raises(ValueError, match=rf"{saved.name}: the digest .* copy or train it again"):
        load(saved)


def test_renamed_directory_is_refused(saved: Path) -> None:
    renamed = saved.rename(saved.parent / "best")
    with pytest.raises(ValueError, match="its name says best"):
        load(renamed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"components": 4}}, r"(?s)'ppca' is built otherwise .*size mismatch"),
        ({"options": {"latents": 3}}, r"'ppca' is built otherwise .*unknown key 'latents'"),
        ({"model": "mean", "options": {}}, r"(?s)'mean' is built otherwise .*loading"),
    ],
)
def test_what_this_version_builds_otherwise_is_refused_in_words(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = save(tmp_path, "old", model(), card(**changes))
    with pytest.raises(ValueError, match=message):
        load(path)


def test_missing_file_is_named(saved: Path) -> None:
    (saved / "card.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no card\.json"):
        load(saved)


def test_verdict_lies_beside_and_changes_no_digest(saved: Path) -> None:
    assert load(saved).verdict is None
    write_verdict(saved, {"passed": True})
    write_verdict(saved, {"passed": False})
    assert load(saved).verdict == {"passed": False}


def test_an_origin_lies_beside_and_changes_no_digest(saved: Path) -> None:
    # Older checkpoints have none.
    assert load(saved).origin is None
    origin.write(saved, origin.Origin(workers=2, date="2026-11-22T04:05:06+00:00"))
    assert load(saved).origin.workers == 2
    assert load(saved).label == saved.name


def test_denoise_gives_the_frame_in_the_unit_of_the_input(saved: Path) -> None:
    flux, ivar, z = spectra(6)
    opened = load(saved)
    found = opened.denoise(GRID.wavelength, flux, ivar, z)
    output = apply(model(), FRAME.on(GRID).to(flux, ivar, z, np.zeros(6)))
    np.testing.assert_array_equal(found["wavelength"], FRAME.grid.wavelength)
    np.testing.assert_allclose(found["flux"] / found["scale"], output.flux, rtol=1e-6)
    assert found["sigma"].dims == ("spectrum", "wavelength")
    assert found["latent"].sizes == {"spectrum": 6, "latent": 3}
    np.testing.assert_allclose(found["scale"], 5, rtol=0.05)
    assert found.attrs["model"] == saved.name


def test_one_spectrum_has_no_axis_of_spectra(saved: Path) -> None:
    flux, ivar, z = spectra(3)
    opened = load(saved)
    one = opened.denoise(GRID.wavelength, flux[0], ivar[0], z[0])
    assert one["flux"].dims == ("wavelength",)
    both = opened.denoise(GRID.wavelength, flux, ivar, z)
    # The same place in a batch of the same size: the same bits.
    np.testing.assert_array_equal(one["flux"], both["flux"][0])


def test_how_rows_are_cut_changes_no_bit(saved: Path) -> None:
    flux, ivar, z = spectra(600)
    opened = load(saved)
    mapper = FRAME.on(GRID)
    whole = opened.run(mapper.to(flux, ivar, z, np.zeros(600)))
    parts = [
        opened.run(mapper.to(flux[a:b], ivar[a:b], z[a:b], np.zeros(b - a)))
        for a, b in ((0, 256), (256, 600))
    ]
    for name in ("flux", "sigma", "latent", "latent_cov"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name))


def test_flags_say_what_is_wrong(saved: Path) -> None:
    flux, ivar, z = spectra(4)
    ivar[1], flux[1] = 0, 0
    found = load(saved).denoise(GRID.wavelength, flux, ivar, z)
    assert found["flags"].to_numpy().tolist() == [0, Flag.UNUSABLE, 0, 0]
    assert (found["flux"][1] == 0).all()
    assert np.isfinite(found["flux"]).all()


def test_denoise_refuses_what_does_not_fit(saved: Path) -> None:
    flux, ivar, z = spectra(2)
    with pytest.raises(ValueError, match=r"ivar \(1, 300\).*do not fit"):
        load(saved).denoise(GRID.wavelength, flux, ivar[:1], z)
    with pytest.raises(ValueError, match="even neither in A nor in log10"):
        load(saved).denoise(GRID.wavelength + np.arange(300) ** 2, flux, ivar, z)


def test_a_model_without_sigma_or_latent_gives_none() -> None:
    made = module("training.models", "butterworth").build(FRAME.grid).eval()
    opened = Checkpoint(
        path=Path("nowhere"),
        name="bf",
        digest="0" * 128,
        card=card(model="butterworth", options={}),
        model=made,
    )
    flux, ivar, z = spectra(2)
    assert set(opened.denoise(GRID.wavelength, flux, ivar, z)) == {"flux", "flags", "scale"}


def test_opens_on_the_device_that_is_asked_for(saved: Path) -> None:
    assert load(saved).device == torch.device("cpu")
    assert load(saved, torch.device("meta")).device == torch.device("meta")


@pytest.mark.gpu
def test_denoises_on_a_gpu_as_on_the_cpu(saved: Path) -> None:
    flux, ivar, z = spectra(300)
    here, there = (
        load(saved, torch.device(name)).denoise(GRID.wavelength, flux, ivar, z)
        for name in ("cpu", "cuda")
    )
    for name in ("flux", "sigma", "latent", "scale"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(there["flags"], here["flags"])


def test_padding_rows_are_not_in_the_output() -> None:
    flux, ivar, z = spectra(3)
    batch = FRAME.on(GRID).to(flux, ivar, z, np.zeros(3))
    assert isinstance(batch, Batch)
    assert apply(model(), batch).flux.shape == (3, 200)


def test_references_mean_one_checkpoint(saved: Path) -> None:
    folder, digest = saved.parent, load(saved).digest
    registry.set_alias(folder, "best", saved)
    for ref in ("best", saved.name, str(saved), digest[:8], digest[:20], digest):
        assert registry.resolve(folder, ref) == saved
    assert registry.checkpoints(folder) == [saved]
    assert registry.aliases(folder) == {"best": saved.name}


def test_a_reference_to_nothing_lists_what_is_there(saved: Path, tmp_path: Path) -> None:
    registry.set_alias(saved.parent, "best", saved)
    for ref in ("bset", saved.name[-8:-1], saved.name[-8:] + "0000"):
        with pytest.raises(ValueError, match=rf"there: best -> {saved.name}, {saved.name}\)"):
            registry.resolve(saved.parent, ref)
    with pytest.raises(ValueError, match="there: none"):
        registry.resolve(tmp_path / "empty", "best")


def test_a_reference_to_two_asks_for_the_whole_name(saved: Path) -> None:
    shutil.copytree(saved, saved.parent / f"copy-{saved.name[-8:]}")
    with pytest.raises(ValueError, match="give the whole name"):
        registry.resolve(saved.parent, saved.name[-8:])


def test_an_alias_of_nothing_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="is not in"):
        registry.set_alias(saved.parent, "best", "fs-12345678")
