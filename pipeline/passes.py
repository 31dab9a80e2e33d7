"""A pass over a survey: every block is read once, and all that is wanted of it is made.

Denoise and measure are one pass where a card asks for both; each is one by itself too.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import xarray as xr
from distributed import Client

from pipeline import blocks, rates, route, stale
from pipeline.block import Block
from pipeline.blocks import Tally
from pipeline.card import Card
from pipeline.denoise import Denoise
from pipeline.held import Held
from pipeline.index_rules import Rules
from pipeline.infill import filled
from pipeline.inputs import inputs
from pipeline.line_stage import MeasureLines
from pipeline.line_templates import line_templates
from pipeline.measure import Measure
from pipeline.precise import settled
from pipeline.product import loaded
from pipeline.recipe import Step
from pipeline.stage import config_of, everywhere, grid_of, require_ingested, target
from pipeline.stale import Stale
from pipeline.star_stage import MeasureStars
from pipeline.star_templates import star_templates
from storage.store import Survey, exists
from storage.writer import Writer, writing

STAGES = ("denoise", "measure")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Steps over a block, each once, in order: what a worker does."""

    store: str
    snapshot: str
    config: str
    steps: tuple[Step, ...]

    def read(self, block: Block) -> Held:
        """What the steps of a block always read."""
        held = Held(self.store, self.snapshot, self.config, block)
        for step in self.steps:
            if step.group in block.groups:
                for group, name in step.needs:
                    if group not in block.groups:
                        held.values(group, name)
        return held

    def __call__(self, block: Block, held: Held) -> dict[str, xr.Dataset]:
        """The groups that a block lacks."""
        for step in self.steps:
            if step.group in block.groups:
                begin = time.perf_counter()
                held.made[step.group] = step(held)
                held.spent[step.group] = time.perf_counter() - begin
        return held.made

    def spent(self, held: Held) -> dict[str, float]:
        """Seconds that each group took; what is framed once counts where it came first."""
        return held.spent


def run(card: Card, client: Client, stages: Collection[str] = STAGES) -> dict[str, Tally]:
    """Do what is missing of some stages in one pass; a tally of each group.

    Raises
    ------
    ValueError, FileNotFoundError
        As `route.plan`; or when the survey is not ingested, a model is damaged, an input is not
        there, an index is unknown or templates cannot be used.
    BlockError
        As `blocks.run`.
    """
    require_ready(card, stages)
    config = config_of(card)
    with writing(card.store, "+".join(stages)) as writer:
        survey = Survey.open(card.store)
        steps = steps_of(card, survey, stages)
        _require_templates(steps, survey)
        stale.prepare(writer, card, steps, survey)
        steps = _precise(card, steps, writer, client)
        survey = Survey.open(card.store)
        work = Pass(
            store=everywhere(card.store),
            snapshot=survey.snapshot,
            config=config,
            steps=tuple(steps),
        )
        groups = [step.group for step in steps]
        pixels, arrays = _held(steps, grid_of(survey, f"spectra/{config}").size)
        where = target(card, writer, groups, pixels, arrays=arrays)
        tallies = blocks.run(work, target=where, client=client)
    rates.note(card, stages, max(tally.computed for tally in tallies.values()), tallies)
    return tallies


def look(card: Card, stages: Collection[str] = STAGES) -> list[Stale]:
    """What is missing or stale of some stages.

    Raises
    ------
    ValueError, FileNotFoundError
        As `run`.
    """
    require_ready(card, stages)
    survey = Survey.open(card.store)
    return stale.look(steps_of(card, survey, stages), survey)


def is_done(card: Card, stages: Collection[str] = STAGES) -> bool:
    """Whether nothing of some stages is missing or stale."""
    return exists(card.store) and not look(card, stages)


def require_ready(card: Card, stages: Collection[str]) -> None:
    """Refuse a survey that is not ingested, or a model that is not whole.

    Raises
    ------
    ValueError, FileNotFoundError
        As `run`.
    """
    require_ingested(Survey.open(card.store), f"spectra/{config_of(card)}")
    if "denoise" in stages:
        for chosen in route.plan(card).checkpoints:
            # Damaged, it is refused here, and not by a worker.
            loaded(chosen.path)


def steps_of(
    card: Card, survey: Survey, stages: Collection[str], plan: route.Plan | None = None
) -> list[Step]:
    """The groups of some stages, products first; plan: the routes, the card's when None."""
    config = config_of(card)
    products = _products(card, config, plan or route.plan(card)) if "denoise" in stages else []
    if "measure" not in stages:
        return list(products)
    making = {step.group for step in products}
    lines = _lines(card, survey, plan, making)
    indices = _indices(card, survey, plan, making, lines)
    return [*products, *indices, *lines, *_stars(card, survey, plan, making)]


def _indices(
    card: Card,
    survey: Survey,
    plan: route.Plan | None,
    making: Collection[str],
    lines: Sequence[MeasureLines],
) -> list[Measure]:
    fitted = {step.input: step for step in lines} if card.measure.emission == "subtract" else {}
    rules, found = Rules.of(card.measure), []
    for given in inputs(card, survey, plan, making):
        step = Measure(
            config=config_of(card),
            input=given,
            rules=rules,
            draws=card.measure.draws,
            seed=card.run.seed,
            precision=card.denoise.precision,
        )
        found.append(filled(step, fitted[given]) if given in fitted else step)
    return found


def _lines(
    card: Card, survey: Survey, plan: route.Plan | None, making: Collection[str]
) -> list[MeasureLines]:
    if not card.measure.lines:
        return []
    stars = line_templates(card.measure)
    return [
        MeasureLines(
            config=config_of(card),
            input=given,
            stars=stars,
            draws=card.measure.draws,
            seed=card.run.seed,
            precision=card.denoise.precision,
        )
        for given in inputs(card, survey, plan, making, "lines")
    ]


def _stars(
    card: Card, survey: Survey, plan: route.Plan | None, making: Collection[str]
) -> list[MeasureStars]:
    if not card.measure.stars:
        return []
    own = card.measure.model_copy(update={"inputs": card.measure.stars})
    found = inputs(card.model_copy(update={"measure": own}), survey, plan, making)
    # At rest a star has no velocity any more.
    found = [one for one in found if not one.checkpoint or not loaded(one.checkpoint).frame.rest]
    if "denoised" in card.measure.stars and not any(one.checkpoint for one in found):
        raise ValueError(
            "measure.stars: 'denoised' is asked for, and no model of the routes gives spectra on "
            "observed wavelengths, where a star has a velocity; route stars to one on such a "
            "frame ('star'), or leave 'denoised' out"
        )
    config = config_of(card)
    templates = star_templates(card.measure.star_templates, config, survey)
    return [
        MeasureStars(
            config=config, input=one, templates=templates, precision=card.denoise.precision
        )
        for one in found
    ]


def _require_templates(steps: Sequence[Step], survey: Survey) -> None:
    """Refuse templates that cannot be made: a worker would find fault with every star."""
    for step in steps:
        if isinstance(step, MeasureStars) and stale.look([step], survey):
            step.templates.made()


def _held(steps: Sequence[Step], pixels: int) -> tuple[int, int]:
    """Pixels of the widest array of a block, and arrays that a worker holds of it."""
    products = [loaded(step.chosen.path) for step in steps if isinstance(step, Denoise)]
    inputs = [step.input.frame for step in steps if not isinstance(step, Denoise)]
    frames = {*(model.frame for model in products), *(frame for frame in inputs if frame)}
    # Flux and sigma of each product, and the spectra on each frame, beside what is read.
    arrays = 6 + 2 * max(1, len(frames)) + 2 * len(products)
    # Lines take a dereddened spectrum, its weight and the instrument's width.
    arrays += 4 * any(isinstance(step, MeasureLines) for step in steps)
    return max(pixels, *(frame.grid.size for frame in frames), 0), arrays


def _precise(card: Card, steps: list[Step], writer: Writer, client: Client) -> list[Step]:
    """The steps, with their precision where they have one."""
    products = [step for step in steps if isinstance(step, Denoise)]
    known = {
        step.group: step
        for step in settled(products, Rules.of(card.measure), card.store, writer, client)
    }
    return [known.get(step.group, step) for step in steps]


def _products(card: Card, config: str, plan: route.Plan) -> list[Denoise]:
    return [
        Denoise(
            config=config,
            plan=plan,
            chosen=chosen,
            outside=card.denoise.outside,
            asked=card.denoise.precision,
        )
        for chosen in plan.checkpoints
    ]
