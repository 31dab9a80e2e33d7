"""Every model of the shelf keeps the contract of a denoiser."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save

from storage.names import resolve, shelf
from tests.training.small import (
    GRID,
    PIXELS,
    assert_all_pulled_on,
    cut,
    descend,
    population,
    small,
    sums,
    taught,
)
from training.model import Denoiser

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = shelf("training.models")


@pytest.fixture(scope="module")
def trained() -> Callable[[str], Denoiser]:
    made_before: dict[str, Denoiser] = {}

    def give(name: str) -> Denoiser:
        if name not in made_before:
            model = small(name)
            objectives = taught(model, population()[0])
            assert objectives == [] or objectives[-1] <= objectives[0] + 1e-6
            made_before[name] = model.eval().requires_grad_(False)
        return made_before[name]

    return give


@pytest.mark.parametrize("name", MODELS)
def test_output_has_the_shapes_of_the_contract(
    name: str, trained: Callable[[str], Denoiser]
) -> None:
    batch, _ = population(10, seed=1)
    output = trained(name)(batch.x, batch.weight, batch.z)
    assert output.flux.shape == (10, PIXELS)
    assert output.flux.isfinite().all()
    if output.sigma is not None:
        assert output.sigma.shape == (10, PIXELS)
        assert (output.sigma > 0).all()
    if output.latent_cov is not None:
        assert output.latent is not None
        assert output.latent_cov.shape == (*output.latent.shape, output.latent.shape[1])
        drawn = trained(name).decode(output.latent)
        torch.testing.assert_close(drawn, output.flux)


@pytest.mark.parametrize("name", MODELS)
def test_a_spectrum_without_data_is_finite_and_harms_no_other(
    name: str, trained: Callable[[str], Denoiser]
) -> None:
    batch, _ = population(4, seed=1)
    alone = trained(name)(batch.x, batch.weight, batch.z).flux
    x, weight = batch.x.clone(), batch.weight.clone()
    x[3], weight[3] = 0, 0
    beside = trained(name)(x, weight, batch.z).flux
    assert beside.isfinite().all()
    torch.testing.assert_close(beside[:3], alone[:3])


@pytest.mark.parametrize("held", [7.0, torch.nan])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_missing_pixel_holds_does_not_matter(
    name: str, held: float, trained: Callable[[str], Denoiser]
) -> None:
    batch, _ = population(4, seed=1)
    expected = trained(name)(batch.x, batch.weight, batch.z).flux
    spoilt = torch.where(batch.weight > 0, batch.x, held)
    torch.testing.assert_close(trained(name)(spoilt, batch.weight, batch.z).flux, expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_spectra_give_the_same_output(
    name: str, trained: Callable[[str], Denoiser]
) -> None:
    batch, _ = population(4, seed=1)
    first, again = (trained(name)(batch.x, batch.weight, batch.z).flux for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", MODELS)
def test_every_learnt_number_of_a_network_is_pulled_on(name: str) -> None:
    batch, _ = population(50)
    model = small(name)
    if model.fit != "gradient":
        return
    descend(model, batch, lr=1e-4)
    assert_all_pulled_on(model)


@pytest.mark.parametrize("name", MODELS)
def test_state_is_all_that_was_learnt(name: str, trained: Callable[[str], Denoiser]) -> None:
    batch, _ = population(4, seed=1)
    again = small(name).eval()
    again.load_state_dict(load(save(trained(name).state_dict())))
    expected = trained(name)(batch.x, batch.weight, batch.z).flux
    assert torch.equal(again(batch.x, batch.weight, batch.z).flux, expected)


@pytest.mark.parametrize("name", MODELS)
def test_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="colour"):
        resolve("training.models", name).build(GRID, colour="red")


@pytest.mark.parametrize("name", MODELS)
def test_models_refuse_the_way_of_learning_that_is_not_theirs(
    name: str, trained: Callable[[str], Denoiser]
) -> None:
    batch, _ = population(4)
    if trained(name).fit != "gradient":
        with pytest.raises(TypeError, match="by gradient"):
            trained(name).loss(batch)
    if trained(name).fit != "sums":
        with pytest.raises(TypeError, match="by sums"):
            trained(name).accumulate(batch)


@pytest.mark.parametrize("name", [name for name in MODELS if small(name).fit == "sums"])
def test_sums_do_not_depend_on_how_rows_are_batched(name: str) -> None:
    batch, _ = population(100)
    model = small(name)
    model.start(lambda: cut(batch, 50), seed=0)
    one, many = sums(model, batch, rows=100), sums(model, batch, rows=7)
    assert one.keys() == many.keys()
    for key, value in one.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(many[key] / scale, value / scale, atol=1e-5, rtol=0)
