# SPDX-License-Identifier: Apache-2.0
"""What the agent knows, as Prometheus text: for the control socket and ``qsafp status --metrics``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["text"]

HELP = {
    "lease_open": "1 while the lease is active or in its warning",
    "lease_serial": "serial of the newest lease",
    "lease_remaining_seconds": "rest of the lease",
    "lab": "1 if the validators share a host",
    "agent_renewals_total": "leases that this agent got",
    "agent_renewal_seconds": "from request to lease, of the newest renewals",
    "agent_polls_alive": "validators that a revocation could come from now",
    "agent_isolated": "1 if too few polls are alive for a revocation to arrive",
    "agent_trouble": "1 while something keeps the next lease away",
    "validator_state": "what each validator said in the newest round",
}


def _samples(s: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Name, labels and value of each sample."""
    if s["guard"] is not None:
        yield "lease_open", "", s["phase"] in ("active", "warning")
        yield "lease_serial", "", s["serial"]
        yield "lease_remaining_seconds", "", s["remaining_ms"] / 1e3
        yield "lab", "", s["lab"]
    yield "agent_renewals_total", "", s["renewals"]
    took = sorted(s["latencies_ms"])
    for q in (0.5, 0.99) if took else ():
        yield "agent_renewal_seconds", f'{{quantile="{q}"}}', took[min(len(took) - 1, int(q * len(took)))] / 1e3
    yield "agent_polls_alive", "", s["polls"]
    yield "agent_isolated", "", s["isolated"]
    yield "agent_trouble", "", bool(s["error"])
    for v in s["round"]:
        yield "validator_state", f'{{index="{v["index"]}",state="{v["state"]}"}}', 1


def text(status: Mapping[str, Any]) -> str:
    """Return the metrics of an agent's status; those of the lease are left out while no guard answers."""
    lines: list[str] = []
    last = ""
    for name, labels, value in _samples(status):
        if name != last:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP qsafp_{name} {HELP[name]}", f"# TYPE qsafp_{name} {kind}"]
            last = name
        lines.append(f"qsafp_{name}{labels} {value:g}" if isinstance(value, float) else f"qsafp_{name}{labels} {int(value)}")
    return "\n".join(lines) + "\n"
