"""The public package `spender`, run by a Python that has it, on numbers that both sides can make.

    PYTHON spender_peer.py CASE ANSWER.npz      what it says of a case, see `CASES`
    PYTHON spender_peer.py time                 then a line "forward 64" or "train 64" each

Only numpy is needed to import this file, so that tests and benchmarks take the cases from it.
"""

import sys
import time
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CASES: dict[str, dict[str, Any]] = {
    # As in the paper.
    "full": {"start": 3.578, "step": 1e-4, "pixels": 3921, "rest": 5881, "lsf": 0, "rows": 3},
    "super": {"start": 3.578, "step": 1e-4, "pixels": 3921, "rest": 11762, "lsf": 5, "rows": 2},
    # Small enough for a file of its answers to be kept.
    "small": {
        "start": 3.6,
        "step": 1e-3,
        "pixels": 300,
        "rest": 450,
        "lsf": 5,
        "rows": 4,
        "filters": [8, 12, 16],
        "decoder": [10, 14, 20],
    },
}
LATENTS, Z_MAX = 6, 0.5
TAPS = [5, 11, 21]


def axes(case: dict[str, Any]) -> tuple[Array, Array]:
    """Observed and rest wavelengths, A."""
    observed = 10 ** (case["start"] + case["step"] * np.arange(case["pixels"]))
    return observed, np.linspace(observed[0] / (1 + Z_MAX), observed[-1], case["rest"])


def spectra(case: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Flux (N, P) about 1 with a line and noise, inverse variance (N, P), redshift (N,)."""
    random = np.random.default_rng(1)
    observed, _ = axes(case)
    z = np.linspace(0.02, 0.6, case["rows"])
    line = np.exp(-0.5 * ((observed / (1 + z[:, None]) - 5007) / 8) ** 2)
    noise = (random.random((len(z), len(observed))) - 0.5) / 4
    flux = 1 + 0.2 * np.sin(observed / 700) + line + noise
    weight = 10 + 40 * random.random(flux.shape)
    return flux.astype("f4"), weight.astype("f4"), z


def numbers(name: str, shape: tuple[int, ...]) -> Array:
    """What a parameter of the peer is set to: drawn by its name, as large as it starts."""
    drawn = 2 * np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 1
    if name.endswith("lsf.weight"):
        return (np.eye(shape[-1])[shape[-1] // 2] + 0.2 * drawn).astype("f4")
    if name.endswith(("beta", "gamma")):
        return (0.5 * drawn + name.endswith("beta")).astype("f4")
    if len(shape) == 1 and not name.endswith("bias"):
        # Slopes of PReLU, some of them falling.
        return (0.25 + 0.5 * drawn).astype("f4")
    return (drawn / np.sqrt(max(np.prod(shape[1:]), 1))).astype("f4")


def build(case: dict[str, Any], dtype: Any) -> Any:
    """The peer's model of a case."""
    import spender
    import torch

    observed, rest = (torch.as_tensor(axis, dtype=dtype) for axis in axes(case))

    class Spectrograph(spender.Instrument):  # type: ignore[misc]
        pass

    lsf = torch.eye(case["lsf"])[case["lsf"] // 2] if case["lsf"] else None
    instrument = Spectrograph(observed, lsf=spender.LSF(lsf) if lsf is not None else None)
    hidden = tuple(case.get("decoder", (64, 256, 1024)))
    model = spender.SpectrumAutoencoder(instrument, rest, n_latent=LATENTS, n_hidden=hidden)
    if "filters" in case:
        encoder, filters = model.encoder, case["filters"]
        encoder.conv1, encoder.conv2, encoder.conv3 = encoder._conv_blocks(filters, TAPS)
        slopes = [torch.nn.PReLU(n) for n in (128, 64, 32)]
        acts = [*slopes, torch.nn.Identity()]
        encoder.mlp = spender.MLP(filters[-1] // 2, LATENTS, n_hidden=(128, 64, 32), act=acts)
    return model


def answer(case: dict[str, Any]) -> dict[str, Array]:
    """Everything that the peer makes of a case."""
    import torch

    model = build(case, torch.float64)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.from_numpy(numbers(name, tuple(value.shape))).view_as(value))
    flux, weight, z = (torch.from_numpy(value) for value in spectra(case))
    _, keys = model.encoder._downsample(flux)
    latent, rest, output, valid = model._forward(flux, z=z)
    loss = model.loss(flux, weight, z=z) / len(flux)
    loss.backward()
    found = {
        "attention": torch.softmax(keys, dim=-1),
        "latent": latent,
        "rest": rest,
        "flux": output,
        "valid": valid,
        "loss": loss,
    }
    pulls = {
        f"grad:{name}": value.grad.norm()
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    return {name: value.detach().numpy() for name, value in (found | pulls).items()}


def clock() -> None:
    """Time the paper's model on one thread: us of CPU a spectrum, a line for a line."""
    import torch

    torch.set_num_threads(1)
    model = build(CASES["full"], torch.float32)
    descent = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    print("ready", flush=True)
    for line in sys.stdin:
        way, rows = line.split()
        flux, weight, z = (
            torch.from_numpy(value).float()
            for value in spectra(CASES["full"] | {"rows": int(rows)})
        )
        began = time.process_time()
        if way == "forward":
            with torch.no_grad():
                model.eval()(flux, z=z)
        else:
            descent.zero_grad()
            model.train().loss(flux, weight, z=z).backward()
            descent.step()
        print((time.process_time() - began) / len(flux) * 1e6, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["time"]:
        clock()
    else:
        np.savez_compressed(sys.argv[2], **answer(CASES[sys.argv[1]]))
