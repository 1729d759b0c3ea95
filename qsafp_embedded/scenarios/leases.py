# SPDX-License-Identifier: Apache-2.0
"""A lease ends, is renewed, is denied, is revoked: what a workload sees of it."""

from __future__ import annotations

from functools import partial

from .._core import now_ns
from .._tables import Event, Phase, Reason
from .registry import Figures, scenario
from .stage import MARGIN_MS, Stage, check, ms

__all__ = ["denial_failsafe", "expiration_enforcement", "renewal_extends", "revocation"]


@scenario(fast=True)
def expiration_enforcement(s: Stage) -> Figures:
    """Nobody renews: the gate closes at the lease's end, LEASE_VALID falls, grace holds, then the fail-safe latches."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0 and s.pin()[0] == 1)
    s.stop("agent")
    end = s.lease_end()
    grace = s.phase(Phase.GRACE)
    s.phase(Phase.FAILSAFE)
    stamp, (level, fell) = s.stamp(), s.pin()
    check(stamp.last_open_ns <= end, f"open {ms(stamp.last_open_ns - end)} ms after the lease's end")
    check(level == 0 and fell >= stamp.last_open_ns - 200_000_000, "LEASE_VALID did not fall with the gate")
    check(ms(fell - end) <= MARGIN_MS, f"LEASE_VALID fell {ms(fell - end)} ms after the lease's end")
    latched = s.status()
    check(latched.reason in (Reason.LEASE_EXPIRED, Reason.NETWORK_TIMEOUT), f"latched {latched.reason_name}")
    events = [(r["event"], r["boot_ns"]) for r in s.records()]
    at = next(ns for event, ns in events if event == Event.FAILSAFE_TRIGGERED)
    check(at - end >= s.grace_ms * 1_000_000, "the fail-safe came before the end of grace")
    held = s.stamp().opens
    s.wait("the workload to go on asking", lambda: s.stamp().runs > stamp.runs + 100)
    check(s.stamp().opens == held, "the gate opened again")
    return {
        "end_to_last_open_ms": ms(stamp.last_open_ns - end),
        "end_to_pin_low_ms": ms(fell - end),
        "end_to_failsafe_ms": ms(at - end),
        "serial": grace.serial,
    }


@scenario(fast=True, duration_ms=3000)
def renewal_extends(s: Stage) -> Figures:
    """Renewed at half: the gate stays open over many times one lease's duration without a single closed look."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    begun, first = now_ns(), s.status()
    last = s.renewed(5)
    stamp = s.stamp()
    check(stamp.closes == 0, f"the gate closed {stamp.closes} times")
    lasted = ms(now_ns() - begun)
    check(lasted > 2 * s.duration_ms, f"{lasted} ms are not twice a lease")
    check([level for _, level in s.edges()] == [1], f"LEASE_VALID blinked: {s.edges()}")
    check(last.renewals >= 5, f"{last.renewals} renewals")
    return {
        "leases": last.serial - first.serial,
        "lasted_ms": lasted,
        "lease_ms": s.duration_ms,
        "looks": stamp.opens,
        "false_closes": stamp.closes,
    }


def _latch(s: Stage) -> int:
    """Boot time, ns, of the newest fail-safe's record."""
    return int(next(r["boot_ns"] for r in reversed(s.records()) if r["event"] == Event.FAILSAFE_TRIGGERED))


def _reloaded(s: Stage, index: int) -> bool:
    """True once a validator said that it took up its file again."""
    return "reloaded" in s.words(f"validator-{index}")


@scenario(fast=True, duration_ms=4000)
def denial_failsafe(s: Stage) -> Figures:
    """n-m+1 validators refuse a renewal by policy: gate and pins at once, with lease time left; people must release it."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    for i in range(3):  # the model is taken off the list of three validators
        path = s.root / f"validator-{i}" / "validator.toml"
        lines = [f'models = ["{"ff" * 32}"]' if line.startswith("models") else line for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
        s.processes[f"validator-{i}"].send_signal(1)
        s.wait(f"validator {i} to reload", partial(_reloaded, s, i))
    end = s.status()
    ends_ns = end.now_ns + end.remaining_ns
    s.phase(Phase.FAILSAFE)
    status, at, stamp = s.status(), _latch(s), s.stamp()
    check(status.reason == Reason.VALIDATOR_DENIED, f"latched {status.reason_name}")
    check(at < ends_ns, "the gate closed only with the lease's end")
    check(status.denied.bit_count() == 3, f"{status.denied.bit_count()} denials are on record")
    denied = [r["boot_ns"] for r in s.records() if r["event"] == Event.LEASE_DENIED]
    level, fell = s.pin()
    check(level == 0, "LEASE_VALID is high")
    check(stamp.last_open_ns <= at, "open after the fail-safe was recorded")
    check(abs(fell - at) < MARGIN_MS * 1e6, f"LEASE_VALID fell {ms(fell - at)} ms off the record")
    s.wait("the workload to go on asking", lambda: s.stamp().runs > stamp.runs + 500)
    check(s.stamp().opens == stamp.opens, "the gate opened again without people")
    return {
        "denials": len(denied),
        "lease_left_ms": ms(ends_ns - at),
        "first_denial_to_latch_ms": ms(at - denied[0]),
        "pin_low_before_record_ms": ms(at - fell),
    }


@scenario(fast=True, duration_ms=8000)
def revocation(s: Stage) -> Figures:
    """Three operators revoke between renewals: the long polls close the gate with most of the lease left; two do nothing."""
    s.start()
    s.workload()
    s.renewed()
    s.revoke(0, 1)
    before = s.renewed()
    check(before.phase == Phase.ACTIVE, "two revocations of six stopped the device")
    left = s.status().remaining_ns
    begun = now_ns()
    s.revoke(2)
    told = now_ns()
    s.wait("a closed gate", lambda: s.stamp().closes > 0)
    stamp, status = s.stamp(), s.phase(Phase.FAILSAFE)
    check(status.reason == Reason.VALIDATOR_DENIED, f"latched {status.reason_name}")
    check(stamp.last_open_ns - begun < left - MARGIN_MS * 1e6, "the stop was no faster than the lease's end")
    check(ms(stamp.last_open_ns - told) <= MARGIN_MS, f"open {ms(stamp.last_open_ns - told)} ms after the operator was answered")
    return {"operator_to_last_open_ms": ms(stamp.last_open_ns - begun), "lease_left_ms": ms(left)}
