"""`redtest-onnx audit`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from redtest_onnx.auditing.baseline import Change, Known, compare, known_of, read_baseline
from redtest_onnx.auditing.profile import DEFAULT, load_profile, shipped
from redtest_onnx.auditing.reduced_build import write_config
from redtest_onnx.auditing.registry import rules
from redtest_onnx.auditing.run import Audit, FailOn, audit
from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.outputs import check_outputs
from redtest_onnx.errors import RedtestError
from redtest_onnx.graph.files import load, write_atomic
from redtest_onnx.graph.model import Model
from redtest_onnx.report.audits import (
    audit_document,
    audit_junit,
    audit_markdown,
    audit_sarif,
    places,
    plain,
)
from redtest_onnx.report.documents import write_json
from redtest_onnx.report.tables import count, size
from redtest_onnx.runtime.workbench import Workbench

_FORMATS = ("text", "json", "sarif", "junit", "markdown")
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command("audit")
@click.argument("models", type=options.FilePath, nargs=-1, metavar="MODEL...")
@click.option(
    "--profile",
    default=DEFAULT,
    show_default=True,
    metavar="NAME|FILE",
    help="Where the model will run: a TOML file, or one of --list-profiles.",
)
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True, help="Of the report."
)
@click.option("--output", type=options.FilePath, help="Write the report to this file. [default: stdout]")
@click.option("--baseline", type=options.FilePath, help="An earlier --json; what it knows does not fail.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "note"]),
    default="error",
    show_default=True,
    help="The mildest severity that fails.",
)
@click.option("--no-latency", is_flag=True, help="Do not time the model.")
@click.option(
    "--write-operators", type=options.FilePath, help="Write ONNX Runtime's required_operators.config."
)
@click.option("--list-rules", is_flag=True, help="Show all rules and stop.")
@click.option("--list-profiles", is_flag=True, help="Show the shipped profiles and stop.")
@options.data_options
@options.run_options
@options.output_options
@click.pass_context
def command(
    context: click.Context,
    /,
    models: tuple[Path, ...],
    profile: str,
    form: str,
    output: Path | None,
    baseline: Path | None,
    fail_on: FailOn,
    no_latency: bool,
    write_operators: Path | None,
    list_rules: bool,
    list_profiles: bool,
    json_path: str | None,
    force: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> None:
    """Check MODEL before it ships: valid, supported on the target, within its budgets, sound in its numbers.

    Exit code 0: passed; 1: failed; 2: could not be audited.
    """
    options.configure_logging(verbose, quiet)
    to_stdout = form != "text" and output is None
    screen = Screen(quiet=quiet, json_on_stdout=json_path == "-" or to_stdout)
    if list_rules or list_profiles:
        _show_lists(screen, list_rules, list_profiles)
        return
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.")
    check_outputs([output, write_operators, json_path], force=force)
    target = load_profile(profile)
    known = read_baseline(baseline) if baseline else Known({})
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    audits: list[Audit] = []
    failed: RedtestError | None = None
    with screen.progress() as progress:
        for path in models:
            try:
                loaded = load(path)
                audits.append(
                    audit(
                        Workbench(loaded, source.open(loaded), run),
                        target,
                        timed=not no_latency,
                        known=known.of(path.name),
                        fail_on=fail_on,
                        progress=progress,
                    )
                )
            except RedtestError as error:
                failed = error
                screen.note(f"could not be audited: {plain(str(error))}")
    if audits:
        _report(screen, audits, form, output)
        if json_path:
            write_json(audit_document(audits), json_path)
        if write_operators:
            _write_operators(write_operators, [one.model for one in audits])
        if baseline:
            _show_change(screen, compare(known, known_of(audit_document(audits))))
    if failed is not None:
        context.exit(2)
    context.exit(0 if all(one.passed for one in audits) else 1)


def _report(screen: Screen, audits: list[Audit], form: str, output: Path | None) -> None:
    if form == "text" and output is None:
        for one in audits:
            _show(screen, one)
        return
    text = {
        "text": lambda: _plain_text(audits),
        "json": lambda: json.dumps(audit_document(audits), indent=2, allow_nan=False) + "\n",
        "sarif": lambda: json.dumps(audit_sarif(audits), indent=2) + "\n",
        "junit": lambda: audit_junit(audits),
        "markdown": lambda: audit_markdown(audits),
    }[form]()
    if output is None:
        sys.stdout.write(text)
    else:
        write_atomic(output, lambda path: path.write_text(text, encoding="utf-8"))
        screen.show(f"Report written to {output}")


def _show(screen: Screen, one: Audit) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", show_lines=False)
    for column in ("rule", "severity", "what", "where"):
        table.add_column(column, overflow="fold")
    shown = [finding for finding in one.findings if finding.suppressed is None]
    for finding in shown:
        known = " (known)" if finding.fingerprint in one.known else ""
        table.add_row(
            finding.rule,
            Text(finding.severity + known, style=_COLOURS[finding.severity]),
            Text(f"{plain(finding.message)}\n{plain(finding.fix)}"),
            Text(places(finding)),
        )
    screen.show(f"{plain(one.model.label)}, audited for {one.profile.name}", _facts(one))
    if shown:
        screen.show(table)
    hidden = len(one.findings) - len(shown)
    if hidden:
        screen.show(f"{hidden} findings are suppressed by the profile.")
    screen.show(f"PASSED: {plain(one.model.label)}" if one.passed else _failed(one))


def _failed(one: Audit) -> str:
    found = ", ".join(sorted({finding.rule for finding in one.failing}))
    return f"FAILED: {plain(one.model.label)}, {len(one.failing)} findings ({found})"


def _facts(one: Audit) -> str:
    facts = [
        f"{count(one.cost.parameters)} parameters",
        f"{count(one.cost.macs)} MACs",
        f"file {size(one.measured['file_bytes'])}",
        f"activations {size(one.cost.peak_activation_bytes)}",
    ]
    if latency := one.measured["latency_ms"]:
        facts.append(f"latency p50 {latency['p50']:.3g} ms, p99 {latency['p99']:.3g} ms")
    if one.measured["fallback_share"] is not None:
        facts.append(
            f"{1 - one.measured['fallback_share']:.0%} of the nodes on {one.profile.target.provider} "
            f"in about {one.measured['partitions']} pieces"
        )
    return "  " + ", ".join(facts)


def _plain_text(audits: list[Audit]) -> str:
    lines = []
    for one in audits:
        lines += [f"{plain(one.model.label)}, audited for {one.profile.name}", _facts(one)]
        for finding in one.findings:
            if finding.suppressed is None:
                where = places(finding)
                lines.append(
                    f"  {finding.rule} {finding.severity}: {plain(finding.message)} {where}".rstrip()
                )
                lines.append(f"    {plain(finding.fix)}")
        lines.append(f"PASSED: {plain(one.model.label)}" if one.passed else _failed(one))
    return "\n".join(lines) + "\n"


def _show_change(screen: Screen, change: Change) -> None:
    screen.show(f"Against the baseline: {len(change.new)} new, {len(change.gone)} gone.")
    for sign, texts in (("new ", change.new), ("gone", change.gone)):
        for text in texts:
            screen.show(f"  {sign} {plain(text)}")


def _show_lists(screen: Screen, list_rules: bool, list_profiles: bool) -> None:
    if list_profiles:
        for name in shipped():
            screen.show(f"{name:20} {load_profile(name).description}")
    if list_rules:
        for rule in rules():
            screen.show(f"{rule.id} {rule.name:28} {rule.severity:8} {rule.explanation}")


def _write_operators(path: Path, models: list[Model]) -> None:
    write_atomic(path, lambda target: target.write_text(write_config(models), encoding="utf-8"))
