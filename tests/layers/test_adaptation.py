"""Which shapes one linear operator can turn into which, and what it costs."""

from __future__ import annotations

import pytest

from redtest_onnx.layers.adaptation import KernelWindow, adaptable, adapter_cost, windows


def outputs(size: int, window: KernelWindow) -> int:
    """Positions that a convolution without padding gives."""
    return (size - window.size) // window.stride + 1


@pytest.mark.parametrize("before", range(1, 18))
def test_a_window_gives_the_size_it_is_for(before: int) -> None:
    for after in range(1, before + 1):
        found = windows((before,), (after,))
        if found is not None:
            (window,) = found
            assert window.stride > 0
            assert window.size > 0
            assert outputs(before, window) == after
            if before % after == 0:
                assert window == KernelWindow(before // after, before // after)
        else:
            assert before % after


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((16,), (8,), [KernelWindow(2, 2)]),
        ((15,), (8,), [KernelWindow(2, 1)]),
        ((7,), (7,), [KernelWindow(1, 1)]),
        ((8, 15), (8, 8), [KernelWindow(1, 1), KernelWindow(2, 1)]),
        ((5,), (4,), [KernelWindow(1, 2)]),
        ((), (), []),
    ],
)
def test_windows_cover_what_they_can(
    before: tuple[int, ...], after: tuple[int, ...], expected: list[KernelWindow]
) -> None:
    assert windows(before, after) == expected


@pytest.mark.parametrize(("before", "after"), [((4,), (0,)), ((0,), (0,)), ((4,), (5,)), ((4, 4), (4, 5))])
def test_nothing_grows_or_goes_to_nothing(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert windows(before, after) is None


def test_windows_need_the_same_number_of_axes() -> None:
    with pytest.raises(ValueError, match="zip"):
        windows((4, 4), (4,))


@pytest.mark.parametrize(
    ("before", "after", "channels_first", "expected"),
    [
        ((1, 8), (1, 5), False, True),
        ((1, 7, 8), (1, 7, 5), False, True),
        ((1, 8, 8), (1, 4, 8), False, False),  # a sequence keeps its positions
        ((1, 8, 8, 3), (1, 4, 4, 6), False, True),
        ((1, 4, 4, 3), (1, 8, 8, 6), False, False),
        ((1, 3, 8, 8), (1, 6, 4, 4), True, True),
        ((1, 3, 8), (1, 6, 4), True, True),
        ((1, 3, 4), (1, 6, 8), True, False),
        ((1, 8), (2, 8), False, False),
        ((8,), (8,), False, False),
        ((1, 8), (1, 8, 8), False, False),
    ],
)
def test_shapes_that_one_operator_brings_about(
    before: tuple[int, ...], after: tuple[int, ...], channels_first: bool, expected: bool
) -> None:
    assert adaptable(before, after, channels_first) is expected


@pytest.mark.parametrize(
    ("before", "after", "channels_first", "parameters", "macs"),
    [
        ((1, 8), (1, 5), False, 8 * 5 + 5, 8 * 5),
        ((1, 7, 8), (1, 7, 5), False, 8 * 5 + 5, 7 * 8 * 5),
        ((1, 3, 8, 8), (1, 6, 4, 4), True, 3 * 2 * 2 * 6 + 6, 3 * 2 * 2 * 6 * 4 * 4),
        ((1, 8, 8, 3), (1, 4, 4, 6), False, 3 * 2 * 2 * 6 + 6, 3 * 2 * 2 * 6 * 4 * 4),
        ((1, 3, 8), (1, 6, 8), True, 3 * 6 + 6, 3 * 6 * 8),
    ],
)
def test_costs_are_those_of_the_operator(
    before: tuple[int, ...], after: tuple[int, ...], channels_first: bool, parameters: int, macs: int
) -> None:
    assert adapter_cost(before, after, channels_first) == (parameters, macs)
