# SPDX-License-Identifier: Apache-2.0
"""Durable before visible: what the store was given is on disk when it says so, and a disk that fails stops the answers."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from validator_kit import Device, quorum
from validator_live import live

from qsafp_embedded.errors import FormatError, StoreError
from qsafp_embedded.validator import store as stores
from qsafp_embedded.validator.decide import FailSafe, State
from qsafp_embedded.validator.store import Store

STATE = State(b"\x01" * 33, 9, 8, b"d" * 32, b"answer", True, 3, (bytes(32), b"\x01" * 32), 77, True, b"token")


def test_a_state_comes_back_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with Store(tmp_path / "db") as store:
            await store.put(STATE)
        async with Store(tmp_path / "db") as store:
            assert store.state(STATE.ueid) == STATE
            assert list(store.states()) == [STATE]
            assert store.state(bytes(33)) == State(bytes(33))

    asyncio.run(story())


def test_a_consent_comes_back_after_a_restart(tmp_path: Path) -> None:
    latched = FailSafe(b"\x01" * 33, bytes(32), 5, b"h" * 32, 6)

    async def story() -> None:
        async with Store(tmp_path / "db") as store:
            assert not store.consented(latched)
            await store.consent(latched)
        async with Store(tmp_path / "db") as store:
            assert store.consented(latched)
            assert not store.consented(latched._replace(sequence=6))

    asyncio.run(story())


def test_what_was_acknowledged_is_in_the_database_at_that_moment(tmp_path: Path) -> None:
    async def story() -> None:
        async with Store(tmp_path / "db") as store:
            other = sqlite3.connect(tmp_path / "db")
            done = store.put(STATE)
            assert store.state(STATE.ueid) == STATE
            assert other.execute("SELECT count(*) FROM state").fetchone() == (0,)
            await done
            assert other.execute("SELECT count(*) FROM state").fetchone() == (1,)
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            other.close()

    asyncio.run(story())


def test_writes_that_wait_together_are_committed_together_and_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with Store(tmp_path / "db") as store:
            await asyncio.gather(*(store.put(STATE._replace(serial=n)) for n in range(600)))
            assert store.commits == 1
        async with Store(tmp_path / "db") as store:
            assert store.state(STATE.ueid).serial == 599

    asyncio.run(story())


def test_writes_given_up_to_the_end_are_not_lost(tmp_path: Path) -> None:
    async def story() -> None:
        async with Store(tmp_path / "db") as store:
            for n in range(5):
                store.put(STATE._replace(ueid=bytes([1] * 32 + [n])))
                await asyncio.sleep(0)
        async with Store(tmp_path / "db") as store:
            assert len(list(store.states())) == 5

    asyncio.run(story())


def test_a_database_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "new")
    other.execute("PRAGMA user_version=7")
    other.close()
    (tmp_path / "garbage").write_bytes(b"\xff" * 4096)
    (tmp_path / "folder").mkdir()
    for name in ("new", "garbage", "folder"):
        with pytest.raises(StoreError, match=name):
            Store(tmp_path / name)


def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with Store(tmp_path / "db"):
            assert {p.stat().st_mode & 0o077 for p in tmp_path.iterdir()} == {0}

    asyncio.run(story())


def test_states_that_left_the_cache_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CACHED", 4)

    async def story() -> None:
        async with Store(tmp_path / "db") as store:
            ueids = [bytes([1] * 32 + [n]) for n in range(20)]
            for n, ueid in enumerate(ueids):
                await store.put(STATE._replace(ueid=ueid, serial=n))
            assert [store.state(u).serial for u in ueids] == list(range(20))

    asyncio.run(story())


class Held(Store):
    """A store whose commits wait for the test, or fail."""

    held = broken = False

    def _flush(self) -> None:
        if not self.held:
            super()._flush()

    def _insert(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        if self.broken:
            raise sqlite3.OperationalError("disk I/O error")
        super()._insert(name, rows)

    def go(self) -> None:
        """Commit now, and at once from now on."""
        self.held = False
        self._flush()


def test_no_answer_leaves_before_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validator_live.Store", Held)

    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            store = v.service.store
            assert isinstance(store, Held)
            envelope = v.device.ask()
            first, again = (asyncio.create_task(v.service.renew(envelope)) for _ in range(2))
            store.held = True
            for _ in range(20):
                await asyncio.sleep(0)
            assert not first.done()
            assert not again.done()
            assert store.state(v.device.ueid).serial == 1
            store.go()
            assert await first == await again

    asyncio.run(story())


def test_a_disk_that_fails_stops_every_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validator_live.Store", Held)

    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            store = v.service.store
            assert isinstance(store, Held)
            assert await v.code(v.device.ask()) is None
            store.broken = True
            envelope = v.device.ask(old=3)
            assert (await v.post("/v1/renew", envelope))[0] == 503
            store.broken = False
            assert (await v.post("/v1/renew", envelope))[0] == 503
            assert (await v.get("/healthz"))[0] == 503

    asyncio.run(story())


def test_what_the_database_cannot_hold_is_an_error_and_no_silence(tmp_path: Path) -> None:
    async def story() -> None:
        async with Store(tmp_path / "db") as store, asyncio.timeout(10):
            with pytest.raises(StoreError):
                await store.put(STATE._replace(highest=2**63))
            with pytest.raises(StoreError):
                await store.put(STATE)

    asyncio.run(story())


def test_one_device_with_an_endless_serial_stops_nobody_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v, asyncio.timeout(10):
            with pytest.raises(FormatError):
                await v.service.renew(v.device.ask(serial=2**63))
            with pytest.raises(FormatError):
                await v.service.renew(v.device.ask(serial=2**64 - 1))
            v.device.serial = 0
            assert await v.code(v.device.ask()) is None

    asyncio.run(story())


def test_many_devices_are_each_granted_their_own_lease(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            devices = [Device(v.q.members) for _ in range(50)]
            v.service.admitted |= {d.ueid: d.registered() for d in devices}
            assert set(await asyncio.gather(*(v.code(d.ask()) for d in devices))) == {None}
            assert v.service.store.read("SELECT count(*) FROM state") == [(50,)]
            assert v.service.store.commits < 50

    asyncio.run(story())
