"""Augment: what a spectrum that teaches is turned into first, and what it should become.

Every network learns any of these ways; the batch carries the target. What learns by sums takes the
input alone, but for wiener. The draws depend on the seed, the epoch and the chunk of the survey
alone.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator


class Augment(BaseModel):
    """[augment] of a model card; the default changes nothing: input and target are the spectrum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Literal["input", "truth", "model", "repeat"] = "input"
    """What the input should become: itself; the noiseless truth of a mock; the survey's best fit;
    another exposure of the same object."""
    noise: Literal["none", "fresh", "split"] = "none"
    """Noise drawn anew every epoch, on the observed pixels, of their ivar. 'fresh': the input is
    the target (truth or model) with it. 'split': the input is the spectrum with `share` times it,
    the target the spectrum less it over `share`: their noise is independent (Pang+2021)."""
    share: PositiveFloat = 1.0
    "Of 'split'."
    sigma: NonNegativeFloat = 0.0
    "Noise of every frame pixel of the input, normalised flux; 0.04 in Scourfield+2023."
    renorm: Literal["none", "l2", "l2_debiased", "sum"] = "none"
    """What an input is brought back to after `sigma`: the root of the sum of squares it had, the
    same with the noise left out of it, or its sum."""
    calibration: float = Field(default=0.0, ge=0, lt=1)
    "Largest amplitude of a smooth curve that input and target are multiplied with; 0.02 for stars."
    scale: float = Field(default=0.0, ge=0, le=0.2)
    "Standard deviation about 1 of a factor of input and target; one below 0.1 becomes 0.1."
    offset: NonNegativeFloat = 0.0
    "Standard deviation of a number added to input and target."
    masks: float = Field(default=0.0, ge=0, lt=1)
    "Share of the input's pixels that are hidden, in gaps; the target keeps them."
    redshift: NonNegativeFloat = 0.0
    "Standard deviation of a velocity that the redshift is wrong by, km/s."

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.noise == "fresh" and not self.exact:
            raise ValueError(
                f"noise 'fresh' with target {self.target!r}: it is drawn on flux that has none; "
                "use target 'truth' or 'model', or noise 'split'"
            )
        if self.noise == "split" and self.target != "input":
            raise ValueError(
                f"noise 'split' with target {self.target!r}: it makes its own target; "
                "use target 'input', or another noise"
            )
        if self.renorm != "none" and not self.sigma:
            raise ValueError(f"renorm {self.renorm!r} without sigma: nothing was changed; set both")
        return self

    @property
    def exact(self) -> bool:
        """Whether the target has no noise."""
        return self.target in ("truth", "model")

    @property
    def before(self) -> bool:
        """Whether something is drawn before the frame, on the observed pixels."""
        return self.noise != "none" or self.redshift > 0

    @property
    def after(self) -> bool:
        """Whether something is drawn on the pixels of the frame."""
        return any((self.sigma, self.calibration, self.scale, self.offset, self.masks))
