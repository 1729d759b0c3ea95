# SPDX-License-Identifier: Apache-2.0
"""``qsafp image``: make the manufacturer root key, sign firmware with it, and ask of an image what the boot stage will (HW-2)."""

from __future__ import annotations

import argparse
from pathlib import Path

from .._tables import Board, ImageKind, ImageVerdict
from ..errors import ConfigError, FormatError
from ..image import Image, Place, RootKey, name_of, verdict
from .common import Commands, command, emit, group, write_new

__all__ = ["add"]

SIGN = "qsafp image sign m.bin m.img --key root.key --kind monitor --board hifive_unleashed --security-version 1 --load 0x80008000"
VERIFY = "qsafp image verify m.img --kind monitor --root e71f0c4bd04b6cdc4dcaa1b9e08bb95a6c2a4a3c9f7a3d6e5f3a6f0c1d2b3a49"
MEANS = {
    ImageVerdict.MAGIC: "it is no image",
    ImageVerdict.FORMAT: "its format version is not known",
    ImageVerdict.KIND: "it is of another kind: a payload never boots as a monitor",
    ImageVerdict.BOARD: "it is for another board",
    ImageVerdict.OLD: "its security version is below the counter",
    ImageVerdict.LOAD: "it loads elsewhere",
    ImageVerdict.SIZE: "its size is wrong: it is truncated or damaged",
    ImageVerdict.ENTRY: "its entry does not lie inside it",
    ImageVerdict.RESERVED: "bytes that must be zero are not",
    ImageVerdict.ROOT_KEY: "it is signed with another root key",
    ImageVerdict.HASH: "its bytes are not those that were signed: changed, missing or too many",
    ImageVerdict.ED25519: "the Ed25519 signature is not good",
    ImageVerdict.ML_DSA_65: "the ML-DSA-65 signature is not good",
    ImageVerdict.GOOD: "it boots",
}


def _number(text: str) -> int:
    """Decimal, or hexadecimal after 0x."""
    return int(text, 0)


def _hash(text: str) -> bytes:
    """32 bytes in hex."""
    value = bytes.fromhex(text)
    if len(value) != 32:
        raise ValueError
    return value


_number.__name__, _hash.__name__ = "number", "64 hex digits"  # what argparse says of a bad one


def _choice(p: argparse.ArgumentParser, option: str, table: type[Board] | type[ImageKind], *, required: bool) -> None:
    names = [n.name.lower() for n in table]
    p.add_argument(option, choices=names, required=required, help=f"one of: {', '.join(names)}", metavar=option[2:].upper())


def add(commands: Commands) -> None:
    """Add ``image keygen|sign|verify|inspect``."""
    acts = group(commands, "image", "sign firmware, verify what was signed", f"qsafp image keygen root.key\n{SIGN}\n{VERIFY}")
    what = "make the manufacturer root key (Ed25519 and ML-DSA-65) in a new file of mode 0600; print the hash that boot stages hold"
    p = command(acts, "keygen", _keygen, what, "qsafp image keygen root.key")
    p.add_argument("file", type=Path, help="the new file; whoever has it can make boards run anything: keep it off line")
    p = command(acts, "sign", _sign, "sign raw code, as it will lie in memory, with both keys", SIGN)
    p.add_argument("body", type=Path, help="raw binary (objcopy -O binary)")
    p.add_argument("file", type=Path, help="the new image")
    p.add_argument("--key", type=Path, required=True, metavar="FILE", help="the root key that keygen made")
    _choice(p, "--kind", ImageKind, required=True)
    _choice(p, "--board", Board, required=True)
    text = "boards that ran an image of version N with a lease refuse lower ones for ever: raise it only to lock out a flaw"
    p.add_argument("--security-version", type=_number, required=True, metavar="N", help=text)
    p.add_argument("--load", type=_number, required=True, metavar="ADDRESS", help="where the body runs; the board takes only its own")
    p.add_argument("--entry", type=_number, metavar="ADDRESS", help="its first instruction (default: the load address)")
    p = command(acts, "verify", _verify, "ask of an image what the boot stage asks; exit code 1 names the reason of a refusal", VERIFY)
    p.add_argument("file", type=Path, help="the image")
    p.add_argument("--root", type=_hash, required=True, metavar="HEX", help="hash of the root key, as keygen printed it")
    _choice(p, "--kind", ImageKind, required=False)
    _choice(p, "--board", Board, required=False)
    p.add_argument("--counter", type=_number, default=0, metavar="N", help="lowest security version (default: %(default)s)")
    p.add_argument("--load", type=_number, metavar="ADDRESS", help="where it must load")
    p = command(acts, "inspect", _inspect, "show what an image says of itself; verifies nothing", "qsafp image inspect m.img")
    p.add_argument("file", type=Path, help="the image")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as why:
        raise ConfigError(f"{path}: cannot be read: {why.strerror}") from why


def _keygen(args: argparse.Namespace) -> int:
    root = RootKey.generate(args.file).hash.hex()
    emit(args, {"file": str(args.file), "root": root}, f"{args.file}: manufacturer root key\n  root  {root}")
    return 0


def _sign(args: argparse.Namespace) -> int:
    key, kind, board = RootKey.load(args.key), ImageKind[args.kind.upper()], Board[args.board.upper()]
    try:
        where = {"security_version": args.security_version, "load": args.load, "entry": args.entry}
        image = Image.sign(_read(args.body), key, kind=kind, board=board, **where)
    except FormatError as why:
        raise FormatError(f"{args.body}: {why}") from why
    raw = image.encode()
    write_new(args.file, raw)
    sha256, root = image.sha256.hex(), key.hash.hex()
    text = f"{args.file}: {args.kind} for {args.board}, {len(raw)} bytes\n  sha256  {sha256}\n  root    {root}"
    emit(args, {"file": str(args.file), "bytes": len(raw), "sha256": sha256, "root": root}, text)
    return 0


def _verify(args: argparse.Namespace) -> int:
    kind = ImageKind[args.kind.upper()] if args.kind else None
    board = Board[args.board.upper()] if args.board else None
    found = verdict(_read(args.file), Place(args.root, board=board, kind=kind, counter=args.counter, base=args.load))
    good = found == ImageVerdict.GOOD
    asked = [name for name, value in (("kind", kind), ("board", board), ("load", args.load)) if value is None]
    note = f" (not asked: {', '.join(asked)})" if asked else ""
    text = f"{args.file}: {found.name}: {MEANS[found]}{note}"
    emit(args, {"ok": good, "verdict": found.name, "why": MEANS[found], "not_asked": asked}, text)
    return int(not good)


def _inspect(args: argparse.Namespace) -> int:
    try:
        image = Image.decode(_read(args.file))
    except FormatError as why:
        raise FormatError(f"{args.file}: {why}") from why
    found = {
        "kind": name_of(ImageKind, image.kind),
        "board": name_of(Board, image.board),
        "security_version": image.security_version,
        "load": hex(image.load),
        "entry": hex(image.entry),
        "size": image.size,
        "sha256": image.sha256.hex(),
        "root": image.root.hex(),
    }
    lines = [f"  {name:<16}  {value}" for name, value in found.items()]
    emit(args, {**found, "verified": False}, "\n".join([f"{args.file}: what it says of itself; nothing is verified", *lines]))
    return 0
