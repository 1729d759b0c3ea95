# SPDX-License-Identifier: Apache-2.0
"""``python -m qsafp_embedded.validator --config D/validator.toml``: one validator, until SIGTERM or SIGINT; SIGHUP reloads."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

from .. import keys, sets
from ..errors import ConfigError, QsafpError
from ..notify import notify, watchdog_s
from ..tls import server_context, spki_of_key, trust
from . import config as configuration
from .admin import serve_admin
from .config import Config
from .http import Face, serve
from .service import Identity, Service
from .store import Store

__all__ = ["identity_of", "load_set", "main", "run"]


def load_set(config: Config) -> sets.ValidatorSet:
    """Read the set document a configuration names; raises ConfigError if it cannot be trusted or does not know this index."""
    members = sets.read(config.set_path)
    if not 0 <= config.index < members.n:
        raise ConfigError(f"index {config.index} is not in the set of {members.n}")
    if members.suite not in config.policy.suites:
        raise ConfigError(f"{config.set_path}: suite {members.suite} is not among the policy's 'suites'")
    return members


def identity_of(config: Config, members: sets.ValidatorSet) -> Identity:
    """Load the signing keys that the suite needs; raises ConfigError unless they are the set's keys of this index."""
    signers: list[keys.Signer] = []
    if members.suite != "ml-dsa-65":
        signers.append(keys.load_ed25519(config.signing_key))
    if members.suite != "ed25519":
        if config.mldsa_key is None:
            raise ConfigError(f"suite {members.suite} needs 'mldsa_key'")
        signers.append(keys.load_mldsa65(config.mldsa_key))
    me = members.validators[config.index]
    for signer in signers:
        if signer.public != members.public(me, signer.alg):
            raise ConfigError(f"the key {signer.kid.hex()} is not the one the set gives validator {config.index}")
    return Identity(tuple(signers))


def _reload(path: Path, service: Service, context: ssl.SSLContext) -> None:
    """Take up a changed file; one that is wrong changes nothing and says so.  Address, TLS key and database need a restart."""
    try:
        fresh = configuration.load(path)
        members = load_set(fresh)
        if members.epoch < service.members.epoch or members.set_id != service.members.set_id:
            raise ConfigError("the set is older than the one in force, or another one")
        identity = identity_of(fresh, members)
        trust(context, [r.cert for r in fresh.relays])
    except QsafpError as why:
        print(f"validator {service.config.index}: not reloaded: {why}", file=sys.stderr, flush=True)
        return
    service.identity = identity
    service.reload(fresh, members)
    print(f"validator {fresh.index} reloaded: {len(fresh.devices)} devices, epoch {members.epoch}", flush=True)


async def run(path: Path, *, face: Callable[[Service], Face] = Face) -> None:
    """Serve until a signal comes; prints one line when ready.  Raises ConfigError or StoreError.

    ``face`` answers relays; scenarios put an adversary there.
    """
    config = configuration.load(path)
    members = load_set(config)
    identity = identity_of(config, members)
    tls_key = keys.load_ed25519(config.tls_key)
    if spki_of_key(tls_key) not in members.validators[config.index].pins:
        raise ConfigError(f"{config.tls_key}: not the TLS key that the set pins for validator {config.index}")
    context = server_context(tls_key, config.tls_cert, trusted=[r.cert for r in config.relays])
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    async with Store(config.db) as store:
        service = Service(config, members, identity, store)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, _reload, path, service, context)
        try:
            runner, port = await serve(face(service), config.host, config.port, context)
        except OSError as why:
            raise ConfigError(f"cannot listen on {config.host}:{config.port}: {why.strerror}") from why
        admin = await serve_admin(service, config.admin_socket)
        if config.port == 0:
            (config.directory / "port").write_text(f"{port}\n")
        gc.freeze()
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"validator {config.index} listening on https://{host}:{port}{' LAB' if members.lab else ''}", flush=True)
        notify("READY=1")
        beat = watchdog_s()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(beat or None):
                    await stop.wait()
            if beat:
                notify("WATCHDOG=1")
        notify("STOPPING=1")
        service.close()
        await admin.cleanup()
        await runner.cleanup()
    config.admin_socket.unlink(missing_ok=True)


def main() -> int:
    """Run the program; 0 after a signal, 1 with one line on standard error if it cannot work."""
    parser = argparse.ArgumentParser(prog="qsafp-validator", description="one validator of a set")
    parser.add_argument("--config", type=Path, required=True, help="its validator.toml")
    args = parser.parse_args()
    try:
        asyncio.run(run(args.config))
    except (QsafpError, OSError) as why:
        print(f"qsafp-validator: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
