"""Settings: one frozen class per task is at once the function's argument, the YAML section and the options."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


def none_from_text(value: object) -> object:
    """Let the command line, where everything is text, say that there is none."""
    return None if isinstance(value, str) and value.lower() == "none" else value


FloatOrNone = Annotated[float | None, BeforeValidator(none_from_text)]
"""A number, or none: ``None`` in Python, ``null`` in YAML, ``none`` on the command line."""


class Settings(BaseModel):
    """Base of every task's settings: frozen, unknown keys are errors, all problems are reported together.

    The docstring under a field is its help text on the command line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
