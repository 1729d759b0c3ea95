# SPDX-License-Identifier: Apache-2.0
"""What a validator shows of itself: devices, health, metrics (Prometheus text)."""

from __future__ import annotations

from typing import Any

from .._tables import Reason, Refusal
from .service import Service

__all__ = ["decisions", "devices", "health", "metrics", "pending"]


def health(service: Service) -> dict[str, Any]:
    """Return index, set epoch, LAB mark, how many polls wait, and whether the store still takes writes."""
    s = service.members
    return {
        "index": service.config.index,
        "epoch": s.epoch,
        "m": s.m,
        "n": s.n,
        "lab": s.lab,
        "devices": len(service.devices) + len(service.admitted),
        "polls": service.waiting_polls,
        "store": "failed" if service.store.failed else "ok",
    }


def devices(service: Service, *, limit: int = 1000) -> list[dict[str, Any]]:
    """Return up to ``limit`` registered devices with their last serial, log size and standing."""
    out = []
    for ueid in [*service.devices, *service.admitted][:limit]:
        s, attested = service.store.state(ueid), service.device(ueid).attestation
        out.append(
            {
                "ueid": ueid.hex(),
                "serial": s.serial,
                "highest": s.highest,
                "log_size": s.size,
                "decided_ms": s.decided_ms,
                "revoked": s.revoked,
                "attested_by": None if attested is None else attested.ek,
                "measured": s.measured,
                "waits": ueid in service.waits,
            }
        )
    return out


def _reason(number: int) -> str:
    return next((r.name for r in Reason if r == number), str(number))


def pending(service: Service) -> list[dict[str, Any]]:
    """Return the fail-safes that wait for a person: what ``release`` consents to."""
    return [
        {
            "ueid": w.ueid.hex(),
            "log_id": w.log_id.hex(),
            "sequence": w.sequence,
            "hash": w.hash.hex(),
            "reason": _reason(w.reason),
            "since_ms": since,
        }
        for w, since in service.waits.values()
    ]


def decisions(service: Service, *, limit: int = 100) -> list[dict[str, Any]]:
    """Return the latest stored decisions, newest first."""
    rows = service.store.read("SELECT at_ms, ueid, serial, code, digest FROM decision ORDER BY id DESC LIMIT ?", (limit,))
    return [
        {
            "at_ms": at,
            "ueid": ueid.hex(),
            "serial": serial,
            "decision": Refusal(code).name if code else "APPROVED",
            "request": digest.hex(),
        }
        for at, ueid, serial, code, digest in rows
    ]


def metrics(service: Service) -> str:
    """Return counters in the Prometheus text format."""
    lines = ["# TYPE qsafp_validator_requests_total counter"]
    lines += [f'qsafp_validator_requests_total{{answer="{k}"}} {v}' for k, v in sorted(service.counts.items())]
    lines += ["# TYPE qsafp_validator_commits_total counter", f"qsafp_validator_commits_total {service.store.commits}"]
    gauges = {
        "devices": len(service.devices) + len(service.admitted),
        "waiting_polls": service.waiting_polls,
        "pending_releases": len(service.waits),
        "set_epoch": service.members.epoch,
        "lab": int(service.members.lab),
        "store_ok": int(not service.store.failed),
    }
    for name, value in gauges.items():
        lines += [f"# TYPE qsafp_validator_{name} gauge", f"qsafp_validator_{name} {value}"]
    return "\n".join(lines) + "\n"
