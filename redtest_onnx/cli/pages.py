"""What commands share to write pages."""

from __future__ import annotations

import click

from redtest_onnx.report.page.provenance import Provenance


def provenance() -> Provenance:
    """Of the command that runs, as the user gave it."""
    context = click.get_current_context(silent=True)
    return Provenance.now(context.obj if context is not None and isinstance(context.obj, list) else None)
