"""Precision of a product: chosen once, on spectra of the survey itself, and kept with it."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from distributed import Client

from pipeline.block import Block
from pipeline.denoise import Denoise
from pipeline.held import ChunkError, Held
from pipeline.index_rules import Rules
from pipeline.product import loaded
from storage.writer import CHUNK_ROWS, Writer
from training.apply import rounds
from training.batch import take
from training.precision import choose

logger = logging.getLogger(__name__)

ATTRIBUTE = "precision"
TRIED = 4
"Chunks that may be damaged before nothing is chosen."


def settled(
    steps: list[Denoise], rules: Rules, store: str, writer: Writer, client: Client
) -> list[Denoise]:
    """The steps with the precision of their products, chosen where it was not yet.

    rules : the indices that must not move; at the resolution of the spectra.
    """
    for step in steps:
        if ATTRIBUTE not in writer.attrs(step.group):
            writer.set_attrs(step.group, _chosen(step, rules, store, writer, client))
            writer.commit(f"{step.group}: precision", {"group": step.group})
    return [replace(step, precision=writer.attrs(step.group)[ATTRIBUTE]) for step in steps]


def known(step: Denoise) -> dict[str, Any]:
    """The precision of a model that none can be chosen for, or is; nothing for the others."""
    exact = step.asked == "float32" or not rounds(loaded(step.chosen.path).model)
    return {ATTRIBUTE: "float32", "precision_asked": step.asked} if exact else {}


def _chosen(
    step: Denoise, rules: Rules, store: str, writer: Writer, client: Client
) -> dict[str, Any]:
    candidates = _chunks(step, writer)
    for rows in candidates:
        # By a worker: the coordinator may have another device.
        choice = client.submit(_choose, step, rules, store, writer.snapshot, rows, pure=False)
        try:
            return dict(choice.result())
        except ChunkError as error:
            logger.warning("%s; another chunk is taken to choose the precision by", error)
    raise ValueError(
        f"{store}: none of {len(candidates)} chunks can be read; run `specmill verify`"
    )


def _chunks(step: Denoise, writer: Writer) -> list[tuple[int, int]]:
    """The chunks with the most rows that the model takes, the fullest first."""
    code, n = step.routed(writer)[1], writer.rows(step.group)
    starts = np.arange(0, max(n, 1), CHUNK_ROWS)
    order = np.argsort(-np.add.reduceat(code == 0, starts), kind="stable")[:TRIED]
    return [(int(first), min(int(first) + CHUNK_ROWS, n)) for first in starts[order]]


def _choose(
    step: Denoise, rules: Rules, store: str, snapshot: str, rows: tuple[int, int]
) -> dict[str, Any]:
    model = loaded(step.chosen.path)
    held = Held(store, snapshot, step.config, Block(first=rows[0], last=rows[1]))
    mine = step.ledger(held)[1] == 0
    batch = take(held.batch(model.frame), torch.from_numpy(np.flatnonzero(mine)))
    axis, z = model.frame.grid.wavelength, model.frame.z_seen(batch.z)
    native = replace(rules, lick=False, dispersion=None)

    def measure(
        flux: torch.Tensor, weight: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = native(axis, flux, weight, z=z)
        return found.value, found.error

    return choose(step.asked, model.model, batch, rules.names, measure).attrs
