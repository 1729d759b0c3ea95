# SPDX-License-Identifier: Apache-2.0
"""Guard and gate under CPython 3.13: Debian trixie's packages, unpacked beside the system (its own C library included)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, MODEL, Device, short_dir

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "cpython313"
PACKAGES = ("python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib", "libpython3.13-dev", "libc6")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TRIPLE = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
SUFFIX = f".cpython-313-{TRIPLE}.so"

GATE = """
import json, sys
from qsafp_embedded import Gate, errors
from qsafp_embedded._tables import Status
gate = Gate(model=bytes(range(32)), run_dir=sys.argv[1])
said = {"python": sys.version_info[:2], "before": gate.check().name}
print("ready", flush=True)
sys.stdin.readline()
said["waited"] = gate.wait(20)
gate.require()
with gate:
    said["open"] = bool(gate)
said["decorated"] = gate(lambda: 7)()
said["serial"] = gate.info().serial
print("leased", flush=True)
sys.stdin.readline()
while gate:
    pass
try:
    gate.require()
except errors.LeaseDenied as no:
    said["denied"] = [no.reason, list(no.refused_by)]
print(json.dumps(said), flush=True)
"""


def run(words: list[str], **more: object) -> None:
    """Run a preparation step; what fails is a counted skip that says why."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, **more)  # type: ignore[call-overload]
    except (OSError, subprocess.TimeoutExpired) as why:
        pytest.skip(f"CPython 3.13 cannot be had here: {why}")
    if done.returncode:
        pytest.skip(f"CPython 3.13 cannot be had here: {words[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


def fetch(to: Path) -> None:
    """Download and unpack trixie's packages with apt, in directories of our own; the system's are not touched."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"CPython 3.13 cannot be had here: no {tool}")
    part = to.with_name(to.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "lists/partial").mkdir(parents=True)
    (part / "cache/archives/partial").mkdir(parents=True)
    (part / "sources.list").write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n")
    (part / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{part}/sources.list";\nDir::Etc::SourceParts "/dev/null";\nDir::State::Lists "{part}/lists";\n'
        f'Dir::Cache "{part}/cache";\nAcquire::Languages "none";\nAcquire::http::Timeout "10";\nAPT::Sandbox::User "";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(part / "apt.conf")}
    run(["apt-get", "update"], env=env)
    run(["apt-get", "download", *PACKAGES], env=env, cwd=part)
    for package in part.glob("*.deb"):
        run(["dpkg-deb", "-x", str(package), str(part / "root")])
    (part / "root").rename(to)
    shutil.rmtree(part)


@pytest.fixture(scope="module")
def python() -> Iterator[list[str]]:
    """The interpreter, made to start under the loader that belongs to it: the guard starts its own interpreter anew."""
    if not KEPT.exists():
        KEPT.parent.mkdir(exist_ok=True)
        fetch(KEPT)
    lib = KEPT / "usr/lib" / TRIPLE
    program = (KEPT / "usr/bin/python3.13").read_bytes()
    found = re.search(rb"/lib\d*/ld-linux-[\w.-]+", program)
    if found is None:
        pytest.skip("CPython 3.13 cannot be had here: its loader is not known")
    with short_dir() as place:
        link = place / "l"
        link.symlink_to(next(lib.glob("ld-linux-*.so.*")))
        named = os.fsencode(link).ljust(len(found[0]), b"\0")
        assert len(named) == len(found[0])
        ours = KEPT / "usr/bin/python3.13-here"
        ours.unlink(missing_ok=True)
        ours.write_bytes(program.replace(found[0], named, 1))
        ours.chmod(0o755)
        run([str(ours), "-c", "import sys; assert sys.version_info[:2] == (3, 13)"], env=libraries())
        yield [str(ours)]


def libraries() -> dict[str, str]:
    """The environment in which it finds its own C library."""
    lib = KEPT / "usr/lib" / TRIPLE
    return {**os.environ, "LD_LIBRARY_PATH": f"{lib}:/usr/lib/{TRIPLE}"}


@pytest.fixture(scope="module")
def package(python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the extension built for 3.13; a build that fails is a failure, not a skip."""
    home = tmp_path_factory.mktemp("cpython313")
    shutil.copytree(ROOT / "qsafp_embedded", home / "qsafp_embedded", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    include = KEPT / "usr/include"
    cython = [sys.executable, "-m", "cython", "-3", "-I", str(ROOT), "-o", str(home / "_core.c"), "qsafp_embedded/_core.pyx"]
    subprocess.run(cython, cwd=ROOT, check=True, timeout=120)
    sources = [p for folder in ("cext/src", "board_ports/linux", "board_ports/simulated") for p in sorted((ROOT / folder).glob("*.c"))]
    folders = [include / "python3.13", include, *(ROOT / f for f in ("cext/include", "cext/src", "board_ports/linux"))]
    gcc = ["gcc", "-shared", "-fPIC", "-O0", "-std=c11", "-pthread", "-fvisibility=hidden", "-w", *(f"-I{f}" for f in folders)]
    gcc += [str(home / "_core.c"), *map(str, sources), "-ldl", "-o", str(home / "qsafp_embedded" / f"_core{SUFFIX}")]
    subprocess.run(gcc, check=True, timeout=300)
    return home


@pytest.fixture
def env(package: Path) -> dict[str, str]:
    """Our package, and the one that holds libsodium."""
    import nacl

    return {**libraries(), "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{package}:{Path(nacl.__file__).parents[1]}"}


@pytest.fixture
def device(python: list[str], env: dict[str, str]) -> Iterator[Device]:
    with short_dir() as root:
        made = Device(root)  # PyNaCl's Python part is built for one version: enrolled by this one
        try:
            yield made.start(python=python, env=env)
        finally:
            made.close()


def test_guard_and_gate_run_under_cpython_313(python: list[str], env: dict[str, str], device: Device) -> None:
    assert device.guard is not None
    with device.client() as client:
        assert f"_core{SUFFIX}" in Path(f"/proc/{client.pid}/maps").read_text()
    words = [*python, "-c", GATE, str(device.root / "run")]
    gate = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert gate.stdout is not None
        assert gate.stdin is not None
        assert gate.stdout.readline() == "ready\n", gate.communicate(timeout=LIMIT_S)[1]
        device.lease()
        gate.stdin.write("\n")
        gate.stdin.flush()
        assert gate.stdout.readline() == "leased\n", gate.communicate(timeout=LIMIT_S)[1]
        device.revoke()
        out, err = gate.communicate("\n", timeout=LIMIT_S)
    finally:
        gate.kill()
        gate.wait()
    assert not err
    assert json.loads(out) == {
        "python": [3, 13],
        "before": "UNINITIALIZED",
        "waited": True,
        "open": True,
        "decorated": 7,
        "serial": 1,
        "denied": ["VALIDATOR_DENIED", [0, 1, 2]],
    }
    assert device.gate(model=MODEL).info().generation == 1, "read by this version, from a page of the other's guard"
    device.lease()
    assert device.gate()


def test_the_core_answers_alike_under_both(python: list[str], env: dict[str, str]) -> None:
    code = (
        "import hashlib; from qsafp_embedded import _core as c\n"
        "t = c.Tree(); [t.append(c.tree_leaf(bytes([i]) * 32)) for i in range(37)]\n"
        "b = c.cbor_dumps({1: [b'x', 'y', -7, True, None], 2: {3: 2**63}}); assert c.cbor_loads(b)[2][3] == 2**63\n"
        "print(t.root().hex(), b.hex(), c.crc16(b'123456789'), c.cobs_encode(b'\\0a\\0').hex(), c.sha256(b) == hashlib.sha256(b).digest())"
    )
    answers = [
        subprocess.run([*words, "-c", code], env=e, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
        for words, e in ((python, env), ([sys.executable], None))
    ]
    assert answers[0] == answers[1]
    assert answers[0].endswith("True\n")
