# SPDX-License-Identifier: Apache-2.0
"""Wheels for the guest's Python: ours, cross-built with Debian's gcc, and those of the agent's libraries in the versions used here."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from boards import Arch
from debian import CACHE, ImageError, Packages, run, unpack
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["PYTHON", "build", "digest", "libraries", "sources"]

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = (3, 11)  # Debian 12's
INPUTS = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE", "qsafp_embedded", "cext", "board_ports")
SUFFIXES = {".c", ".h", ".py", ".pyx", ".pxd", ".pyi", ".toml", ".in", ".md", ".typed", ""}
GLIBC = range(17, 37)  # manylinux_2_17 to Debian 12's 2.36


def digest(paths: Iterable[Path], *words: str) -> str:
    """Hash of what is made of files and words; 16 hex digits."""
    h = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        h.update(b"\0" + str(path).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return h.hexdigest()[:16]


def sources() -> list[Path]:
    """The files that our wheel is made of: tracked or new, never ignored ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *INPUTS], cwd=ROOT, check=True, capture_output=True
    )
    named = {ROOT / n for n in listed.stdout.decode().split("\0") if n}
    return sorted(p for p in named if p.is_file() and p.suffix in SUFFIXES)


def _needs_python() -> None:
    if sys.version_info[:2] != PYTHON:
        wanted = ".".join(map(str, PYTHON))
        raise ImageError(
            f"boards run Python {wanted} and this is {sys.version.split()[0]}: PYTHON=python{wanted} make setup in a fresh clone"
        )


def _headers(arch: Arch, packages: Packages, python: str) -> Path:
    """Python's headers and build settings of the processor, unpacked once."""
    root = CACHE / "headers" / (arch.debian if python == "3.11" else f"{arch.debian}-{python}")
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        files = [p for p in packages.fetch([f"libpython{python}-dev"]) if p.name.startswith(f"libpython{python}")]
        unpack(files, root)
        (root / "settings").mkdir()
        name = f"_sysconfigdata__{arch.triplet}.py"
        shutil.copy(root / "usr/lib" / f"python{python}" / name, root / "settings" / name)
        (root / "done").touch()
    return root


def build(arch: Arch, packages: Packages, work: Path, python: str = "3.11") -> Path:
    """Cross-build our wheel from the tree as it is; reused while its sources are the same.  Raises ImageError."""
    _needs_python()
    key = digest(sources(), arch.machine)
    out = work / f"wheel-{arch.machine}-{key}"
    if not (done := sorted(out.glob("*.whl"))):
        for old in work.glob(f"wheel-{arch.machine}-*"):
            shutil.rmtree(old)
        done = [_cross_build(arch, _headers(arch, packages, python), out, python)]
    return done[0]


def _cross_build(arch: Arch, headers: Path, out: Path, python: str) -> Path:
    tree = out / "tree"
    for source in sources():
        to = tree / source.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)
    include = headers / "usr/include"
    env = {
        **os.environ,
        "_PYTHON_HOST_PLATFORM": f"linux-{arch.machine}",
        "_PYTHON_SYSCONFIGDATA_NAME": f"_sysconfigdata__{arch.triplet}",
        "PYTHONPATH": str(headers / "settings"),
        "CC": f"{arch.triplet}-gcc",
        "LDSHARED": f"{arch.triplet}-gcc -shared",
        "CFLAGS": f"-I{include}/python{python} -I{include}",  # before the host's own
        "QSAFP_WERROR": "1",
    }
    run([sys.executable, "setup.py", "-q", "bdist_wheel", "-d", out.resolve()], cwd=tree, env=env)
    (wheel,) = out.glob("*.whl")
    tag = f"cp{python.replace('.', '')}"
    run([sys.executable, "-m", "wheel", "tags", "--remove", f"--python-tag={tag}", wheel])  # it names the Python that ran setup.py
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        built = [n for n in z.namelist() if n.endswith(".so")]
    wanted = f"cpython-{tag[2:]}-{arch.triplet}.so"
    if not wheel.name.endswith(f"{tag}-{tag}-linux_{arch.machine}.whl") or [n for n in built if not n.endswith(wanted)] or not built:
        wheel.unlink()
        raise ImageError(f"{wheel.name} with {built}: not a wheel for {arch.machine}")
    shutil.rmtree(tree)
    return wheel


def _closure() -> dict[str, str]:
    """Name and version of what the guard and the agent import, as installed here."""
    todo = [("qsafp_embedded", "agent")]
    found: dict[str, str] = {}
    while todo:
        name, extra = todo.pop()
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                key = canonicalize_name(need.name)
                if key not in found:
                    found[key] = importlib.metadata.version(key)
                    todo.append((key, ""))
    return found


def libraries(arch: Arch) -> list[Path]:
    """Fetch the wheels of the agent's libraries for the guest, but for those that Debian brings.  Raises ImageError."""
    _needs_python()
    wanted = {n: v for n, v in _closure().items() if n not in arch.from_debian}
    where = CACHE / "wheels" / f"{arch.machine}-{digest([], *(f'{n}=={v}' for n, v in sorted(wanted.items())))}"
    if not (where / "done").exists():
        shutil.rmtree(where, ignore_errors=True)
        tags = [f"--platform=manylinux_2_{n}_{arch.machine}" for n in GLIBC] + [f"--platform=manylinux2014_{arch.machine}"]
        words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", where, *tags]
        abis = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
        run([*words, *abis, *(f"{n}=={v}" for n, v in sorted(wanted.items()))])
        (where / "done").touch()
    return sorted(where.glob("*.whl"))
