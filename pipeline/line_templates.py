"""Which stellar templates the fit of emission lines takes, by a card."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.card_measure import Measure as Card
from pipeline.lines.templates import Basis, analytic, from_files
from storage.simulation.template_files import Medium


@dataclass(frozen=True, kw_only=True)
class LineTemplates:
    """Templates, by where they are and what is in them."""

    files: str = ""
    "Pattern of their files; empty: those that need none."
    medium: Medium = "air"
    "What the wavelengths of the files are in."
    fwhm: float = 0.0
    "Their resolution, A."
    digest: str = ""
    "Sixteen hex digits of what is in the files; empty where there are none."

    @property
    def basis(self) -> Basis:
        """The templates, read once per process."""
        return from_files(self.files, self.medium, self.fwhm) if self.files else analytic()

    @property
    def recipe(self) -> list[str]:
        """What the fit depends on: not where the files are, but what is in them."""
        return [self.digest, self.medium, f"{self.fwhm:g} A"] if self.files else ["computed"]


def line_templates(card: Card) -> LineTemplates:
    """The templates of a card.

    Raises
    ------
    FileNotFoundError
        When the pattern matches no file.
    """
    if not card.templates:
        return LineTemplates()
    # Workers may stand in another folder.
    pattern = Path(card.templates).absolute()
    files = [
        p
        for p in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
        if p.is_file()
    ]
    if not files:
        raise FileNotFoundError(
            f"measure.templates: no file matches {card.templates}; expected a pattern such as "
            "ssp/*.fits, or no such key for templates that are computed"
        )
    found = hashlib.blake2b(digest_size=8)
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return LineTemplates(
        files=str(pattern),
        medium=card.template_medium,
        fwhm=card.template_fwhm,
        digest=found.hexdigest(),
    )
