"""Write the generated pages of the documentation: commands, rules, profiles, library, JSON Schemas.

python tools/generate_docs.py           # write docs/reference and docs/schemas
python tools/generate_docs.py --check   # exit code 1 if a file differs from what would be written
"""

from __future__ import annotations

import ast
import json
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import click

from redtest_onnx.auditing.profile_file import load_profile, shipped
from redtest_onnx.auditing.registry import rules
from redtest_onnx.cli.main import COMMANDS, cli
from redtest_onnx.documents.schemas import schemas

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written by tools/generate_docs.py; edit the sources instead. -->\n\n"


def commands_page() -> str:
    """Every command with its arguments and options, as click knows them."""
    parts = [NOTE + "# Commands\n"]
    parts.append(
        "Exit codes: 0 done, 1 a verdict that was asked for is negative, 2 bad usage or bad input, 3 a bug "
        "of ours, 130 interrupted. stdout carries results, stderr progress and remarks.\n"
    )
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        context = click.Context(command, info_name=f"redtest-onnx {name}")
        parts.append(f"## {name}\n")
        parts.append(f"```text\n{command.get_usage(context)}\n```\n")
        parts.append(_paragraphs(command.help or "") + "\n")
        rows = [_option_row(p, context) for p in command.params if isinstance(p, click.Option)]
        parts.append("| option | what it does |\n| --- | --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).replace("\b", "").strip()


def _option_row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    flags, text = record if record is not None else (", ".join(option.opts), "")
    shown = flags.replace("|", "\\|")
    return f"| `{shown}` | {_cell(' '.join(text.split()))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")


def rules_page() -> str:
    """Every rule of the audit."""
    parts = [NOTE + "# Rules of the audit\n"]
    parts.append(
        "Each kind of problem is one finding with the places it shows at. Profiles change severities, and "
        "suppress findings with a reason.\n"
    )
    for rule in rules():
        parts.append(f"## {rule.id} {{#{rule.id.lower()}}}\n")
        parts.append(f"**{rule.name}** ({rule.severity}). {_cell(rule.explanation)}\n")
        parts.append(f"*Fix:* {_cell(rule.fix)}\n")
    return "\n".join(parts)


def profiles_page() -> str:
    """Every shipped profile, as it stands in its file."""
    parts = [
        NOTE + "# Profiles\n",
        "Give one with `--profile NAME`, or your own file: [auditing](../audit.md).\n",
    ]
    for name in shipped():
        text = (files("redtest_onnx.auditing") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
        tomllib.loads(text)
        parts.append(f"## {name}\n")
        parts.append(f"{_cell(load_profile(name).description)}\n")
        parts.append(f"```toml\n{text.strip()}\n```\n")
    return "\n".join(parts)


def public_names() -> Iterator[tuple[str, str]]:
    """Name and home of everything public, from the one list there is."""
    tree = ast.parse((ROOT / "redtest_onnx" / "public.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.name, node.module) for alias in node.names)


def api_page() -> str:
    """Every public name with its docstring."""
    parts = [NOTE + "# Library\n", "Everything here is imported with `import redtest_onnx as rt`.\n"]
    for name, home in sorted(public_names(), key=lambda pair: (pair[0][0].isupper(), pair[0].lower())):
        parts.append(f"::: {home}.{name}\n")
    return "\n".join(parts)


def schemas_page() -> str:
    """What the JSON documents hold, with links to their schemas."""
    parts = [NOTE + "# JSON documents\n"]
    parts.append(
        "`--json FILE` writes the whole result, `--json -` to stdout. The fields below are a promise: more "
        "may be added, none is taken away under the same `schema`. Undefined numbers are `null`.\n"
    )
    parts.append("| command | `schema` | JSON Schema | fields |\n| --- | --- | --- | --- |")
    for name, schema in schemas().items():
        fields = ", ".join(f"`{key}`" for key in schema["required"])
        title = schema["properties"]["schema"]["const"]
        parts.append(
            f"| `{name}` | `{title}` | [{name}.schema.json](../schemas/{name}.schema.json) | {fields} |"
        )
    parts.append(
        "\nFolders, series, plans and two more commands write documents of their own, which have no schema "
        "yet: `redtest-onnx/analyze-folder/1` (`analyze FOLDER`), `redtest-onnx/curve/1` (`prune --curve`), "
        "`redtest-onnx/curve-folder/1` (`prune FOLDER --curve`), `redtest-onnx/plan/1` (`prune --dry-run "
        "--plan`), `redtest-onnx/expose/1` and `redtest-onnx/finetune/1`."
    )
    return "\n".join(parts) + "\n"


def generated() -> dict[Path, str]:
    """Path and text of every generated file."""
    docs = ROOT / "docs"
    found = {
        docs / "reference" / "commands.md": commands_page(),
        docs / "reference" / "rules.md": rules_page(),
        docs / "reference" / "profiles.md": profiles_page(),
        docs / "reference" / "library.md": api_page(),
        docs / "reference" / "json.md": schemas_page(),
    }
    for name, schema in schemas().items():
        found[docs / "schemas" / f"{name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return found


def main() -> int:
    """Write, or check."""
    stale = []
    for path, text in generated().items():
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.relative_to(ROOT))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path} is out of date: run python tools/generate_docs.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
