"""What every mapping in a spec is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping in a spec: frozen, and closed to keys that it doesn't name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
