"""Documentation: what is pasted runs, what is public is there, what is generated is fresh, links lead on."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import jsonschema
import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.auditing.profile_file import load_profile
from redtest_onnx.auditing.run import audit
from redtest_onnx.cli.main import COMMANDS, cli, run
from redtest_onnx.documents.schemas import schemas

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
MODELS = ROOT / "models"
DATA = MODELS / "digits.npz"


def blocks(path: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def commands(path: Path) -> list[str]:
    """Calls of the tool, with continued lines joined; from a new environment or after others, too."""
    return commands_in("\n".join(blocks(path, "sh")).replace("\\\n", " "))


def commands_in(text: str) -> list[str]:
    calls = (call.split(" #")[0].strip() for line in text.splitlines() for call in line.split(" && "))
    return [name for call in calls if (name := call.removeprefix(".venv/bin/")).startswith("redtest-onnx ")]


def test_commands_run_as_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, as a newcomer goes from the README to the tutorial."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(MODELS)
    for page, least in (("README.md", 1), ("docs/tutorial.md", 2)):
        found = commands(ROOT / page)
        assert len(found) >= least
        for line in found:
            assert run(shlex.split(line)[1:]) == 0, line
            for name in re.findall(r"\S+\.(?:html|md|sarif|onnx)\b", line):
                assert (tmp_path / name).exists(), (line, name)
        for code in blocks(ROOT / page, "python"):
            exec(compile(code, page, "exec"), {})


WRITES = re.compile(r"(?:^|\s)(?:-o|--(?:output|html|json|png|sweep|save|save-plan))[ =](\S+)")
DEFAULTS = {"search": "search.sqlite"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_command_of_a_block_writes_what_another_wrote(page: Path) -> None:
    """Files that exist are not overwritten, so that the second command would fail."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        written: list[str] = []
        for line in commands_in(block):
            if "--force" in line or "--resume" in line:
                continue
            names = [name for name in WRITES.findall(line) if name != "-"]
            default = DEFAULTS.get(line.split()[1])
            written += names if default is None or " --output" in line else [*names, default]
        assert len(written) == len(set(written)), written


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the how-tos speak of."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    (tmp_path / "models").mkdir()
    for name in ("model", "main", "branch", "one", "two", "small", "models/small"):
        shutil.copy(MODELS / "vgg_digits.onnx", tmp_path / f"{name}.onnx")
    with np.load(DATA) as arrays, zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        x, labels = arrays["test/input"][:60], arrays["test/labels"]
        pixels = ((x - x.min()) / (x.max() - x.min()) * 255).astype(np.uint8)
        for k, digit in enumerate(pixels):
            written = io.BytesIO()
            image.fromarray(digit[0]).save(written, "PNG")
            archive.writestr(f"{labels[k]}/{k}.png", written.getvalue())
        for name in ("clean", "noisy", "shard0", "shard1"):
            np.savez(tmp_path / f"{name}.npz", input=x)
        for name in ("activations_a", "activations_b"):
            np.savez(tmp_path / f"{name}.npz", first=x.reshape(60, -1), second=x[:, 0, 2:])
    (tmp_path / "phone.toml").write_text('name = "phone"\n\n[budgets]\nfile_mb = 20\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["howto/ci", "howto/research", "choosing"])
def test_commands_of_how_tos_run_as_pasted(
    page: str, newcomer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for those that need a cluster; a prune that finds nothing to remove at this size is no failure."""
    if page == "choosing":
        for name in ("resnet_digits.onnx", "digits.npz"):
            shutil.copy(MODELS / name, "models")
    found = [line for line in commands(DOCS / f"{page}.md") if "--address" not in line]
    assert len(found) >= 3
    for line in found:
        words = shlex.split(line.split(" > ")[0])
        globbed = [name for word in words for name in (sorted(glob(word)) if "*" in word else [word])]
        assert run(globbed[1:]) in ((0, 1) if words[1] == "prune" else (0,)), line


@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_the_profile_of_the_page_passes_what_it_says(name: str, tmp_path: Path) -> None:
    text = next(block for block in blocks(DOCS / "audit.md", "toml") if "suppress" in block)
    assert text.count("expires") == 1
    (tmp_path / "phone.toml").write_text(re.sub("expires = .*", "", text), encoding="utf-8")
    model = rt.load(MODELS / f"{name}_digits.onnx")
    bench = rt.Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu", 1))
    result = audit(bench, load_profile(str(tmp_path / "phone.toml")), timed=False)
    assert result.passed, result.findings
    assert [one.rule for one in result.findings if one.suppressed] == ["RT024"]


def options_of(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line)
        assert words[1] in {*COMMANDS, "--version"}, line
        allowed = options_of(words[1]) | {"--help", "-h"} if words[1] in COMMANDS else {"--version"}
        for word in words[2:]:
            if word.startswith("-") and not re.fullmatch(r"-|--|-\d.*", word):
                assert word.split("=")[0] in allowed, f"{word} in {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    given = {found for head in heads for found in re.findall(r"\{#([\w-]+)\}", head)}
    plain = (re.sub(r"[`*]|\s*\{#.*\}", "", head) for head in heads)
    return given | {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in plain}


def test_the_readme_fits_a_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    for name in COMMANDS:
        assert f"redtest-onnx {name}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    for flag in options_of(name):
        assert not flag.startswith("--") or f"{flag} " in section or f"{flag}`" in section, flag
    bare = [p.name for p in command.params if isinstance(p, click.Option) and not p.help and not p.hidden]
    assert bare == []


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "reference" / "library.md").read_text(encoding="utf-8")
    for name in rt.__all__:
        if name != "__version__":
            assert re.search(rf"^::: [\w.]+\.{name}$", page, re.MULTILINE), name


def test_generated_pages_are_fresh() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "generate_docs.py"), "--check"]
    result = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "site" / "reference" / "library" / "index.html").exists()


@pytest.mark.parametrize("name", list(schemas()))
def test_schemas_are_schemas(name: str) -> None:
    published = json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert published == schemas()[name]
    jsonschema.Draft202012Validator.check_schema(published)


CALLS = {
    "inspect": ["inspect", "vgg"],
    "analyze": ["analyze", "vgg", "--data", "--samples", "16"],
    "prune": ["prune", "vgg", "--data", "--samples", "16", "--remove", "1", "--repair", "none"],
    "compare": ["compare", "vgg", "resnet", "--data", "--samples", "16"],
    "audit": ["audit", "vgg", "--no-latency"],
    "sparsity": ["sparsity", "vgg"],
    "rank": ["rank", "vgg", "vit", "--data", "--samples", "16", "--batches", "1"],
}


@pytest.mark.parametrize("name", CALLS)
def test_documents_keep_to_their_schemas(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[str] = []
    for word in CALLS[name]:
        path = MODELS / f"{word}_digits.onnx"
        arguments += [str(path)] if path.exists() else [word, str(DATA)] if word == "--data" else [word]
    if name == "prune":
        arguments += ["-o", str(tmp_path / "out.onnx")]
    assert run([*arguments, "--json", "-"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schemas()[name]).validate(document)
    broken = {key: value for key, value in document.items() if key != schemas()[name]["required"][-1]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schemas()[name]).validate(broken)
