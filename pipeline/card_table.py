"""A table of a card: what all of them have in common."""

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of a card: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
