"""SPENDER: the numbers of the paper, the public package's own, and what physics says."""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.grid import Grid
from storage.names import resolve
from tests.training.small import GRID, population
from tests.training.spender_peer import CASES, LATENTS, axes, numbers, spectra
from training.batch import Batch
from training.frames import named
from training.recipe import ModelCard
from training.redshifted import Redshifted, rest_grid

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Path(__file__).parent
CARDS = HERE.parents[1] / "deploy/cards/models"
PEER = os.environ.get("SPECMILL_SPENDER_PYTHON", "")
SMALL = {"filters": [8, 12, 16], "encoder": [12], "decoder": [12, 16]}


def spender(grid: Grid = GRID, **options: Any) -> Any:
    return resolve("training.models", "spender").build(grid, **(SMALL | options)).eval()


# What the paper says of sizes.


def test_3921_pixels_become_72_segments_and_5881_rest_pixels() -> None:
    grid = named("spender").grid
    assert grid.size == 3921
    model = ModelCard.load(CARDS / "spender.toml").build(grid).eval()
    x = torch.ones(1, grid.size)
    with torch.no_grad():
        attention = model.attention(x, x)
        latent = model(x, x, torch.zeros(1)).latent
        assert model.restframe(latent).shape == (1, 5881)
    assert attention.shape == (1, 256, 72)
    assert latent.shape == (1, 6)
    # The public code has 9,481,777: less biases that its norm takes away, and the redshift more.
    assert model.parameters_count() == 9_481_777 - (128 + 256 + 512) + 128


def test_super_resolution_has_twice_the_rest_pixels() -> None:
    model: Any = ModelCard.load(CARDS / "spender-sr.toml").build(named("spender").grid)
    assert model.rest.size == 2 * 5881
    assert model.rest.wavelength[0] == pytest.approx(named("spender").grid.wavelength[0] / 1.5)
    assert model.rest.wavelength[-1] == pytest.approx(named("spender").grid.wavelength[-1])
    torch.testing.assert_close(model.redshifted.kernel, torch.tensor([0.0, 0, 1, 0, 0]))


def test_attention_is_shared_out_over_segments() -> None:
    batch, _ = population(5)
    model = spender()
    torch.testing.assert_close(model.attention(batch.x, batch.weight).sum(2), torch.ones(5, 8))


# The way from rest to observed.

REST = rest_grid(named("spender").grid, 5881, 0.5)


def test_a_straight_line_is_redshifted_exactly() -> None:
    """Linear interpolation does no harm to a line: the only error left is that of float32."""
    observed = named("spender").grid
    z = torch.tensor([0.0, 0.1, 0.35, 0.5], dtype=torch.float64)
    flux = torch.from_numpy(REST.wavelength / 5000).float().expand(4, -1)
    expected = torch.from_numpy(observed.wavelength / 5000) / (1 + z[:, None])
    seen = Redshifted(REST, observed)(flux, z)
    torch.testing.assert_close(seen, expected.float(), rtol=3e-7, atol=0)


def test_a_line_is_where_its_redshift_puts_it() -> None:
    observed = named("spender").grid
    flux = torch.from_numpy(np.exp(-0.5 * ((REST.wavelength - 5008.24) / 6) ** 2)).float()
    z = torch.tensor([0.05, 0.2], dtype=torch.float64)
    seen = Redshifted(REST, observed)(flux.expand(2, -1), z).double()
    wavelength = torch.from_numpy(observed.wavelength)
    centre = (seen * wavelength).sum(1) / seen.sum(1)
    expected = np.exp(-0.5 * ((observed.wavelength / (1 + z[:, None].numpy()) - 5008.24) / 6) ** 2)
    # Chords of the curve: 1/8 step^2 of its second derivative.
    assert np.abs(seen.numpy() - expected).max() < (REST.step / 6) ** 2 / 8 * 1.01
    # To 0.3 km/s: a logarithmic axis favours the red in both alike.
    truth = (torch.from_numpy(expected) * wavelength).sum(1) / torch.from_numpy(expected).sum(1)
    torch.testing.assert_close(centre, truth, rtol=1e-6, atol=0)


def test_what_the_rest_frame_does_not_reach_is_zero_and_does_not_count() -> None:
    observed = Grid(kind="linear", start=4000, step=10, size=100)
    model = spender(observed, z_max=0.1)
    n = 3
    x, z = torch.ones(n, 100), torch.tensor([0.0, 0.2, -0.01], dtype=torch.float64)
    batch = Batch(x=x, weight=x, scale=x[:, 0], z=z, ok=torch.ones(n, dtype=torch.bool))
    reached = (observed.wavelength[None] / (1 + z[:, None].numpy()) >= 4000 / 1.1) & (
        observed.wavelength[None] / (1 + z[:, None].numpy()) <= 4990
    )
    output = model(x, x, z).flux.detach()
    assert ((output != 0).numpy() == reached).all()
    assert (model.wanted(batch)[1].numpy() == reached).all()


def test_pixels_near_sky_lines_teach_nothing() -> None:
    observed = Grid(kind="linear", start=5500, step=1, size=200)
    x, z = torch.ones(2, 200), torch.zeros(2, dtype=torch.float64)
    batch = Batch(x=x, weight=x, scale=x[:, 0], z=z, ok=torch.ones(2, dtype=torch.bool))
    # [O I] at 5579.1 is among the four brightest, the lamps' 5689.8 is not.
    for count, expected in ((0, ()), (4, range(75, 85)), (100, (*range(75, 85), *range(185, 195)))):
        weight = spender(observed, sky_lines=count).wanted(batch)[1]
        assert (weight[0] == 0).nonzero()[:, 0].tolist() == list(expected)
        assert torch.equal(weight[0], weight[1])
    assert float(spender(observed, sky_lines=4, sky_width=2.0).dark.sum()) == 196


@pytest.mark.parametrize("z", [-1.0, float("nan"), float("inf"), 1e9])
def test_an_impossible_redshift_gives_numbers(z: float) -> None:
    flux = torch.ones(1, 5881, requires_grad=True)
    seen = Redshifted(REST, named("spender").grid)(flux, torch.tensor([z]))
    seen.sum().backward()
    assert seen.isfinite().all()
    assert flux.grad is not None
    assert flux.grad.isfinite().all()


def test_the_gradient_of_redshifting_is_that_of_finite_differences() -> None:
    observed = Grid(kind="log", start=3.6, step=0.003, size=12)
    way = Redshifted(rest_grid(observed, 20, 0.3), observed, lsf=3).double()
    flux = torch.rand(2, 20, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([0.03, 0.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: way(value, z), (flux,))


def test_a_line_spread_keeps_flux_whatever_was_learnt() -> None:
    observed = named("spender").grid
    way = Redshifted(REST, observed, lsf=5)
    flux = torch.rand(1, 5881)
    z = torch.tensor([0.1])
    torch.testing.assert_close(way(flux, z), Redshifted(REST, observed)(flux, z))
    with torch.no_grad():
        assert way.spread is not None
        way.spread.copy_(torch.tensor([0.2, 0.9, 2, 0.8, 0.1]))
    kernel = way.kernel
    assert kernel is not None
    assert float(kernel.detach().sum()) == pytest.approx(1)
    flat = way(torch.ones(1, 5881), z).detach()
    torch.testing.assert_close(flat[:, 2:-2], torch.ones(1, 3917))


# The public package.


def ours_of(name: str) -> str | None:
    """Our name of a parameter of the peer's; None for biases that its norm takes away."""
    first, *rest = name.split(".")
    if rest[0].startswith("conv"):
        block = f"encoder.tower.blocks.{int(rest[0][4:]) - 1}"
        return {"0.weight": f"{block}.conv.weight", "2.weight": f"{block}.slope"}.get(
            ".".join(rest[1:])
        )
    if "lsf" in rest:
        return "redshifted.spread"
    layer, kind = divmod(int(rest[1]), 3)
    inside = "linears" if kind == 0 else "slopes" if first == "encoder" else "activations"
    return f"{first}.{inside}.{layer}.{rest[2]}"


def compare(case: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Set both to the same numbers, and hold what they make of them against each other."""
    grid = Grid(kind="log", start=case["start"], step=case["step"], size=case["pixels"])
    options = {key: case[key] for key in ("filters", "decoder") if key in case}
    sizes = {"rest_pixels": case["rest"], "lsf": case["lsf"], "latents": LATENTS}
    model = resolve("training.models", "spender").build(
        grid, **options, **sizes, z_input=False, z_max=0.5
    )
    np.testing.assert_allclose(model.rest.wavelength, axes(case)[1], rtol=1e-12)
    mine = dict(model.named_parameters())
    pulled = {name[5:]: ours_of(name[5:]) for name in expected if name.startswith("grad:")}
    assert set(pulled.values()) - {None} == set(mine)
    with torch.no_grad():
        for name, own in pulled.items():
            if own is not None:
                shape = (1, 1, case["lsf"]) if "lsf" in name else tuple(mine[own].shape)
                mine[own].copy_(torch.from_numpy(numbers(name, shape)).view_as(mine[own]))
    x, weight, z = (torch.from_numpy(value) for value in spectra(case))
    ok = torch.ones(len(x), dtype=torch.bool)
    batch = Batch(x=x, weight=weight, scale=torch.ones(len(x)), z=z, ok=ok)
    output = model(x, weight, z)
    loss = model.loss(batch)
    loss.backward()
    found = {
        "attention": model.attention(x, weight),
        "latent": output.latent,
        "rest": model.restframe(output.latent),
        "flux": output.flux,
        "valid": model.redshifted.inside(z),
        "loss": loss,
    }
    for name, value in found.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            value.detach().numpy() / scale, expected[name] / scale, atol=tolerance, err_msg=name
        )
    for name, own in pulled.items():
        if own is not None:
            norm = float(mine[own].grad.norm())
            np.testing.assert_allclose(norm, expected[f"grad:{name}"], rtol=1e-4, err_msg=name)


def test_a_small_model_is_that_of_the_public_package() -> None:
    """What it said once, of weights and spectra that anybody can draw again."""
    with np.load(HERE / "spender_peer.npz") as kept:
        compare(CASES["small"], dict(kept), 1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not PEER, reason="SPECMILL_SPENDER_PYTHON names no Python with spender 0.3")
@pytest.mark.parametrize("case", CASES)
def test_the_public_package_says_the_same(case: str, tmp_path: Path) -> None:
    answer = tmp_path / "answer.npz"
    subprocess.run([PEER, HERE / "spender_peer.py", case, answer], check=True, cwd=tmp_path)
    with np.load(answer) as found:
        compare(CASES[case], dict(found), 1e-5)


def test_attention_for_a_number_is_its_change_with_the_attention() -> None:
    """Grad-FAM beside a finite difference: one attention is changed by a thousandth of itself."""
    batch, _ = population(2)
    model = spender().double()
    # Nothing is missing, so nothing is bridged: that is for single precision alone.
    x, weight, z = batch.x.double(), torch.ones_like(batch.x).double(), batch.z
    found = model.attention_for(lambda rest: rest[:, 150], x, weight, z)
    assert found.shape == (2, 8, 4)
    with torch.no_grad():
        values, attention = model._attend(x, weight)
        heights = []
        for change in (0.999, 1.001):
            moved = attention.clone()
            moved[1, 2, 5] *= change
            heights.append(model.restframe(model._compress(values, moved, z))[1, 150])
    assert float(found[1, 5, 2]) == pytest.approx(float(heights[1] - heights[0]) / 0.002, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": [4, 11, 21]}, "taps\n.*an odd number of pixels"),
        ({"lsf": 2}, "lsf\n.*an odd number of pixels"),
        ({"filters": [8, 12, 15]}, "half of the last are attention"),
        ({"line_weight": 1.0}, "lines move with the redshift here"),
        ({"rest_pixels": 1}, "rest_pixels: found 1; expected 2 or more"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spender(**options)


def test_a_seed_is_a_start() -> None:
    states = []
    for seed in (1, 1, 2):
        model = spender(lsf=3)
        model.start(lambda: [], seed)
        states.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_it_starts_as_a_flat_spectrum() -> None:
    batch, _ = population(20)
    model = spender()
    model.start(lambda: [batch], seed=1)
    flux = model(batch.x, batch.weight, batch.z).flux
    torch.testing.assert_close(flux, torch.ones_like(flux), atol=0.2, rtol=0)
