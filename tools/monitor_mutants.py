# SPDX-License-Identifier: Apache-2.0
"""Take away what the monitor's safety rests on, one piece at a time, and see the named test turn red: ``make mutants MONITOR=1``.

``monitor_mutants.py [--only WORD] [--table]``: each change is made in a copy of the tree under build/, never here.  There the named test
has to pass before the change and to fail after it, at a line that has the words listed with it: so that it fails for that reason.
``--table`` prints the table of docs/conformance.md.  Exit 1 if anything is otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 400  # for one test; a board waits 60 s for what does not come
AT_ONCE = 2

Edit = tuple[str, str, str]  # file, what stands there once, what is put in its place


@dataclass(frozen=True)
class Change:
    """What is taken away, where, the test that has to notice, on which boards, and words of the line at which it does."""

    what: str
    edits: tuple[Edit, ...]
    test: str
    shows: str
    boards: tuple[str, ...] = ("",)

    def ids(self) -> list[tuple[str, str]]:
        """Board and pytest's id of the test there."""
        return [(board or "this machine", self.test.format(board=board)) for board in self.boards]

    @property
    def name(self) -> str:
        """The test without its parameters."""
        return self.test.partition("[")[0]


RV64, A64, T32 = "hifive_unleashed", "virt_aarch64", "virt_armv7"
ARCH, PORT, BOOT = "cext/monitor/arch", "cext/monitor", "cext/monitor/boot"
TESTS = "tests/monitor"
READ_ONLY = f"{TESTS}/test_boot.py::test_boot_stage_and_monitor_are_read_only_for_every_hart_before_anything_else_runs[{{board}}]"
ATTACK, ATTACK_ARM = (f"{TESTS}/{file}.py::test_after_an_attack_the_lease_ends_on_time" for file in ("test_attacks", "test_attacks_arm"))
FLIPPED = f"{TESTS}/test_boot.py::test_a_flipped_bit_does_not_boot"
EVERY = "for (unsigned i = 1; i < CORES; i++)"
UNTOLD = "        if (get(&m.core[i].state) == CORE_RUNS)\n            arch_poke(i);"
UNSEEN = "        if (get(&m.core[i].state) == CORE_RUNS)\n            return false;"
ONLY_FIRST = EVERY.replace("CORES", "2")
PARKING = (
    (f"{PORT}/contain.c", f"{EVERY}\n{UNTOLD}", f"{ONLY_FIRST}\n{UNTOLD}"),
    (f"{PORT}/contain.c", f"{EVERY}\n{UNSEEN}", f"{ONLY_FIRST}\n{UNSEEN}"),
)
COPY = (
    (f"{PORT}/calls.c", "    c->arg[0] = arg[1];\n", "    c->arg[0] = arg[1];\n    c->arg[1] = arg[0];\n"),
    (f"{PORT}/calls.c", "command((unsigned)(c - m.core), c->frame, n)", "command((unsigned)(c - m.core), (const uint8_t *)c->arg[1], n)"),
)

CHANGES = (
    Change(
        "PMP lock of boot stage and monitor",
        (("board_ports/hifive_unleashed/boot_start.S", "#define LOCKED_READ_EXECUTE 0x9D", "#define LOCKED_READ_EXECUTE 0x1D"),),
        READ_ONLY,
        "locked=1",
        (RV64,),
    ),
    Change(
        "FIQ route to EL3",
        ((f"{ARCH}/aarch64/trap.c", "| 1u << 3 | 1u << 2 | 1u)", "| 1u << 3 | 1u)"),),
        f"{ATTACK_ARM}[{{board}}-never-yields]",
        "no answer in 5 s",
        (A64,),
    ),
    Change(
        "FIQ route to Monitor mode",
        ((f"{ARCH}/armv7/sysreg.h", "#define SCR_PAYLOAD 0x205", "#define SCR_PAYLOAD 0x201"),),
        f"{ATTACK_ARM}[{{board}}-never-yields]",
        "no answer in 5 s",
        (T32,),
    ),
    Change(
        "check of the Ed25519 signature",
        ((f"{BOOT}/image.c", "if (qsafp_ed25519_verify(", "if (0 && qsafp_ed25519_verify("),),
        f"{FLIPPED}[{{board}}-2060-ED25519]",
        "said.halted",
        (RV64, A64, T32),
    ),
    Change(
        "check of the ML-DSA-65 signature",
        ((f"{BOOT}/image.c", "if (qsafp_mldsa65_verify(", "if (0 && qsafp_mldsa65_verify("),),
        f"{FLIPPED}[{{board}}-2130-ML_DSA_65]",
        "said.halted",
        (RV64,),
    ),
    Change("parking of the second hart", PARKING, f"{ATTACK}[never-yields]", "parked(board) == [True, True]", (RV64,)),
    Change("parking of the second core", PARKING, f"{ATTACK_ARM}[{{board}}-never-yields]", "parked(board) == [True, True]", (A64, T32)),
    Change("copy of a call's arguments", COPY, f"{ATTACK}[races-arguments-from-the-other-hart]", '"odd"', (RV64,)),
    Change("copy of a call's arguments", COPY, f"{ATTACK_ARM}[{{board}}-races-arguments-from-the-other-core]", '"odd"', (A64, T32)),
    Change(
        "lock of boot stage and monitor in the page tables",
        ((f"{ARCH}/{{arch}}/reset/reset.S", "#define READ_ONLY 0x80", "#define READ_ONLY 0x40"),),
        READ_ONLY,
        "locked=1",
        (A64, T32),
    ),
    Change(
        "denial of the monitor's memory",
        ((f"{ARCH}/riscv64/protect.c", "NAPOT | R, NAPOT, NAPOT | R,", "NAPOT | R, NAPOT | R | W, NAPOT | R,"),),
        f"{ATTACK}[writes-monitor-memory]",
        '"leaked"',
        (RV64,),
    ),
    Change(
        "default deny on the second hart",
        (
            (
                f"{ARCH}/riscv64/trap.c",
                "    protect();\n",
                "    protect();\n    if (hart == 2)\n        CSR_WRITE(pmpaddr5, UINT64_MAX >> 10);\n",
            ),
        ),
        f"{ATTACK}[programs-bus-masters]",
        '"leaked"',
        (RV64,),
    ),
    Change(
        "verification of the copy, not of the flash",
        ((f"{BOOT}/boot.c", "_verify(image, place, front, body)", "_verify(image, place, slot, slot + sizeof front)"),),
        f"{TESTS}/test_host_boot.py::test_flash_is_read_once_and_no_damage_boots",
        "flash was read again after the copy",
    ),
    Change(
        "rise of the monitor's counter",
        ((f"{BOOT}/boot.c", "    boot_board_raise(QSAFP_IMAGE_KIND_MONITOR, m->security_version);\n", ""),),
        f"{TESTS}/test_boot.py::test_an_older_version_boots_until_a_lease_raised_the_counter_and_never_again[{{board}}]",
        '"raised"',
        (RV64,),
    ),
    Change(
        "refusal of an older version",
        ((f"{BOOT}/image.c", "if (h.security_version < place->counter)", "if (0 && h.security_version < place->counter)"),),
        f"{TESTS}/test_boot.py::test_the_counter_is_its_highest_fuse_whatever_is_below[{{board}}]",
        "said.halted",
        (RV64,),
    ),
    Change(
        "wait for the first lease before a counter rises",
        ((f"{PORT}/monitor.c", "if (m.kept || !m.q.leased)", "if (m.kept)"),),
        f"{TESTS}/test_booted.py::test_the_counters_rise_with_the_first_lease_and_not_before[{{board}}]",
        "== (0, 0)",
        (RV64,),
    ),
)


@dataclass(frozen=True)
class Found:
    """What a test said: passed, failed, or anything else; and the lines that say why."""

    state: str
    why: str = ""


def of_board(edit: Edit, board: str) -> Edit:
    """An edit with the folder of the board's architecture."""
    arch = {RV64: "riscv64", A64: "aarch64", T32: "armv7"}.get(board, "")
    return edit[0].replace("{arch}", arch), edit[1], edit[2]


def edited(text: str, old: str, new: str) -> str:
    """The text with the change made; what is changed stands there once."""
    if text.count(old) != 1:
        raise LookupError(f"{old!r} stands there {text.count(old)} times, not once")
    return text.replace(old, new)


def copy_tree(to: Path) -> None:
    """The tracked files as they are, and the extension."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in [n for n in listed if n and (ROOT / n).is_file()] + [str(p.relative_to(ROOT)) for p in ROOT.glob("qsafp_embedded/*.so")]:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)


def read(xml: Path) -> Found:
    """What a JUnit file says of its one test.  That something could not be built is no failure of it."""
    cases = list(ET.parse(xml).iter("testcase")) if xml.exists() else []
    if len(cases) != 1:
        return Found("did not run")
    told = {child.tag: child for child in cases[0]}
    for tag, state in (("error", "broken"), ("skipped", "skipped"), ("failure", "failed")):
        if tag in told:
            return Found(state, told[tag].text or told[tag].get("message") or "")
    return Found("passed")


def run(test: str, tree: Path) -> Found:
    """Run one test there."""
    xml = tree / "build/result.xml"
    xml.parent.mkdir(exist_ok=True)
    xml.unlink(missing_ok=True)
    env = {k: v for k, v in os.environ.items() if k not in ("QSAFP_BOARD", "PYTHONPATH")}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}", test]
    try:
        subprocess.run(words, cwd=tree, env=env, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return Found("no end")
    return read(xml)


def blamed(why: str, shows: str) -> str:
    """The line of a failure that has these words; nothing if there is none."""
    lines = [line.strip(" >E") for line in why.splitlines() if line[:1] in (">", "E")]
    return next((line for line in lines if shows in line), "")


def verdict(change: Change, board: str, test: str) -> tuple[bool, str]:
    """Whether it was noticed for the right reason, and a row that says so."""
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="monitor-mutant-") as name:
        tree = Path(name)
        copy_tree(tree)
        before = run(test, tree)
        for file, old, new in (of_board(edit, board) for edit in change.edits):
            (tree / file).write_text(edited((tree / file).read_text(), old, new))
        after = run(test, tree)
    line = blamed(after.why, change.shows)
    good = before.state == "passed" and after.state == "failed" and bool(line)
    said = f"before: {before.state}; after: {after.state}: {line or after.why[-300:]}"
    return good, "\n          ".join((f"{'red' if good else 'NOT SHOWN':<10}{board:<18}{change.what}", test, said))


def table() -> str:
    """What is taken away and what notices, for docs/conformance.md."""
    rows = ["| taken away | boards | turns red |", "|---|---|---|"]
    rows += [f"| {c.what} | {', '.join(b or 'this machine' for b in c.boards)} | `{c.name}` |" for c in CHANGES]
    return "\n".join(rows) + "\n"


def chosen(word: str) -> Iterator[tuple[Change, str, str]]:
    """Each change on each of its boards, where ``word`` is in what is printed of it."""
    return ((c, board, test) for c in CHANGES for board, test in c.ids() if word in f"{c.what} {board} {test}")


def main() -> int:
    """Try them; 0 if each turned its test red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only what has this word in its name, board or test")
    parser.add_argument("--table", action="store_true", help="print what would be tried, for docs/conformance.md")
    args = parser.parse_args()
    if args.table:
        print(table(), end="")
        return 0
    (ROOT / "build").mkdir(exist_ok=True)
    begun, good = time.monotonic(), []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for noticed, row in pool.map(lambda one: verdict(*one), chosen(args.only)):
            print(row, flush=True)
            good.append(noticed)
    print(f"monitor mutants: {sum(good)}/{len(good)} turned their test red; {time.monotonic() - begun:.0f} s")
    return int(not good or not all(good))


if __name__ == "__main__":
    sys.exit(main())
