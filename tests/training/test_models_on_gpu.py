"""Every model of the shelf says and learns on a GPU what it does on the CPU."""

from copy import deepcopy

import pytest
import torch

from storage.names import shelf
from tests.training.course import learn, task
from tests.training.small import cut, population, small, sums
from training.batch import Batch, move
from training.learner import Gradient
from training.model import Denoiser, Output
from training.recipe import Fit
from training.state import State

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = shelf("training.models")
NETWORKS = [name for name in MODELS if small(name).fit == "gradient"]
# The CPU is the twin: the same checks, which say nothing of a GPU, keep the test itself sound.
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.slow),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch.device(request.param)


def begun(name: str, batch: Batch) -> Denoiser:
    """The model with its starting weights, which are drawn on the CPU."""
    model = small(name)
    torch.manual_seed(1)
    model.start(lambda: cut(batch, 50), seed=1)
    if model.fit == "sums":
        with torch.no_grad():
            model.update(sums(model, batch))
    elif model.fit == "gradient":
        # As built, some say one spectrum whatever they see.
        with torch.no_grad():
            for value in model.parameters():
                value += 0.02 * torch.randn_like(value)
    return model


def answer(model: Denoiser, batch: Batch, device: torch.device) -> Output:
    there, seen = deepcopy(model).eval().to(device), move(batch, device)
    with torch.no_grad():
        output: Output = there(seen.x, seen.weight, seen.z)
    return output


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_the_same_on_any_device(name: str, device: torch.device) -> None:
    batch, _ = population(100)
    model = begun(name, batch)
    here, there = answer(model, batch, torch.device("cpu")), answer(model, batch, device)
    for part in ("flux", "sigma", "latent", "latent_cov"):
        expected, actual = getattr(here, part), getattr(there, part)
        assert (expected is None) == (actual is None)
        if expected is not None:
            assert actual.device.type == device.type
            torch.testing.assert_close(actual.cpu(), expected, **CLOSE)


def stepped(model: Denoiser, batch: Batch, device: torch.device) -> tuple[float, Denoiser]:
    """The loss of a step down, and the model after it; nothing in it is drawn."""
    there = deepcopy(model).to(device).train()
    for part in there.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    fit = Fit(optimiser="sgd", lr=1e-3, clip=1.0, schedule="constant")
    state = State(epoch=0, model={}, best={})
    learner = Gradient(there, fit, 1, state, lambda module: module)
    learner.learn(move(batch, device), "highest")
    assert learner.loss is not None
    return learner.loss, there


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "vae"])
def test_a_network_takes_the_same_step_on_any_device(name: str, device: torch.device) -> None:
    batch, _ = population(100)
    model = begun(name, batch)
    loss, here = stepped(model, batch, torch.device("cpu"))
    actual, there = stepped(model, batch, device)
    assert actual == pytest.approx(loss, rel=1e-3)
    moved = 0.0
    for label, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[label].cpu(), value, **CLOSE)
        moved += float((value - model.state_dict()[label]).abs().sum())
    assert moved > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_a_batch_on_any_device(name: str, device: torch.device) -> None:
    # A variational one draws its latents on the device: its steps cannot be told to be the same.
    batch, _ = population(100)
    model = begun(name, batch).to(device).train()
    state = State(epoch=0, model={}, best={})
    learner = Gradient(model, Fit(lr=1e-3), 1, state, lambda module: module)
    seen = move(batch, device)
    for _ in range(20):
        learner.learn(seen, "highest")
    assert learner.loss is not None
    with torch.no_grad():
        model.eval()
        assert float(model.loss(seen)) < float(begun(name, batch).eval().loss(batch))


@pytest.mark.parametrize("precision", ["highest", "medium", "bfloat16"])
def test_the_loop_learns_the_same_course_on_any_device(
    precision: str, device: torch.device
) -> None:
    work = task("dense", epochs=4, precision=precision)
    here, there = learn(work), learn(work, device=device)
    close = 0.02 if precision == "highest" else 0.2
    assert there.history[-1]["val"] == pytest.approx(here.history[-1]["val"], rel=close)
