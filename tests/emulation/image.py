# SPDX-License-Identifier: Apache-2.0
"""Make what a board boots: Debian's kernel, a disk of Debian packages and libraries, an initramfs with modules and this tree's files.

The disk depends on the processor and lies in ``~/.cache/qsafp/images``; the initramfs is made anew whenever the tree changed, and lays
our package over the disk at boot.  What is there and still right is not made again, and then nothing is fetched.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from boards import Arch, Board
from debian import CACHE, ImageError, Packages, alone, run, unpack
from wheels import build, digest, libraries

__all__ = ["Image", "make"]

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "build" / "boards"
DEBIAN = ("python3", "busybox-static", "libc-bin", "kmod", "iproute2")
DISK_BYTES = 1 << 30  # sparse; an SD card must be a power of two
SITE = "usr/local/lib/python3.11/dist-packages"


@dataclass(frozen=True)
class Image:
    """What QEMU is given: kernel, initramfs, device tree or None, and the base of the disk, which nobody writes."""

    kernel: Path
    initramfs: Path
    dtb: Path | None
    disk: Path


def make(board: Board, say: Callable[[str], None]) -> Image:
    """Make the image of a board, or find it made; ``say`` hears each long step.  Raises ImageError."""
    with alone(CACHE / f"{board.arch.debian}.lock", wait=True):  # boards of one processor share kernel, disk and wheel
        return _make(board, say)


def _make(board: Board, say: Callable[[str], None]) -> Image:
    packages = Packages(board.arch.debian, say)
    kernel = _kernel(board, packages, say)
    disk = _disk(board.arch, packages, say)
    say("wheel of this tree")
    wheel = build(board.arch, packages, OUT)
    out = OUT / board.name
    out.mkdir(parents=True, exist_ok=True)
    initramfs = out / "initramfs.cpio"
    _initramfs(board, kernel, wheel, _busybox(board.arch, packages), initramfs)
    return Image(kernel / "vmlinuz", initramfs, _device_tree(board, kernel, out), disk)


def _once(where: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that is made whole or not at all; older ones of the same name go."""
    if not where.exists():
        part = where.with_name(where.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        fill(part)
        for old in where.parent.glob(where.name.rpartition("-")[0] + "-*"):
            if old != part:
                shutil.rmtree(old)
        part.rename(where)
    return where


# ---- kernel ----


def _kernel(board: Board, packages: Packages, say: Callable[[str], None]) -> Path:
    """Kernel, device trees and all modules of the package, unpacked once; what a board needs is chosen later."""
    where = CACHE / "kernels" / f"{board.kernel}-{digest([], Path(__file__).read_text(), 'kernel')}"

    def fill(part: Path) -> None:
        say(f"kernel: {board.kernel}")
        root = part / "root"
        unpack([packages.fetch_kernel(board.kernel)], root)
        (image,) = (root / "boot").glob("vmlinuz-*")
        shutil.copy(image, part / "vmlinuz")
        (modules,) = (root / "usr/lib/modules").iterdir()
        run(["depmod", "-b", root, modules.name])
        for trees in (root / "usr/lib").glob("linux-image-*"):
            shutil.move(trees, part / "dtb")
        (part / "release").write_text(modules.name)

    return _once(where, fill)


def _device_tree(board: Board, kernel: Path, out: Path) -> Path | None:
    """The package's device tree with this board's changes; None for a board that QEMU describes itself."""
    if board.dtb is None:
        return None
    tree = out / "board.dtb"
    shutil.copy(kernel / "dtb" / board.dtb, tree)
    for node, name, value in board.dtb_changes:
        run(["fdtput", "-t", "s", tree, node, name, value])
    return tree


def _needed(kernel: Path, names: tuple[str, ...]) -> list[Path]:
    """Files of modules and of what they depend on, in the order of loading; built-in ones need none."""
    out: dict[Path, None] = {}
    for name in names:
        shown = run(["modprobe", "-d", kernel / "root", "-S", (kernel / "release").read_text(), "--show-depends", name])
        for line in shown.splitlines():
            if line.startswith("insmod "):
                out[Path(line.split()[1]).resolve()] = None
    return list(out)


# ---- disk ----


def _disk(arch: Arch, packages: Packages, say: Callable[[str], None]) -> Path:
    """The disk of a processor: Debian's Python and tools, the agent's libraries, all compiled."""
    names = [*DEBIAN, *arch.packages, *sorted(set(arch.from_debian.values()))]
    wheels = libraries(arch)
    key = digest([], (HERE / "image.py").read_text(), *names, *(w.name for w in wheels))
    where = CACHE / "images" / f"{arch.debian}-{key}"

    def fill(part: Path) -> None:
        root = part / "root"
        say("disk: Debian packages")
        unpack(packages.fetch(names), root)
        for wheel in wheels:
            _unzip(wheel, root / SITE)
        _furnish(root)
        say("disk: compiling Python files")
        _compile(root, ["usr/lib/python3.11", "usr/lib/python3", SITE])
        run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, part / "disk.ext4", str(DISK_BYTES >> 10)])
        shutil.rmtree(root)

    return _once(where, fill) / "disk.ext4"


def _unzip(wheel: Path, to: Path) -> None:
    with zipfile.ZipFile(wheel) as z:
        z.extractall(to)


def _compile(root: Path, folders: list[str]) -> None:
    """Byte-compile for the guest: its Python is of our minor version, and checks no times."""
    words = ["-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/"]
    run([sys.executable, *words, *(root / f for f in folders if (root / f).exists())])


def _furnish(root: Path) -> None:
    """What a package's scripts would have made; no script runs here."""
    for folder in ("dev", "proc", "sys", "run", "tmp", "var/tmp", "etc/board", "mnt"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    files = {
        "etc/passwd": "root:x:0:0:root:/var/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "etc/hosts": "127.0.0.1 localhost\n",
        "etc/fstab": "",
        "usr/bin/qsafp": "#!/usr/bin/python3\nimport sys\nfrom qsafp_embedded.cli import main\nsys.exit(main())\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    (root / "usr/bin/qsafp").chmod(0o755)


# ---- initramfs ----


def _initramfs(board: Board, kernel: Path, wheel: Path, busybox: Path, to: Path) -> None:
    """Write the archive: busybox, modules, ``/init``, and under ``/overlay`` what goes over the disk."""
    part = to.with_suffix(".tree")
    shutil.rmtree(part, ignore_errors=True)
    early = _needed(kernel, board.modules)
    release = (kernel / "release").read_text()
    over = part / "overlay"
    for file in [*early, *_needed(kernel, board.carried)]:
        where = over / file.relative_to((kernel / "root").resolve())
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, where)
    (over / "lib").symlink_to("usr/lib")  # where depmod looks
    run(["depmod", "-b", over, release])
    (over / "lib").unlink()
    (part / "modules").mkdir()
    for file in early:
        shutil.copy(file, part / "modules")
    conf = {"NAME": board.name.replace("_", "-"), "ROOT": board.root, "CHANNEL": board.channel, "INTERFACE": board.interface}
    conf["MODULES"] = " ".join(f.name for f in early)
    conf["REQUIRED"] = " ".join(m for m in board.modules if any(f.stem.replace("-", "_") == m for f in early))
    text = "".join(f'{k}="{v}"\n' for k, v in conf.items())
    _unzip(wheel, over / SITE)
    _compile(over, [SITE])
    (over / "etc/board").mkdir(parents=True)
    for name in ("rc", "serve.py", "lines.py"):
        shutil.copy(HERE / "guest" / name, over / "etc/board" / name)
    shutil.copy(HERE / "guest/inittab", over / "etc/inittab")
    (over / "etc/board/board.conf").write_text(text)
    (part / "board.conf").write_text(text)
    shutil.copy(HERE / "guest/init", part / "init")
    (part / "bin").mkdir()
    shutil.copy(busybox, part / "bin/busybox")
    _cpio(part, to)
    shutil.rmtree(part)


def _busybox(arch: Arch, packages: Packages) -> Path:
    """The static busybox, unpacked once beside the disk."""
    where = CACHE / "busybox" / f"{arch.debian}-1"

    def fill(part: Path) -> None:
        unpack([p for p in packages.fetch(["busybox-static"]) if p.name.startswith("busybox-static")], part)

    return _once(where, fill) / "usr/bin/busybox"


def _entries(root: Path) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of everything under a folder, folders first."""
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            yield name, 0o120777, os.fsencode(path.readlink())
        elif path.is_dir():
            yield name, 0o040755, b""
        else:
            yield name, 0o100000 | (path.stat().st_mode & 0o777), path.read_bytes()


def _cpio(root: Path, to: Path) -> None:
    """Write a newc archive (kernel: Documentation/driver-api/early-userspace/buffer-format)."""
    with to.open("wb") as out:
        for number, (name, mode, data) in enumerate([*_entries(root), ("TRAILER!!!", 0, b"")], 1):
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
            out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))


if __name__ == "__main__":
    from boards import BOARDS

    try:
        for chosen in sys.argv[1:] or list(BOARDS):
            print(make(BOARDS[chosen], lambda text: print(f"  {text}", flush=True)))
    except ImageError as why:
        sys.exit(f"image: {why}")
