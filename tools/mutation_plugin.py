"""pytest plugin of `tools/mutation.py`: which test runs which lines, and tests in a given order.

`MUTATION_RECORD` names a JSON file to write: per test its CPU seconds and the lines of the package that it
runs, and under the name "" the lines that run at import. `MUTATION_ORDER` names one with the tests to run, in
that order; others are left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import Phase, settings

# The first failure is enough: a smaller example of it costs time and tells the score nothing.
settings.register_profile(
    "mutants",
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)


class Recorder:
    """Lines and CPU seconds of every test, fixtures that it is the first to ask for included."""

    def __init__(self, target: Path) -> None:
        import coverage

        self._target = target
        self._coverage = coverage.Coverage(data_file=None, include=["*/redtest_onnx/*"], messages=False)
        self._seconds: dict[str, float] = {}
        self._passed: list[str] = []
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Measure one test."""
        self._coverage.switch_context(item.nodeid)
        begin = process_time()
        try:
            return (yield)  # type: ignore[misc]
        finally:
            self._seconds[item.nodeid] = process_time() - begin

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the tests that pass."""
        if report.when == "call" and report.passed:
            self._passed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        self._coverage.stop()
        data = self._coverage.get_data()
        passed = {name: self._seconds[name] for name in self._passed}
        found: dict[str, Any] = {
            name: {"seconds": seconds, "lines": {}} for name, seconds in {"": 0.0, **passed}.items()
        }
        for file in data.measured_files():
            module = "redtest_onnx/" + Path(file).as_posix().rpartition("/redtest_onnx/")[2]
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    if context in found:
                        found[context]["lines"].setdefault(module, []).append(line)
        self._target.write_text(json.dumps(found), encoding="utf-8")


class Order:
    """Runs only the tests of a list, in its order."""

    def __init__(self, names: list[str]) -> None:
        self._place = {name: k for k, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort and drop."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )


def pytest_configure(config: pytest.Config) -> None:
    """Take the part that the environment names."""
    if target := os.environ.get("MUTATION_RECORD"):
        config.pluginmanager.register(Recorder(Path(target)))
    if order := os.environ.get("MUTATION_ORDER"):
        config.pluginmanager.register(Order(json.loads(Path(order).read_text(encoding="utf-8"))))
