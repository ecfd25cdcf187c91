"""Speed and time left, from iterates whose times are known."""

import numpy as np
import pytest

from jaxstyle import Iterate, Terms
from jaxstyle.engine.iterate import History
from jaxstyle.monitor.pace import Course, Pace, clock


def iterate(step, evaluations, run_seconds, compile_seconds=9.0):
    terms = Terms(*(np.zeros(1) for _ in Terms._fields))
    history = History(*(np.zeros(1) for _ in History._fields))
    return Iterate(
        step, None, np.ones(1), terms, np.asarray(evaluations), history, compile_seconds,
        run_seconds,
    )  # fmt: skip


def test_nothing_is_known_before_the_first_steps():
    pace = Pace(10)
    assert pace.evaluations_per_second is None and pace.seconds_left is None
    pace.tick(iterate(0, 1, 5.0))
    assert pace.evaluations_per_second is None and pace.seconds_left is None


def test_neither_compiling_nor_the_initial_image_count():
    pace = Pace(10)
    pace.tick(iterate(0, 1, 100.0))
    pace.tick(iterate(2, 5, 1.0))
    pace.tick(iterate(4, 9, 3.0))
    assert pace.evaluations_per_second == pytest.approx(8 / 4)
    assert pace.seconds_left == pytest.approx(6.0)
    pace.tick(iterate(10, 21, 6.0))
    assert pace.seconds_left == 0


def test_time_left_counts_the_pixels_of_the_scales_to_come():
    course = Course(20, 10, ((8, 8), (16, 16)))
    pace = Pace(course)
    pace.tick(iterate(0, 1, 9.0, 0.0))
    pace.tick(iterate(5, 6, 1.0, 0.0))
    # 5 steps more of 0.2 s, and 10 of four times as many pixels.
    assert pace.seconds_left == pytest.approx(1.0 + 10 * 0.8)
    pace.tick(iterate(10, 11, 1.0, 0.0))
    assert pace.seconds_left == pytest.approx(8.0)
    # The first chunk of a scale resizes the image: its time is not that of steps.
    pace.tick(iterate(12, 13, 5.0, 0.0))
    assert pace.seconds_left == pytest.approx(8 * 0.8)
    # From here on by the speed of the larger scale.
    pace.tick(iterate(15, 16, 1.8, 0.0))
    assert pace.seconds_left == pytest.approx(5 * 0.6)
    assert [course.name(step) for step in (0, 10, 11)] == ["scale 1/2", "scale 1/2", "scale 2/2"]


def test_time_left_counts_what_compiling_outlasts_the_scale_before():
    pace = Pace(Course(30, 10, ((8, 8), (16, 16), (32, 32))))
    pace.tick(iterate(0, 1, 9.0, 5.0))
    pace.tick(iterate(5, 6, 1.0, 0.0))
    # The first scale takes 2 s, while the second is compiled for 5 s; the second takes longer.
    assert pace.seconds_left == pytest.approx(1.0 + 10 * 0.8 + 10 * 3.2 + (5.0 - 2.0))
    pace.tick(iterate(10, 11, 1.0, 0.0))
    assert pace.seconds_left == pytest.approx(10 * 0.8 + 10 * 3.2 + (5.0 - 2.0))
    pace.tick(iterate(15, 16, 9.0, 3.0))
    assert pace.seconds_left == pytest.approx(4.0 + 10 * 3.2)


def test_steps_beside_the_compilation_of_the_next_scale_do_not_count():
    pace = Pace(Course(80, 40, ((8, 8), (16, 16))))
    pace.tick(iterate(0, 1, 9.0, 5.0))
    for step in (5, 10, 15):
        # Twice as slow, until the next scale is compiled after 5 s.
        pace.tick(iterate(step, step + 1, 2.0, 0.0))
    pace.tick(iterate(20, 21, 1.0, 0.0))
    assert pace.seconds_left == pytest.approx(20 * 0.2 + 40 * 0.8)


def test_a_run_that_goes_on_from_a_later_step():
    pace = Pace(300)
    pace.tick(iterate(200, 400, 1.0))
    pace.tick(iterate(210, 420, 5.0))
    assert pace.seconds_left == pytest.approx(45.0)
    assert pace.evaluations_per_second == pytest.approx(4.0)


def test_all_elements_of_a_batch_count():
    pace = Pace(4)
    pace.tick(iterate(0, [1, 1], 0.0))
    pace.tick(iterate(2, [3, 4], 1.0))
    assert pace.evaluations_per_second == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")],
)
def test_durations_as_a_person_reads_them(seconds, text):
    assert clock(seconds) == text
