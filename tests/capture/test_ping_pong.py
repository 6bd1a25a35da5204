"""Clocks aligned on ping-pongs: clocks made to order, whose offset and drift are known, and real threads."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.capture.ping_pong import WINDOW, align, between_threads
from eidola.convert.probe_clock import aligned
from eidola.schemas import CaptureError

T0 = 1_700_000_000_123_456_789  # as Unix nanoseconds are: beyond what a float holds


def play(offset_ns, drift_ppb, starts_ns, to_ns, back_ns, rounds=200):
    """Sessions between a leader and a peer whose clock is the leader's less `offset_ns`, and slower by `drift_ppb`.

    `to_ns` and `back_ns` give each round's delays, by session and round.
    """

    def peer_time(leader_ns):
        since = leader_ns - T0
        return leader_ns - offset_ns - since * drift_ppb // 10**9

    sessions = []
    for s, start in enumerate(starts_ns):
        rows, now = [], T0 + start
        for r in range(rounds):
            there, back = int(to_ns[s][r]), int(back_ns[s][r])
            rows.append((now, peer_time(now + there), now + there + back))
            now += there + back + 100
        sessions.append(np.array(rows, np.int64))
    return sessions


def error_ns(alignment, sessions, offset_ns, drift_ppb):
    """How far aligned peer times are from the leader's own, at worst."""
    worst = 0
    for session in sessions:
        truth = [int(p) for p in session[:, 1]]
        # Invert the peer's clock exactly: leader = T0 + (peer + offset - T0) / (1 - drift).
        leader = [T0 + (p + offset_ns - T0) * 10**9 // (10**9 - drift_ppb) for p in truth]
        found = aligned(session[:, 1], vars(alignment))
        worst = max(worst, max(abs(int(f) - t) for f, t in zip(found, leader, strict=True)))
    return worst


def constant(value, sessions=2, rounds=200):
    return np.full((sessions, rounds), value)


@pytest.mark.parametrize("offset_ns", [0, -5, 7_777_777, -(10**15)])
@pytest.mark.parametrize("drift_ppb", [0, 1000, -25_000])
def test_equal_delays_give_offset_and_drift_exactly(offset_ns, drift_ppb):
    sessions = play(offset_ns, drift_ppb, (0, 20 * 10**9), constant(400), constant(400))
    found = align(sessions)
    assert found.drift_ppb == pytest.approx(drift_ppb, abs=1)
    assert error_ns(found, sessions, offset_ns, drift_ppb) <= 12  # 1 ppb over 10 s either way, and rounding
    assert 400 <= found.residual_ns <= 412


def test_a_minority_of_delayed_windows_bends_nothing():
    rng = np.random.default_rng(1)
    to, back = constant(400) + rng.integers(0, 20, (2, 200)), constant(400) + rng.integers(0, 20, (2, 200))
    to[1, :WINDOW] += 500  # one window in which every answer is late, yet not late enough to be left out
    late = align(play(5000, 300, (0, 10**10), to, back))
    assert late.drift_ppb == pytest.approx(300, abs=4)
    to[1, :WINDOW] += 10**6
    assert align(play(5000, 300, (0, 10**10), to, back)).anchors == late.anchors - 1


@settings(max_examples=60, deadline=None)
@given(
    offset_ns=st.integers(-(10**16), 10**16),
    drift_ppb=st.integers(-50_000, 50_000),
    seed=st.integers(0, 2**32 - 1),
    asymmetry=st.integers(0, 300),
    apart_s=st.integers(1, 100),
)
def test_the_truth_lies_within_the_residual(offset_ns, drift_ppb, seed, asymmetry, apart_s):
    rng = np.random.default_rng(seed)
    to = 400 + asymmetry + rng.exponential(200, (2, 200)).astype(int)
    back = 400 + rng.exponential(200, (2, 200)).astype(int)
    sessions = play(offset_ns, drift_ppb, (0, apart_s * 10**9), to, back)
    found = align(sessions)
    rounding = 2 + apart_s  # 1 ppb over the time between
    assert error_ns(found, sessions, offset_ns, drift_ppb) <= found.residual_ns + rounding


def test_one_session_leaves_the_drift_out_and_none_is_no_alignment():
    (session,) = play(1234, 0, (0,), constant(300, 1), constant(300, 1))
    found = align((session,))
    assert (found.offset_ns, found.drift_ppb, found.anchors) == (1234, 0, 200 // WINDOW)
    session[100:] = 0  # the deadline passed
    assert align((session,)).anchors == 100 // WINDOW
    assert align((np.zeros((10, 3), np.int64),)) is None


def test_two_threads_with_one_clock_agree_within_the_residual(c_compiler):
    samples = between_threads(500)
    assert (samples[:, 0] <= samples[:, 1]).all()
    assert (samples[:, 1] <= samples[:, 2]).all()
    found = align((samples,))
    assert abs(found.offset_ns) <= found.residual_ns


def test_two_threads_with_different_clocks_find_what_lies_between_them(c_compiler):
    def between():
        before, unix, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        return (before + after) // 2 - unix, after - before

    sessions = [between_threads(500, (time.CLOCK_MONOTONIC, time.CLOCK_REALTIME))]
    time.sleep(0.05)
    sessions.append(between_threads(500, (time.CLOCK_MONOTONIC, time.CLOCK_REALTIME)))
    truth, width = min((between() for _ in range(100)), key=lambda pair: pair[1])
    found = align(sessions)
    own = np.array([time.time_ns()])
    on_leader = int(aligned(own, vars(found))[0])
    assert (
        abs(on_leader - int(own[0]) - truth) <= found.residual_ns + width + 500_000
    )  # or NTP slews the clock


def test_a_passed_deadline_is_an_error(c_compiler):
    with pytest.raises(CaptureError, match=r"two threads played \d+ of 10000000 rounds"):
        between_threads(10_000_000, deadline_s=0.02)
