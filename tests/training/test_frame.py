"""Frames: what a spectrum becomes, and that it comes back."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from storage.dust import curve
from storage.grid import Grid
from training.batch import Batch
from training.bridge import bridged
from training.frame import Frame
from training.frames import named

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
FRAME = named("fs")
REST = FRAME.grid.wavelength
TO = FRAME.on(SDSS)

Array = NDArray[Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads wait for each other on a busy machine, longer than these small parts take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def survey(rows: int, seed: int = 0) -> dict[str, Array]:
    """Noisy spectra with masked pixels; flux there is 0, as the schema has it."""
    draw = np.random.default_rng(seed)
    level = draw.uniform(1, 50, (rows, 1))
    flux = level * (1 + 0.2 * np.sin(SDSS.wavelength / 90)) + draw.normal(size=(rows, SDSS.size))
    ivar = draw.uniform(0.5, 2, flux.shape)
    gone = draw.random(flux.shape) < 0.03
    flux[gone], ivar[gone] = 0, 0
    z, ebv = draw.uniform(0, 0.2, rows), draw.uniform(0, 0.3, rows)
    return {"flux": flux.astype("f4"), "ivar": ivar.astype("f4"), "z": z, "ebv": ebv}


def smooth(z: float = 0.0, level: float = 2.0) -> dict[str, Array]:
    """One noiseless spectrum, the same at rest whatever z."""
    flux = level * (1 + 0.1 * np.sin(SDSS.wavelength / (1 + z) / 40))
    return {
        "flux": flux[None],
        "ivar": np.ones((1, SDSS.size)),
        "z": np.array([z]),
        "ebv": np.zeros(1),
    }


def parts(batch: Batch) -> list[torch.Tensor]:
    return [value for value in vars(batch).values() if value is not None]


def test_batch_agrees_with_a_float64_reference() -> None:
    rows = survey(3)
    actual = TO.to(**rows)
    k = curve("F99", SDSS.wavelength)
    for row in range(3):
        bright = 10 ** (0.4 * k * rows["ebv"][row])
        flux, ivar = rows["flux"][row] * bright, rows["ivar"][row] / bright**2
        stretch = 1 + rows["z"][row]
        low = np.maximum(FRAME.grid.edges[:-1, None] * stretch, SDSS.edges[None, :-1])
        high = np.minimum(FRAME.grid.edges[1:, None] * stretch, SDSS.edges[None, 1:])
        shared = np.clip(high - low, 0, None) * (ivar > 0)
        covered = shared.sum(axis=1)
        keep = covered >= 0.5 * stretch
        weight = np.where(keep[:, None], shared, 0) / np.maximum(covered, 1e-9)[:, None]
        mean = weight @ flux
        # A share of a pixel brings that share of its noise power, over the width it is spread on.
        power = SDSS.widths / stretch * np.where(ivar > 0, 1 / np.maximum(ivar, 1e-9), 0)
        variance = weight @ power
        window = keep & (REST >= 6000) & (REST < 6500)
        scale = mean[window].mean()
        assert actual.scale[row] == pytest.approx(scale, rel=1e-5)
        assert ((actual.weight[row] > 0).numpy() == keep).all()
        np.testing.assert_allclose(actual.x[row, keep], mean[keep] / scale, rtol=1e-4)
        np.testing.assert_allclose(actual.weight[row, keep], scale**2 / variance[keep], rtol=1e-3)
        bridge = np.interp(REST, REST[keep], mean[keep] / scale)
        np.testing.assert_allclose(actual.x[row], bridge, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(z=st.floats(0, 0.3))
def test_line_at_5000_lands_at_5000(z: float) -> None:
    rows = smooth(z)
    line = 20 * np.exp(-0.5 * ((SDSS.wavelength / (1 + z) - 5000) / 3) ** 2)
    bare = TO.to(**rows)
    rows["flux"] = rows["flux"] + line
    batch = TO.to(**rows)
    found = (batch.x * batch.scale - bare.x * bare.scale)[0].double().numpy()
    assert (found * REST).sum() / found.sum() == pytest.approx(5000, abs=0.01)
    assert found.sum() == pytest.approx(20 * 3 * np.sqrt(2 * np.pi), rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(z=st.floats(0, 0.3))
def test_redshift_leaves_the_spectrum_at_rest(z: float) -> None:
    here, there = TO.to(**smooth(0)), TO.to(**smooth(z))
    shared = ((here.weight > 0) & (there.weight > 0))[0]
    torch.testing.assert_close(there.x[0, shared], here.x[0, shared], rtol=1e-3, atol=1e-3)


def test_dust_is_taken_out_where_it_is_observed() -> None:
    z, ebv = 0.1, 0.5
    ones = np.ones((1, SDSS.size))
    batch = TO.to(ones, ones, z=[z], ebv=[ebv])
    expected = 10 ** (0.4 * ebv * curve("F99", REST * (1 + z)))
    # A pixel's mean is taken over input pixels as they lie: off its centre by up to half of one.
    np.testing.assert_allclose((batch.x * batch.scale)[0], expected, rtol=1e-4)
    plain = TO.to(ones, ones, z=[z], ebv=[0])
    dimmed = plain.weight / plain.scale**2 / (batch.weight / batch.scale**2)
    np.testing.assert_allclose(dimmed[0], expected**2, rtol=1e-3)


def test_frame_without_dust_takes_nothing_out() -> None:
    batch = Frame(dust=None).on(SDSS).to(**{**smooth(0.1), "ebv": np.ones(1)})
    assert torch.equal(batch.x, TO.to(**smooth(0.1)).x)


def test_window_mean_becomes_one() -> None:
    batch = TO.to(**survey(5))
    window = torch.from_numpy((REST >= 6000) & (REST < 6500))
    good = (batch.weight > 0) & window
    means = (batch.x * good).sum(dim=1) / good.sum(dim=1)
    torch.testing.assert_close(means, torch.ones(5), rtol=1e-5, atol=0)


def test_weight_is_what_the_scatter_of_sums_over_neighbours_says() -> None:
    draw = np.random.default_rng(3)
    rows, level = 1500, 10
    sigma = draw.uniform(0.5, 1.5, SDSS.size)
    flux = level + draw.normal(size=(rows, SDSS.size)) * sigma
    ivar = np.broadcast_to(1 / sigma**2, flux.shape)
    batch = TO.to(flux, ivar, np.full(rows, 0.07), np.full(rows, 0.1))
    used = torch.from_numpy((REST < 5900) | (REST > 6600))
    # The window's own noise moves every pixel of x; at rest in survey units it does not.
    flux_NP = (batch.x * batch.scale[:, None])[:, used]
    weight = (batch.weight / batch.scale[:, None] ** 2)[:, used]
    blocks = slice(0, 20 * (flux_NP.shape[1] // 20))
    sums = flux_NP[:, blocks].reshape(rows, -1, 20).sum(dim=2)
    variance = (1 / weight).mean(dim=0)[blocks].reshape(-1, 20).sum(dim=1)
    assert (sums.std(dim=0) / variance.sqrt()).mean().item() == pytest.approx(1, rel=0.03)
    # One pixel scatters less: it shares its noise with its neighbours.
    assert (flux_NP.std(dim=0) < (1 / weight).mean(dim=0).sqrt()).float().mean() > 0.9


@pytest.mark.parametrize("threads", [1, 2])
def test_row_does_not_depend_on_its_company(threads: int) -> None:
    before = torch.get_num_threads()
    rows = survey(300)
    rows["flux"][7, 30], rows["z"][8], rows["ivar"][9] = np.nan, np.nan, 0
    torch.set_num_threads(threads)
    try:
        together = TO.to(**rows)
        for row in (0, 5, 17, 31, 32, 299):
            alone = TO.to(**{k: v[row : row + 1] for k, v in rows.items()})
            for one, all_ in zip(parts(alone), parts(together), strict=True):
                assert torch.equal(one[0], all_[row])
        pair = TO.back(together.x[31:33], together.scale[31:33], rows["z"][31:33], np.zeros(2))
        many = TO.back(together.x, together.scale, rows["z"], np.zeros(300))
        assert torch.equal(pair[0], many[0][31:33])
    finally:
        torch.set_num_threads(before)


def test_masked_pixel_never_bleeds() -> None:
    rows = survey(4)
    clean = TO.to(**rows)
    dirty = TO.to(**{**rows, "flux": np.where(rows["ivar"] == 0, 1e9, rows["flux"])})
    assert torch.equal(clean.x, dirty.x)
    assert torch.equal(clean.weight, dirty.weight)


def unusable() -> dict[str, dict[str, Array]]:
    half = smooth()
    inside = (SDSS.wavelength > 6000) & (SDSS.wavelength < 6260)
    half["ivar"] = np.where(inside, 0, half["ivar"])
    return {
        "z is not finite": {**smooth(), "z": np.array([np.nan])},
        "z is -1": {**smooth(), "z": np.array([-1.0])},
        "ebv is not finite": {**smooth(), "ebv": np.array([np.nan])},
        "mean is negative": smooth(level=-2.0),
        "no data": {**smooth(), "ivar": np.zeros((1, SDSS.size))},
        "flux is not finite": {**smooth(), "flux": np.full((1, SDSS.size), np.nan)},
        "half of the window is masked": half,
        "window is not observed": smooth(z=0.7),
        "redshift is absurd": {**smooth(), "z": np.array([1e300])},
    }


@pytest.mark.parametrize("what", sorted(unusable()))
def test_unusable_row_is_empty_and_not_ok(what: str) -> None:
    batch = TO.to(**unusable()[what])
    assert not batch.ok.item()
    assert (batch.weight == 0).all()
    assert (batch.x == 0).all()
    assert batch.scale.item() == 1
    assert all(torch.isfinite(part).all() for part in parts(batch))


def test_missing_pixels_are_bridged_as_interp_does() -> None:
    draw = np.random.default_rng(4)
    x = torch.from_numpy(draw.normal(size=(40, 60))).float()
    weight = torch.from_numpy((draw.random((40, 60)) < 0.4).astype("f4"))
    weight[3], weight[4], weight[5, 1:], weight[6, :-1] = 0, 1, 0, 0
    actual = bridged(x * weight, weight)
    for row in range(40):
        good = np.flatnonzero(weight[row])
        expected = np.interp(np.arange(60), good, x[row, good]) if len(good) else np.zeros(60)
        np.testing.assert_allclose(actual[row], expected, atol=1e-6)
    weight[39] = 0
    assert (bridged(torch.where(weight > 0, x, torch.nan), weight)[39] == 0).all()


def test_there_and_back_recovers_bands() -> None:
    rows = {**smooth(0.08), "ebv": np.array([0.2])}
    batch = TO.to(**rows)
    flux, sigma = TO.back(batch.x, batch.scale, rows["z"], rows["ebv"])
    assert sigma is None
    inside = np.flatnonzero(flux[0].numpy())
    bands = inside[50 : 50 + 20 * ((len(inside) - 100) // 20)].reshape(-1, 20)
    actual = flux[0].numpy()[bands].mean(axis=1)
    np.testing.assert_allclose(actual, rows["flux"][0][bands].mean(axis=1), rtol=3e-4)


def test_back_is_zero_outside_the_frame() -> None:
    z = 0.08
    flux, sigma = TO.back(np.ones((1, 3800)), [3.0], [z], [0.0], sigma=np.full((1, 3800), 0.5))
    assert sigma is not None
    outside = (SDSS.edges[1:] < REST[0] * (1 + z) - 2) | (SDSS.edges[:-1] > REST[-1] * (1 + z) + 2)
    inside = (SDSS.edges[:-1] > REST[0] * (1 + z)) & (SDSS.edges[1:] < REST[-1] * (1 + z))
    assert (flux[0, outside] == 0).all()
    assert (sigma[0, outside] == 0).all()
    np.testing.assert_allclose(flux[0, inside], 3, rtol=1e-5)
    np.testing.assert_allclose(sigma[0, inside], 1.5, rtol=1e-5)


def test_back_reddens_what_the_telescope_sees() -> None:
    flux, _ = TO.back(np.ones((1, 3800)), [1.0], [0.0], [0.3])
    expected = 10 ** (-0.4 * 0.3 * curve("F99", SDSS.wavelength))
    inside = flux[0].numpy() > 0
    assert inside.sum() > 3000
    np.testing.assert_allclose(flux[0, inside], expected[inside], rtol=1e-5)


def test_back_of_no_redshift_is_zero() -> None:
    flux, sigma = TO.back(np.ones((2, 3800)), [1, 1], [np.nan, -1], [0, 0], np.ones((2, 3800)))
    assert sigma is not None
    assert (flux == 0).all()
    assert (sigma == 0).all()


def test_missing_is_the_share_without_data() -> None:
    rows = smooth()
    rows["ivar"] = np.where(SDSS.wavelength < 4649.5, 0, rows["ivar"])
    assert TO.to(**rows).missing.item() == pytest.approx(0.25, abs=1e-3)


def test_nothing_in_is_nothing_out() -> None:
    batch = TO.to(np.empty((0, 4700)), np.empty((0, 4700)), [], [])
    assert batch.x.shape == (0, 3800)


def test_read_only_big_endian_and_torch_are_taken_alike() -> None:
    rows = survey(2)
    expected = TO.to(**rows)
    fits = {name: value.astype(value.dtype.newbyteorder(">")) for name, value in rows.items()}
    for value in fits.values():
        value.flags.writeable = False
    tensors = {name: torch.from_numpy(value) for name, value in rows.items()}
    for other in (TO.to(**fits), TO.to(**tensors)):
        assert torch.equal(other.x, expected.x)


def test_input_is_left_as_it_was() -> None:
    rows = {name: torch.from_numpy(value) for name, value in survey(32).items()}
    before = {name: value.clone() for name, value in rows.items()}
    TO.to(**rows)
    assert all(torch.equal(rows[name], before[name]) for name in rows)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"flux": np.ones((1, 3))}, r"flux: shape is \(1, 3\); expected \(N, 4700\)"),
        ({"z": np.ones((1, 1))}, r"z: shape is \(1, 1\); expected \(N,\)"),
        ({"ebv": np.ones(2)}, r"numbers of spectra differ: \[1, 1, 1, 2\]"),
    ],
)
def test_shape_that_does_not_fit_is_named(changed: dict[str, Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TO.to(**{**smooth(), **changed})


def test_mapper_is_made_once() -> None:
    assert Frame().on(SDSS) is Frame().on(SDSS.model_copy())


def test_label_is_the_digest_of_the_frame_as_json() -> None:
    content = {
        "name": "fs",
        "grid": {"kind": "linear", "start": 3700.0, "step": 1.0, "size": 3800},
        "window": [6000.0, 6500.0],
        "dust": "F99",
        "r_v": 3.1,
        "min_good": 0.5,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    expected = hashlib.blake2b(text.encode()).hexdigest()[:8]
    assert FRAME.label == f"fs-{expected}"
    assert Frame.model_validate_json(FRAME.model_dump_json()).label == FRAME.label
    assert Frame(r_v=3.2).digest8 != FRAME.digest8


def test_digest_is_the_same_in_another_process() -> None:
    code = "from training.frames import named; print(named('fs').digest8)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == FRAME.digest8


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="frame 'uv' is unknown; known: desi, fs, s23"):
        named("uv")


@pytest.mark.parametrize("window", [(6500, 6000), (3000, 4000)])
def test_window_lies_inside_the_grid(window: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="expected ascending and inside the grid"):
        Frame(window=window)


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="smooth"):
        Frame.model_validate({"smooth": 3})


def test_saying_the_device_changes_nothing() -> None:
    rows = survey(40)
    for one, other in zip(
        parts(TO.to(**rows)), parts(TO.to(**rows, device=torch.device("cpu"))), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    rows = survey(40)
    here, there = TO.to(**rows), TO.to(**rows, device=torch.device("cuda"))
    for one, other in zip(parts(here), parts(there), strict=True):
        assert other.is_cuda
        torch.testing.assert_close(other.cpu(), one, rtol=1e-4, atol=1e-5)
