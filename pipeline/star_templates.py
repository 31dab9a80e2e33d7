"""Which templates stars are fitted with, by a card, as the spectra of a survey show them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.card_measure import StarTable
from pipeline.stage import grid_of
from pipeline.stars.template_set import Curve, TemplateSet
from pipeline.stars.templates import Templates, line_spread, templates
from storage import files
from storage.store import Survey

LOOKED = 512
"Spectra whose line spread is looked at, from the first on: later ones change nothing."
_KEY = "measure.star_templates"


@dataclass(frozen=True, kw_only=True)
class StarTemplates:
    """Templates, by what was asked for and what is in their files."""

    chosen: TemplateSet
    "Models by an absolute path: workers may stand in another folder."
    digest: str = ""
    "Sixteen hex digits of what is in the files; empty where there are none."

    def made(self) -> Templates:
        """The templates; made once in a process.

        Raises
        ------
        ValueError
            When a file is damaged, a range holds no node, or a model does not reach over the band.
        """
        try:
            return templates(self.chosen)
        except ValueError as error:
            raise ValueError(f"{_KEY}: {error}") from error

    @property
    def recipe(self) -> dict[str, Any]:
        """What the fit depends on: not where the files are, but what is in them."""
        found = self.chosen.model_dump(mode="json") | {"models": self.digest}
        spread = found["line_spread"]
        if isinstance(spread, list):
            middle, which = np.median(spread, axis=0)[1], files.of_content(repr(spread).encode())
            found["line_spread"] = f"{middle:.1f} km/s, curve {which[:8]}"
        return found


def star_templates(asked: StarTable, config: str, survey: Survey) -> StarTemplates:
    """The templates of a card; without a line spread, it is that of the survey.

    Raises
    ------
    FileNotFoundError
        When there is no such file or folder.
    ValueError
        When the survey says nothing of its line spread.
    """
    path, digest = _files(asked)
    spread = asked.line_spread or _line_spread(config, survey)
    given = asked.model_dump() | {"models": path, "line_spread": spread}
    return StarTemplates(chosen=TemplateSet(**given), digest=digest)


def _files(asked: StarTable) -> tuple[str, str]:
    """The absolute path of models, and the digest of what is there."""
    if asked.physics == "toy":
        return "", ""
    path, table = Path(asked.models).absolute(), asked.physics == "table"
    if not (path.is_file() if table else path.is_dir()):
        what = "file" if table else "folder"
        raise FileNotFoundError(
            f"{_KEY}.models: {asked.models}: no such {what}; expected the {what} of the "
            f"{asked.physics} models, or physics = 'toy', which needs none"
        )
    if table:
        return str(path), files.of_bytes(str(path))[:16]
    # A model's parameters are in its name.
    inside = [
        f"{p.relative_to(path)} {files.of_bytes(str(p))}"
        for p in sorted(path.rglob("*"))
        if p.is_file()
    ]
    return str(path), files.of_content("\n".join(inside).encode())[:16]


def _line_spread(config: str, survey: Survey) -> Curve:
    """That of the median of the first spectra."""
    group = f"spectra/{config}"
    lsf = survey.dataset(group)["lsf"][:LOOKED].to_numpy().astype(np.float64)
    known = np.isfinite(lsf) & (lsf > 0)
    there = known.any(axis=0)
    middle = np.zeros(lsf.shape[1])
    middle[there] = np.nanmedian(np.where(known, lsf, np.nan)[:, there], axis=0)
    try:
        return line_spread(middle, grid_of(survey, group))
    except ValueError as error:
        raise ValueError(f"{survey.path}: {group}/{error} as {_KEY}.line_spread") from error
