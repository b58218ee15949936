"""`redtest-onnx audit`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table as RichTable
from rich.text import Text

from redtest_onnx.auditing.baseline import Change, Known, compare, known_of, read_baseline
from redtest_onnx.auditing.documents import audit_document
from redtest_onnx.auditing.profile_file import DEFAULT, load_profile, shipped
from redtest_onnx.auditing.reduced_build import write_config
from redtest_onnx.auditing.registry import rules
from redtest_onnx.auditing.run import Audit, FailOn, audit
from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.deployment_options import deployment_options
from redtest_onnx.cli.file_names import SuffixedName
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.words import in_flags
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import RedtestError
from redtest_onnx.graph.files import load
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.report.audit_reports import (
    AUDIT_FORMATS,
    REPORT_SUFFIXES,
    AuditFormat,
    audit_report,
    report_files,
)
from redtest_onnx.report.audits import audit_facts, places, verdict
from redtest_onnx.report.numbers import plural
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.text import plain

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True)
class AuditOptions:
    """What a model is held against, and what is reported.

    Attributes:
        profile: name or file.
        form: format of the report on stdout.
        output: files of further reports.
        baseline: an earlier document.
        fail_on: the mildest severity that fails.
        no_latency: whether the model is not timed.
        write_operators: ONNX Runtime's list of operators.
        list_rules: whether rules are shown, and nothing else is done.
        list_profiles: likewise profiles.
    """

    profile: str
    form: AuditFormat
    output: tuple[Path, ...]
    baseline: Path | None
    fail_on: FailOn
    no_latency: bool
    write_operators: Path | None
    list_rules: bool
    list_profiles: bool


@click.command(
    "audit",
    cls=Command,
    examples=(
        "redtest-onnx audit model.onnx",
        "redtest-onnx audit model.onnx --profile nnapi",
        "redtest-onnx audit model.onnx --output audit.sarif --output audit.md",
    ),
)
@click.argument("models", type=options.FilePath, nargs=-1, metavar="MODEL...")
@click.option(
    "--profile",
    default=DEFAULT,
    show_default=True,
    metavar="NAME|FILE",
    help="Where the model will run: a TOML file, or one of --list-profiles.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(AUDIT_FORMATS),
    default="text",
    show_default=True,
    help="Format of the report on stdout: github for annotations, gitlab for a code quality report.",
)
@click.option(
    "-o",
    "--output",
    type=SuffixedName(*REPORT_SUFFIXES),
    multiple=True,
    help="Write a report, too; may be repeated. The suffix tells its format: .txt .json .sarif .xml (JUnit) "
    ".md .html; with --format gitlab or sarif a .json file is that.",
)
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
    "--write-operators", type=file_names.OUTPUT, help="Write ONNX Runtime's required_operators.config."
)
@click.option("--list-rules", is_flag=True, help="Show all rules and stop.")
@click.option("--list-profiles", is_flag=True, help="Show the shipped profiles and stop.")
@options.data_options
@options.run_options
@deployment_options
@options.output_options
@click.pass_context
@grouped(asked=AuditOptions, given=OutputOptions)
def command(
    context: click.Context,
    /,
    models: tuple[Path, ...],
    asked: AuditOptions,
    given: OutputOptions,
    **values: Any,
) -> None:
    """Check MODEL before it ships: valid, supported on the target, within its budgets, sound in its numbers.

    Exit code 0: passed; 1: failed; 2: could not be audited.
    """
    given.start_log()
    form, baseline, json_path = asked.form, asked.baseline, given.json_path
    reports = report_files(asked.output, form)
    on_stdout = form != "text" and form not in [kind for _, kind in reports]
    screen = given.screen(taken=on_stdout)
    if asked.list_rules or asked.list_profiles:
        _show_lists(screen, asked.list_rules, asked.list_profiles)
        return
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.")
    written = {f"--output {path}": path for path in asked.output}
    named = {**written, "--write-operators": asked.write_operators, "--json": json_path}
    target = load_profile(asked.profile)
    known = read_baseline(baseline).moved_to(models) if baseline else Known({})
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    required = target.target.required_operators
    read = (*source.reads(*models), baseline, Path(asked.profile), Path(required) if required else None)
    Outputs.of(named, force=given.force, reads=read, models=models)
    audits: list[Audit] = []
    failed: RedtestError | None = None
    with screen.progress() as progress:
        for path in models:
            try:
                bench = Workbench(loaded := load(path), source.open(loaded), run)
                audits.append(
                    audit(
                        *(bench, target),
                        timed=not asked.no_latency,
                        known=known.of(path),
                        fail_on=asked.fail_on,
                        given=options.data_arguments(context),
                        progress=progress,
                    )
                )
            except RedtestError as error:
                failed = error
                screen.note(f"could not be audited: {in_flags(error)}")
    if audits:
        if form == "text":
            for one in audits:
                _show(screen, one)
        elif on_stdout and json_path != "-":
            sys.stdout.write(audit_report(audits, form, provenance()))
        for path, kind in reports:
            text = audit_report(audits, kind, provenance())
            write_atomic(path, partial(Path.write_text, data=text, encoding="utf-8"))
            screen.note(f"{kind} written to {path}")
        if json_path:
            write_json(audit_document(audits), json_path)
        if asked.write_operators:
            _write_operators(asked.write_operators, [one.model for one in audits])
        if baseline:
            _show_change(screen, compare(known, known_of(audit_document(audits))))
    if failed is not None:
        context.exit(2)
    context.exit(0 if all(one.passed for one in audits) else 1)


def _show(screen: Screen, one: Audit) -> None:
    table = RichTable(box=None, pad_edge=False, header_style="bold", show_lines=False)
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
    screen.show(f"{plain(one.model.label)}, audited for {one.profile.name}", audit_facts(one))
    if shown:
        screen.show(table)
    if hidden := len(one.findings) - len(shown):
        screen.show(f"{plural(hidden, 'finding is', 'findings are')} suppressed by the profile.")
    screen.show(verdict(one))


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
