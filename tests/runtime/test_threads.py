from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from time import sleep

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from redtest_onnx.runtime.threads import Beside, in_threads, one_blas_thread, thread_count


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("solvers", [False, True])
def test_linear_algebra_stays_on_one_thread_and_gets_its_own_back(solvers: bool) -> None:
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with one_blas_thread(solvers=solvers):
            assert blas_threads() <= {1}
        assert blas_threads() == before


def test_solvers_are_limited_although_they_come_later() -> None:
    with one_blas_thread():
        pass
    with threadpool_limits(2, user_api="blas"), one_blas_thread(solvers=True):
        scipy.linalg.cho_factor(np.eye(3))
        assert blas_threads() == {1}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_come_in_order_and_no_more_threads_work_than_are_allowed(threads: int) -> None:
    working: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def square(k: int) -> int:
        with lock:
            working.append(k)
            most.append(len(working))
        sleep(0.002 * (k % 3))
        with lock:
            working.remove(k)
        return k * k

    assert list(in_threads(square, range(20), threads)) == [k * k for k in range(20)]
    assert max(most) <= threads


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> object:
        for k in range(100):
            taken.append(k)
            yield k

    results = in_threads(lambda k: k, items(), 2)  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 3


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda k: 1 // k, [1, 0, 2], 2))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_work_goes_on_beside_and_its_results_are_taken_in_order(threads: int) -> None:
    taken: list[int] = []
    takers: set[int] = set()

    def work(k: int) -> int:
        sleep(0.003 * (5 - k))
        return k

    def take(k: int) -> None:
        takers.add(threading.get_ident())
        taken.append(k)

    sums: Beside[int] = Beside(threads)
    for k in range(5):
        sums.do(partial(work, k), take)
        assert len(taken) == max(0, k + 1 - (threads if threads > 1 else 0))
    sums.finish()
    assert taken == list(range(5))
    assert takers == {threading.get_ident()}


def test_an_error_beside_is_raised_where_its_result_would_be_taken() -> None:
    sums: Beside[float] = Beside(2)
    sums.do(lambda: 1 / 0, lambda result: None)
    with pytest.raises(ZeroDivisionError):
        sums.finish()


def test_a_child_process_has_threads_of_its_own() -> None:
    code = (
        "import os, time; from redtest_onnx.runtime.threads import in_threads\n"
        "assert list(in_threads(abs, [-1, 2, -3, 4], 2)) == [1, 2, 3, 4]\n"
        "time.sleep(0.1)  # until both threads wait for more\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if list(in_threads(abs, [-3, 4], 2)) == [3, 4] else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_zero_takes_the_cores_of_this_process() -> None:
    assert thread_count(3) == 3
    assert thread_count(0) >= 1


OVERLAPPING = """
import threading
import numpy as np
from threadpoolctl import threadpool_info
from redtest_onnx.runtime.threads import one_blas_thread

def threads():
    return sorted(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

def first():
    with one_blas_thread():
        entered.set()
        leave.wait()

before, entered, leave = threads(), threading.Event(), threading.Event()
other = threading.Thread(target=first)
other.start()
entered.wait()
with one_blas_thread():
    leave.set()
    other.join()
    assert set(threads()) <= {1}, threads()
assert threads() == before, (threads(), before)
"""


def test_calls_that_overlap_give_the_threads_back_with_the_last() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", OVERLAPPING], env=environment, check=True)
