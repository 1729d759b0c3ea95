# SPDX-License-Identifier: Apache-2.0
"""The device key in a TPM 2.0 (HW-11), shown with swtpm: a real guard, real commands, one clear reason for each thing that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, MODEL, Device, short_dir, until
from tpm_kit import Tpm, needs_tpm, refused
from validator_kit import Device as Kit
from validator_live import live

from qsafp_embedded import keys
from qsafp_embedded._core import now_ns
from qsafp_embedded.client import CommandRefused
from qsafp_embedded.errors import ConfigError
from qsafp_embedded.guard import config
from qsafp_embedded.validator.config import Device as Registered


@pytest.fixture
def tpm() -> Iterator[Tpm]:
    """A TPM that runs."""
    with short_dir() as root:
        made = Tpm(root / "tpm")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def device(tpm: Tpm) -> Iterator[Device]:
    """A device enrolled with its key in that TPM; its guard does not run yet."""
    with short_dir() as root:
        made = Device(root, device_key=tpm.key)
        try:
            yield made
        finally:
            made.close()


@needs_tpm
def test_the_key_stays_in_the_tpm_and_the_guard_says_where_it_is(tpm: Tpm, device: Device) -> None:
    assert device.enrolment["key_type"] == "esp256"
    assert keys.device_key_ok(keys.ESP256, bytes.fromhex(device.enrolment["key"]))
    assert not (device.state / "device.key").exists()
    assert (device.state / "device.tpm").stat().st_mode & 0o777 == 0o600
    assert f"device key in TPM {tpm.key[4:]}" in device.start().said


@needs_tpm
def test_leases_renew_and_a_restarted_guard_goes_on(device: Device) -> None:
    device.start()
    for _ in range(20):  # both halves of s come up: every request verifies with the lower
        device.lease()
    assert device.gate()
    assert device.stop() == 0
    device.start()
    device.lease()
    assert device.gate()


@needs_tpm
def test_a_real_validator_approves_what_the_tpm_signed(tmp_path: Path, device: Device) -> None:
    device.start()
    e = device.enrolment
    known = Registered(
        bytes.fromhex(e["ueid"]), bytes.fromhex(e["key"]), bytes.fromhex(e["log_id"]), frozenset({MODEL}), 1_000, keys.ESP256
    )

    class Guarded(Kit):
        def registered(self, **_: object) -> Registered:
            return known

    async def story() -> None:
        async with live(tmp_path, device.q, device=Guarded(device.q.members)) as v:
            with device.client() as client:
                client.begin()
                assert await v.code(client.envelope(0)) is None

    asyncio.run(story())


@needs_tpm
def test_another_tpm_is_named_and_refuses_the_start(tmp_path: Path, tpm: Tpm, device: Device) -> None:
    (tmp_path / "other").mkdir()
    tpm.stop()
    tpm.start(tmp_path / "other")
    assert "made by another TPM" in refused(device)
    tpm.stop()
    tpm.start()
    device.start()
    device.lease()


@needs_tpm
def test_without_its_tpm_no_request_is_signed_and_the_lease_ends_in_its_time(tpm: Tpm, device: Device) -> None:
    device.configure(device_key=tpm.key, duration_ms=3000)
    device.start()
    begun = now_ns()
    device.lease()
    gate = device.gate()
    tpm.stop()
    with device.client() as client:
        for _ in range(3):
            with pytest.raises(CommandRefused, match="KEY_FAILED"):
                client.begin()
        assert gate
        until(lambda: not gate)
        assert now_ns() - begun < 3_000_000_000 + 500_000_000  # never longer than it was, and the stale_after that a look may be late
        tpm.start()
        client.begin()
    assert device.guard is not None
    device.guard.send_signal(signal.SIGTERM)
    said = device.guard.communicate(timeout=LIMIT_S)[1].splitlines()
    assert [s for s in said if "TPM" in s] == [s for s in said if "no request can be signed" in s or "signs again" in s]
    assert len(said) == 2, said  # once when it went, once when it was back


@needs_tpm
def test_a_tpm_that_hangs_keeps_the_guard_for_seconds_and_stops_nothing(tpm: Tpm, device: Device) -> None:
    device.start()
    device.lease()
    gate = device.gate()
    assert tpm.process is not None
    tpm.process.send_signal(signal.SIGSTOP)
    with device.client() as client:
        with pytest.raises(CommandRefused, match="KEY_FAILED"):
            client.begin()
        with pytest.raises(CommandRefused, match="KEY_FAILED"):
            client.begin()  # at once: it is still at the one before
        assert gate
        client.status()
        tpm.process.send_signal(signal.SIGCONT)

        def again() -> bool:
            try:
                client.begin()
            except CommandRefused:
                return False
            return True

        until(again)


@needs_tpm
def test_a_changed_key_file_or_public_key_refuses_the_start(device: Device) -> None:
    blobs, public = device.state / "device.tpm", device.state / "device.pub"
    good, name = blobs.read_bytes(), public.read_text()
    for bad in (b"", good[:-1], good + b"\0", bytes(len(good))):
        blobs.write_bytes(bad)
        assert "device.tpm" in refused(device)
    blobs.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "another TPM" in refused(device)
    blobs.write_bytes(good)
    public.write_text("11" * 64)
    assert "not the key in device.pub" in refused(device)
    public.write_text(name)
    device.configure(device_key="file")
    assert "enrolled with the device key in a TPM" in refused(device)


@needs_tpm
def test_a_tpm_that_is_not_there_is_named(device: Device) -> None:
    device.configure(device_key="tpm:/dev/no-such-tpm")
    assert "no such device; enable the TPM" in refused(device)
    device.configure(device_key="tpm:swtpm:host=127.0.0.1,port=1")
    assert "nothing answers there" in refused(device)


@needs_tpm
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide libtss2 in a mount namespace")
def test_a_missing_library_is_named_with_its_package(device: Device) -> None:
    found = next(Path("/usr/lib").glob("*/libtss2-esys.so.0"), None)
    if found is None or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    inner = f"mount --bind /dev/null {found.resolve()} && exec {sys.executable} -m qsafp_embedded.guard --config {device.toml}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inner], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert "apt-get install libtss2-esys-3.0.2-0" in done.stderr


@pytest.mark.parametrize("text", ["tpm", "tpm:", "files", "", "TPM:/dev/tpm0"])
def test_a_place_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    toml = tmp_path / "guard.toml"
    toml.write_text(f'run_dir = "r"\nstate_dir = "s"\nmodel_hash = "{"00" * 32}"\ndevice_key = "{text}"\n')
    with pytest.raises(ConfigError, match="device_key"):
        config.load(toml)
