"""Options as objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redtest_onnx.cli.groups import OutputOptions, grouped


@dataclass(frozen=True)
class Pictures:
    png: str | None
    html: str | None = "page"


def test_options_come_as_objects_and_others_as_they_are() -> None:
    @grouped(pictures=Pictures, given=OutputOptions)
    def command(model: str, **values: Any) -> tuple[Any, ...]:
        """What it does."""
        return model, values.pop("pictures"), values.pop("given"), values

    said: dict[str, Any] = {"json_path": "-", "force": True, "verbose": 0, "quiet": False}
    assert command("m", png="p", seed=3, **said) == (
        "m",
        Pictures("p", "page"),
        OutputOptions("-", True, 0, False, "table"),
        {"seed": 3},
    )
    assert command.__doc__ == "What it does."
    assert command("m", png=None, html=None, form="csv", **said)[1:3] == (
        Pictures(None, None),
        OutputOptions("-", True, 0, False, "csv"),
    )
