"""Feed the command line broken input: only exit codes 0, 1 and 2, no traceback, bounded time and memory.

    python tools/fuzz.py models --count 20000 --seed 5 --log fuzz-models.jsonl
    python tools/fuzz.py documents --count 5000 --seed 5 --log fuzz-documents.jsonl

"models" breaks valid models in targeted ways (types, names, functions, subgraphs, external data, sparse
weights, sizes of zero, IR and opset versions) and their bytes, and gives each to one of inspect, analyze,
prune, audit, sparsity, compare and rank. "documents" does so with profiles, plans, baselines, analyses,
checkpoints, search files, tables and data files.

Each call runs in a forked process with limits, so that crashes of native libraries are found, too. Numbers
that a log holds already are not run again: a run that was broken off goes on with the same command. Faults
are listed at the end; their files are kept beside the log.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import documents, models, process

FEW = ("--samples", "8", "--batches", "1", "--threads", "1")
COMMANDS = {
    "inspect": ("inspect", "M", "--threads", "1", "--json", "out.json"),
    "analyze": ("analyze", "M", *FEW, "--html", "page.html"),
    "prune": ("prune", "M", *FEW, "--remove", "1", "-o", "pruned.onnx"),
    "audit": ("audit", "M", "--no-latency", "--threads", "1", "--write-operators", "ops.config"),
    "sparsity": ("sparsity", "M", "--html", "page.html"),
    "one-shot": ("sparsity", "M", "--method", "one-shot", "--threads", "1", "-o", "sparse.onnx"),
    "compare": ("compare", "M", "good.onnx", *FEW),
    "rank": ("rank", "M", "good.onnx", "--metrics", "good.csv", *FEW),
}


def try_model(number: int, seed: int, folder: Path) -> tuple[str, process.Answer]:
    """Break a model and give it to one of the commands."""
    name = list(COMMANDS)[number % len(COMMANDS)]
    (folder / "model.onnx").write_bytes(models.broken(number, seed))
    (folder / "good.onnx").write_bytes(models.valid()[0])
    (folder / "good.csv").write_text("name,accuracy\nmodel,0.9\ngood,0.8\n", encoding="utf-8")
    arguments = ["model.onnx" if part == "M" else part for part in COMMANDS[name]]
    return name, process.call(arguments, folder)


def main() -> None:
    """Run the fuzzer and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["models", "documents"])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="JSON lines, one a call; goes on where it ends")
    options = parser.parse_args()
    process.prepare(torch=options.what == "documents")
    done = _read(options.log)
    with tempfile.TemporaryDirectory(prefix="redtest-fuzz-") as name:
        setting = documents.prepare(Path(name)) if options.what == "documents" else None
        for number in range(options.start, options.start + options.count):
            if number in done:
                continue
            with tempfile.TemporaryDirectory(prefix="redtest-fuzz-") as inside:
                folder = Path(inside)
                if setting is None:
                    what, answer = try_model(number, options.seed, folder)
                else:
                    what, answer = documents.try_document(setting, number, options.seed, folder)
                record = _record(number, what, answer)
                done[number] = record
                if options.log is not None:
                    with options.log.open("a", encoding="utf-8") as log:
                        log.write(json.dumps(record) + "\n")
                    if answer.fault:
                        _keep(
                            folder,
                            options.log.with_name(f"{options.log.name}.faults") / f"{options.seed}-{number}",
                        )
                if answer.fault:
                    print(f"{number} {what}: {answer.fault}: {record['text']}", flush=True)
            if (number + 1) % 500 == 0:
                print(_summary(done), flush=True)
    print(_summary(done))
    sys.exit(1 if any(record["fault"] for record in done.values()) else 0)


def _record(number: int, what: str, answer: process.Answer) -> dict[str, Any]:
    return {
        "number": number,
        "what": what,
        "code": answer.code,
        "seconds": round(answer.seconds, 2),
        "mebibytes": answer.mebibytes,
        "fault": answer.fault,
        "text": answer.text.strip()[-1500:] if answer.fault else answer.text.strip()[-160:],
    }


def _read(log: Path | None) -> dict[int, dict[str, Any]]:
    if log is None or not log.exists():
        return {}
    lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return {line["number"]: line for line in lines}


def _keep(folder: Path, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())


def _summary(done: dict[int, dict[str, Any]]) -> str:
    records = [*done.values()]
    codes = Counter(str(record["code"]) for record in records)
    slowest = max((record["seconds"] for record in records), default=0)
    largest = max((record["mebibytes"] for record in records), default=0)
    faults = sum(bool(record["fault"]) for record in records)
    return (
        f"{len(records)} inputs: exit codes {dict(codes)}, {faults} faults, "
        f"slowest {slowest:.1f} s of processor time, at most {largest} MiB"
    )


if __name__ == "__main__":
    main()
