"""Break what the command line reads beside models: profiles, plans, baselines, analyses, checkpoints, ..."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing import models, process

FEW = ("--samples", "8", "--batches", "1", "--threads", "1")
PROFILE = """name = "board"
description = "a board"

[target]
runtime = "onnxruntime"
provider = "cpu"
max_opset = 17
required_operators = "ops.config"

[budgets]
file_mb = 5.0
macs_m = 100
fallback_share = 0.5

[operators]
forbidden = ["Loop"]
required = []

[severities]
RT001 = "note"

[[suppress]]
rule = "RT003"
where = "*"
reason = "known"
expires = 2030-01-01
"""
TRAIN = ("finetune", "good.onnx", "--data", "good.npz", "--epochs", "2", "--threads", "1", "--force")


@dataclass(frozen=True)
class Kind:
    """A kind of document.

    Attributes:
        files: the files that are broken, one of them at a time.
        arguments: the command that reads them.
        how: what breaks their bytes.
    """

    files: tuple[str, ...]
    arguments: tuple[str, ...]
    how: Callable[[bytes, random.Random], bytes]


def prepare(folder: Path) -> Path:
    """Write one good document of each kind."""
    (folder / "good.onnx").write_bytes(models.valid()[0])
    rng = np.random.default_rng(0)
    data = rng.random((24, 6), np.float32)
    labels = rng.integers(0, 3, 24)
    np.savez(folder / "good.npz", input=data, labels=labels)
    np.savez_compressed(folder / "packed.npz", input=data, labels=labels)
    np.save(folder / "good.npy", data)
    (folder / "images.onnx").write_bytes(models.valid()[2])
    _images(folder / "good.zip")
    (folder / "profile.toml").write_text(PROFILE)
    (folder / "ops.config").write_text("ai.onnx;17;MatMul,Relu,Add,Gemm\n# comment\n")
    (folder / "table.csv").write_text("name,accuracy,latency_ms\ngood,0.9,1.5\nimages,0.8,\n")
    calls = {
        "analysis.json": ("analyze", "good.onnx", "--data", "good.npz", *FEW, "--json", "analysis.json"),
        "baseline.json": ("audit", "good.onnx", "--no-latency", "--threads", "1", "--json", "baseline.json"),
        "plan.json": (
            *("prune", "good.onnx", "--data", "good.npz", *FEW, "--remove", "1", "--dry-run"),
            *("--plan", "plan.json"),
        ),
    }
    for name, arguments in calls.items():
        answer = process.call(arguments, folder)
        if not (folder / name).exists():
            raise SystemExit(f"{name} was not written: {answer.text}")
    _store(folder / "found.sqlite")
    _checkpoint(folder)
    _iterations(folder)
    return folder


def _images(path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for k, kind in enumerate(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"] * 2):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(file, kind)
            archive.writestr(f"{k % 2}/{k}.{kind.lower()}", file.getvalue())


def _store(path: Path) -> None:
    from redtest_onnx.ranking.candidate import MeasuredCandidate
    from redtest_onnx.search.store import Failure, Store

    settings: dict[str, Any] = {"space": "topology-2x1", "data": None, "epochs": 1, "seed": 0}
    with Store.create(path, settings) as store:
        for k in range(3):
            known = {"accuracy": 0.5 + k / 10, "parameters": 10, "macs": 100, "latency_ms": 1.0, "msrs": 2.0}
            store.add(
                k, MeasuredCandidate(name=f"n{k}", key=f"k{k}", depth=3, layers=3, undefined=0, **known)
            )
        store.add(3, Failure("k3", "n3", "it failed"))
    for name in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)


def _checkpoint(folder: Path) -> None:
    """Stop a training after its first epoch, as an interruption would."""
    arguments = (*TRAIN, "-o", "out.onnx", "--checkpoint", "kept.checkpoint")
    code = process.call(arguments, folder, before=_stop)
    if not (folder / "kept.checkpoint").exists():
        raise SystemExit(f"no checkpoint was kept: {code.text}")


def _stop() -> None:
    """In the child: the process ends once the first checkpoint is there."""
    import os

    from redtest_onnx.training.checkpoint import Checkpoint

    save = Checkpoint.save

    def once(self: Checkpoint, *arguments: Any) -> None:
        save(self, *arguments)
        os._exit(0)

    Checkpoint.save = once  # type: ignore[method-assign]


def _iterations(folder: Path) -> None:
    """Prune weights in two iterations that are kept."""
    answer = process.call((*LOTTERY, "-o", "first.onnx"), folder)
    if not (folder / "kept" / "run.json").exists():
        raise SystemExit(f"no iterations were kept: {answer.text}")


LOTTERY = (
    *("sparsity", "good.onnx", "--data", "good.npz", "--method", "lottery", "--iterations", "2"),
    *("--epochs", "1", "--threads", "1", "--checkpoints", "kept", "--force"),
)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut off, doubled, or random."""
    kind = rng.randrange(8)
    if kind == 0:
        return content[: rng.randrange(len(content) + 1)]
    if kind == 1:
        return rng.randbytes(rng.randrange(2000))
    if kind == 2:
        start = rng.randrange(len(content))
        return content[:start] + content[start : start + 50] * rng.choice([2, 100]) + content[start:]
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        changed[rng.randrange(len(changed))] = rng.choice([0, 255, rng.randrange(256)])
    return bytes(changed)


WEIRD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2**70,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "\x1b[2J",
        "../../etc/passwd",
        "x" * 9999,
    ),
    *([], {}, [[]], [None], {"a": 1}, "0", "product0", 0.5, [1, "a"], "/dev/zero"),
)


def _tree(content: bytes, rng: random.Random) -> bytes:
    """A JSON value somewhere is gone, doubled, or something else; or the bytes are broken."""
    if rng.random() < 0.2:
        return _bytes(content, rng)
    if rng.random() < 0.02:
        return b'{"schema": ' + b"[" * 100_000
    tree = json.loads(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        node, steps = tree, rng.randrange(1, 6)
        for _ in range(steps):
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = rng.choice(keys)
            below = node[key]
            if not isinstance(below, dict | list) or not below or rng.random() < 0.2:
                if rng.random() < 0.3:
                    del node[key]
                elif rng.random() < 0.2 and isinstance(node, list):
                    node.append(below)
                else:
                    node[key] = rng.choice(WEIRD)
                break
            node = below
    return json.dumps(tree).encode()


def _lines(content: bytes, rng: random.Random) -> bytes:
    """Lines of text are gone, doubled, swapped or changed; or the bytes are broken."""
    if rng.random() < 0.2:
        return _bytes(content, rng)
    lines = content.decode("utf-8", "replace").splitlines()
    for _ in range(rng.choice([1, 1, 3])):
        k = rng.randrange(len(lines)) if lines else 0
        kind = rng.randrange(6)
        if kind == 0 and lines:
            del lines[k]
        elif kind == 1 and lines:
            lines.insert(k, lines[rng.randrange(len(lines))])
        elif kind == 2:
            lines.insert(
                k,
                rng.choice(
                    ["[[[", "a = " + "[" * 5000, "=", ",,,,,,", '"', "[target]", "\x00", "a" * 200_000]
                ),
            )
        elif lines:
            head, mark, _ = lines[k].partition(rng.choice(["=", ",", ";"]))
            weird = rng.choice(
                [*map(json.dumps, WEIRD[:14]), "nan", "-inf", "1e999", "2030-13-45", "9" * 6000]
            )
            lines[k] = head + mark + " " + weird
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _archive(content: bytes, rng: random.Random) -> bytes:
    """A member of a zip is broken, called otherwise or doubled; or the bytes of the whole."""
    if rng.random() < 0.5:
        return _bytes(content, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            member = old.read(name)
            if name == chosen:
                kind = rng.randrange(4)
                if kind == 0:
                    continue
                if kind == 1:
                    name = rng.choice(
                        ["../x.npy", "input.npy", "a" * 60_000, "x/y/z.npy", "labels", "\x1b.npy"]
                    )
                member = _header(member, rng) if rng.random() < 0.5 else _bytes(member, rng)
            new.writestr(name, member)
    return out.getvalue()


def _header(member: bytes, rng: random.Random) -> bytes:
    """The sizes or the type in the header of an .npy are others."""
    sizes = rng.choice(
        [b"(-1, 6)", b"(24,)", b"()", b"(2**9, 6)", b"(99999999999, 6)", b"(24, 6, 1)", b"(0, 6)"]
    )
    kinds = rng.choice([b"|O", b"<f8", b"<i4", b"<c8", b"|S4", b"<M8[s]", b">f4", b"|V8", b"<f2", b"|b1"])
    start = member.find(b"'shape': ")
    if rng.random() < 0.5 and start >= 0:
        end = member.find(b")", start) + 1
        return member[: start + 9] + sizes + member[end:]
    return member.replace(b"<f4", kinds).replace(b"<i8", kinds)


KINDS: dict[str, Kind] = {
    "profile": Kind(
        ("profile.toml", "ops.config"),
        ("audit", "good.onnx", "--profile", "profile.toml", "--no-latency"),
        _lines,
    ),
    "plan": Kind(
        ("plan.json",), ("prune", "good.onnx", "--data", "good.npz", *FEW, "--plan", "plan.json"), _tree
    ),
    "baseline": Kind(
        ("baseline.json",), ("audit", "good.onnx", "--baseline", "baseline.json", "--no-latency"), _tree
    ),
    "analysis": Kind(
        ("analysis.json",),
        ("prune", "good.onnx", "--data", "good.npz", *FEW, "--analysis", "analysis.json", "--remove", "1"),
        _tree,
    ),
    "table": Kind(
        ("table.csv",),
        ("rank", "good.onnx", "images.onnx", "--metrics", "table.csv", "--by", "S2", *FEW),
        _lines,
    ),
    "arrays": Kind(("good.npz",), ("analyze", "good.onnx", "--data", "good.npz", *FEW), _archive),
    "packed": Kind(
        ("packed.npz",), ("compare", "good.onnx", "good.onnx", "--data", "packed.npz", *FEW), _archive
    ),
    "array": Kind(("good.npy",), ("analyze", "good.onnx", "--data", "good.npy", *FEW), _header),
    "images": Kind(("good.zip",), ("analyze", "images.onnx", "--data", "good.zip", *FEW), _archive),
    "search": Kind(("found.sqlite",), ("rank", "found.sqlite", "--by", "S2"), _bytes),
    "resume": Kind(("found.sqlite",), ("search", "--resume", "found.sqlite", "--evaluations", "3"), _bytes),
    "checkpoint": Kind(
        ("kept.checkpoint",),
        (*TRAIN, "-o", "o.onnx", "--checkpoint", "kept.checkpoint", "--resume"),
        _archive,
    ),
    "iterations": Kind(("kept/run.json", "kept/iteration-001.pt"), (*LOTTERY, "-o", "sparse.onnx"), _archive),
}


def try_document(setting: Path, number: int, seed: int, folder: Path) -> tuple[str, process.Answer]:
    """Break one document and give it to its command."""
    name = list(KINDS)[number % len(KINDS)]
    kind, rng = KINDS[name], random.Random(f"{seed}/{name}/{number}")
    shutil.copytree(setting, folder, dirs_exist_ok=True)
    path = folder / rng.choice(kind.files)
    how = _tree if path.suffix == ".json" else kind.how
    path.write_bytes(how(path.read_bytes(), rng))
    if name == "array" and rng.random() < 0.5:
        path.write_bytes(_bytes(path.read_bytes(), rng))
    return name, process.call(kind.arguments, folder)
