from __future__ import annotations

from redtest_onnx.cli.progress import LogLines


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_log_tells_when_stages_begin_how_far_they_are_and_how_long_they_took() -> None:
    lines: list[str] = []
    clock = Clock()
    log = LogLines(lines.append, every=30, now=clock)
    log.report(0, 10, "measuring")
    for clock.seconds in (10.0, 29.0, 31.0, 40.0):
        log.report(int(clock.seconds) // 10, 10, "measuring")
        log.tick()
    clock.seconds = 75.0
    log.report(0, 4, "repairing")
    clock.seconds = 110.0
    log.tick()
    assert lines == [
        "measuring ...",
        "measuring: 3 of 10, 31 s, about 1 min 12 s left",
        "measuring: 1 min 15 s",
        "repairing ...",
        "repairing: 0 of 4, 35 s",
    ]


def test_an_estimate_falls_while_a_usual_step_runs_and_rises_with_one_that_takes_longer() -> None:
    lines: list[str] = []
    clock = Clock()
    log = LogLines(lines.append, every=30, now=clock)
    log.report(0, 4, "fitting")
    clock.seconds = 100.0
    log.report(1, 4, "fitting")
    for clock.seconds in (110.0, 140.0, 300.0):
        log.tick()
    assert [line.rpartition(", ")[2] for line in lines[1:]] == [
        "about 4 min 50 s left",  # three more of 100 s, but for 10
        "about 4 min 20 s left",
        "about 5 min left",  # two more of 150 s now, behind the one that is overdue
    ]
    log.report(3, 4, "fitting")
    clock.seconds = 1000.0  # the last step takes longer than all before
    log.tick()
    assert lines[-1] == "fitting: 3 of 4, 16 min 40 s"


def test_the_last_stage_is_told_when_the_work_ends_and_a_short_one_is_not() -> None:
    lines: list[str] = []
    clock = Clock()
    log = LogLines(lines.append, now=clock)
    with log.running() as report:
        report(0, 1, "rewriting")
        clock.seconds = 0.4
        report(0, 1, "repairing")
        clock.seconds = 5.0
    assert lines == ["rewriting ...", "repairing ...", "repairing: 5 s"]


def test_a_step_that_takes_long_is_told_of_meanwhile() -> None:
    from threading import Event

    told = Event()
    log = LogLines(lambda line: told.set() if "0 of 1" in line else None, every=0.01)
    with log.running() as report:
        report(0, 1, "measuring")
        assert told.wait(20)
