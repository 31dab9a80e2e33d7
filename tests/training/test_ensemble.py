"""Ensembles: several starts of one network."""

from pathlib import Path
from typing import Any

import pytest
import torch

from storage.names import resolve
from tests.training.small import GRID, PIXELS, cut, population, taught
from training.recipe import ModelCard

CARDS = Path(__file__).resolve().parents[2] / "deploy/cards/models"
DENSE = {"model": "dense", "options": {"widths": [PIXELS, 10, PIXELS], "centre": False}}


def ensemble(**options: Any) -> Any:
    return resolve("training.models", "ensemble").build(GRID, **(DENSE | options)).eval()


def test_an_ensemble_is_the_mean_of_its_members_and_their_scatter() -> None:
    batch, _ = population(20)
    model = ensemble(members=3)
    model.start(lambda: cut(batch, 20), seed=4)
    said = torch.stack([one(batch.x, batch.weight, batch.z).flux for one in model.members])
    output = model(batch.x, batch.weight, batch.z)
    torch.testing.assert_close(output.flux, said.mean(0))
    torch.testing.assert_close(output.sigma, said.std(0))
    assert output.latent is None


def test_members_start_as_they_would_alone_with_a_seed_of_their_own() -> None:
    batch, _ = population(20)
    model = ensemble(members=2)
    model.start(lambda: cut(batch, 20), seed=4)
    for number, member in enumerate(model.members):
        alone = resolve("training.models", "dense").build(GRID, **DENSE["options"])
        alone.start(lambda: cut(batch, 20), seed=4 + number)
        for name, value in alone.state_dict().items():
            assert torch.equal(member.state_dict()[name], value)


def test_every_member_learns_as_it_would_alone() -> None:
    batch, _ = population(20)
    model = ensemble(members=2)
    model.start(lambda: cut(batch, 20), seed=4)
    loss = model.loss(batch)
    loss.backward()
    alone = torch.stack([one.loss(batch) for one in model.members])
    torch.testing.assert_close(loss, alone.mean())
    first = model.members[0]
    expected = [parameter.grad.clone() for parameter in first.parameters()]
    first.zero_grad()
    first.loss(batch).backward()
    for parameter, together in zip(first.parameters(), expected, strict=True):
        torch.testing.assert_close(together, parameter.grad)


def test_an_ensemble_is_no_worse_than_its_members() -> None:
    batch, truth = population()
    model = ensemble(members=3)
    taught(model, batch)
    wanted = torch.from_numpy(truth).float()
    errors = [
        float((one(batch.x, batch.weight, batch.z).flux - wanted).square().mean().detach())
        for one in (*model.members, model)
    ]
    assert errors[-1] < sum(errors[:-1]) / 3


def test_members_that_say_their_own_sigma_are_believed() -> None:
    member = ensemble().members[0]

    class Sure(type(member)):  # type: ignore[misc]
        def forward(self, x: Any, weight: Any, z: Any) -> Any:
            output = super().forward(x, weight, z)
            return output._replace(sigma=torch.full_like(output.flux, 0.3))

    model = ensemble(members=2)
    for one in model.members:
        one.__class__ = Sure
        one.load_state_dict(member.state_dict())
    batch, _ = population(5)
    sigma = model(batch.x, batch.weight, batch.z).sigma
    torch.testing.assert_close(sigma, torch.full_like(sigma, 0.3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 1}, "members"),
        ({"model": "ensemble"}, "an ensemble of ensembles is one of more members"),
        ({"model": "dens"}, "did you mean 'dense'"),
        ({"options": {"colour": "red"}}, "dense: colour: Extra inputs are not permitted"),
        ({"model": "pca", "options": {"components": 5}}, "'pca' does not learn by gradient"),
    ],
)
def test_what_cannot_be_an_ensemble_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ensemble(**options)


def test_a_wrong_option_of_a_member_is_said_of_the_card() -> None:
    card = {"model": "ensemble", "options": {"model": "spender", "options": {"latent": 3}}}
    with pytest.raises(ValueError, match=r"ensemble: \[options\] options: .*spender: latent"):
        ModelCard.parse(card)


def test_the_shipped_ensemble_has_five_spenders() -> None:
    card = ModelCard.load(CARDS / "spender-ensemble.toml")
    single = ModelCard.load(CARDS / "spender.toml")
    assert card.options["model"] == single.model
    assert card.options["members"] == 5
    assert card.fit == single.fit
