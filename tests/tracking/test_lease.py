"""The lease: who drives a study, and whether that process is still there."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace

import psutil
import pytest

from mltune._util.timing import TIMING
from mltune.tracking.lease import DEAD_AFTER, HELD, Lease
from tests.drivers import wait_for

ELSEWHERE = "another machine"


def test_a_lease_is_read_as_it_was_written() -> None:
    mine = Lease.mine()
    read = Lease.parse(str(mine))
    assert read == mine
    assert (mine.pid, mine.started) == (os.getpid(), psutil.Process().create_time())
    assert mine.same_driver(Lease.mine())


@pytest.mark.parametrize("text", [None, "", "no json", "[]", "{}", '{"pid": 1}', '{"pid": 1, "more": 2}', "null"])
def test_what_is_no_lease(text: str | None) -> None:
    assert Lease.parse(text) is None


def test_a_process_here_is_alive_as_long_as_it_runs() -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    lease = replace(Lease.mine(), pid=process.pid, started=psutil.Process(process.pid).create_time(), renewed=0.0)
    assert lease.is_alive()
    process.kill()
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert not lease.is_alive()
    process.communicate()
    assert not lease.is_alive()


def test_another_process_of_the_same_number_is_not_the_driver() -> None:
    lease = replace(Lease.mine(), started=Lease.mine().started - 60)
    assert not lease.is_alive()
    assert not lease.same_driver(Lease.mine())


def test_a_process_elsewhere_is_alive_as_long_as_it_says_so() -> None:
    assert 2 * TIMING.renew_every < DEAD_AFTER
    lease = replace(Lease.mine(), boot=ELSEWHERE, pid=1)
    assert lease.is_alive()
    assert lease.is_held("study")
    assert not replace(lease, renewed=time.time() - DEAD_AFTER - 1).is_alive()
    assert not lease.same_driver(replace(lease, boot="a third one"))


def test_our_own_lease_is_left_over_where_we_do_not_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Lease.mine().is_alive()
    assert not Lease.mine().is_held("study")
    monkeypatch.setattr("mltune.tracking.lease.HELD", HELD | {"study"})
    assert Lease.mine().is_held("study")
