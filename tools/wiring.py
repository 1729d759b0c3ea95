# SPDX-License-Identifier: Apache-2.0
"""Draw the wiring of each board from its board.toml: board_ports/*/wiring.svg.  --check fails if one is out of date."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from qsafp_embedded.hardware import board
from qsafp_embedded.hardware.board import LINES, Board

ROOT = Path(__file__).resolve().parent.parent
ROW, TOP, WIDE = 70, 90, 760
PARTS = {
    "LEASE_VALID": ("330 ohm", "green LED: may infer", True),
    "FAILSAFE": ("330 ohm", "red LED: stopped, blinks", False),
    "VALIDATOR_REQ": ("330 ohm", "yellow LED: asks", False),
}


def _text(x: int, y: int, words: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}"{more}>{escape(words)}</text>'


def _wire(*points: tuple[int, int]) -> str:
    return f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}" class="w"/>'


def _box(x: int, y: int, wide: int, words: str) -> str:
    return f'<rect x="{x}" y="{y - 12}" width="{wide}" height="24" class="b"/>' + _text(
        x + wide // 2, y + 5, words, ' text-anchor="middle"'
    )


def _output(y: int, part: str, led: str, pulled: str, grounded: bool) -> list[str]:
    """Line, resistor or transistor, LED; LEASE_VALID also a pull-down, so that it is low while nobody drives it."""
    out = [
        _wire((250, y), (330, y)),
        _box(330, y, 90, part),
        _wire((420, y), (450, y)),
        _box(450, y, 190, led),
    ]
    if grounded:
        out.append(_wire((640, y), (700, y)))
    if pulled:
        out += [_wire((290, y), (290, y + 30), (330, y + 30)), _box(330, y + 30, 90, pulled), _wire((420, y + 30), (700, y + 30))]
    return out


def _input(y: int) -> list[str]:
    return [
        _wire((250, y), (450, y)),
        _box(450, y, 190, "button: asks for a renewal"),
        _wire((640, y), (670, y)),
        _text(676, y + 5, "3.3 V"),
    ]


def draw(b: Board) -> str:
    """Return the picture of one board as SVG."""
    rows = [(name, line) for name, line in zip(LINES, b.lines, strict=True) if line.chip]
    high = TOP + ROW * len(rows) + 20
    ground = TOP + ROW * (sum(name in PARTS for name, _ in rows) - 1) + 36
    out = [
        "<!-- SPDX-License-Identifier: Apache-2.0; drawn by tools/wiring.py from board.toml -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" font-family="sans-serif" font-size="14">',
        "<style>.w{fill:none;stroke:#333;stroke-width:2}.b{fill:#fff;stroke:#333}.d{fill:#e8f0e8;stroke:#333}</style>",
        f'<rect width="{WIDE}" height="{high}" fill="#fff"/>',
        _text(20, 30, f"{b.title}: {', '.join(sorted({line.chip for _, line in rows}))}", ' font-size="18"'),
        f'<rect x="20" y="{TOP - 40}" width="230" height="{ROW * len(rows) + 20}" class="d"/>',
        _wire((700, TOP), (700, ground)),
        _text(700, ground + 18, "GND", ' text-anchor="middle"'),
    ]
    if b.header.driver:
        out.append(_text(262, 58, "N-channel: gate to line, source to GND, drain to LED, its other leg to 3.3 V", ' font-size="12"'))
    for i, (name, line) in enumerate(rows):
        y = TOP + ROW * i
        pin = b.header.pins[LINES.index(name)]
        kernel = line.name or f"line {line.offset}"
        out += [_text(32, y + 5, name), _text(242, y + 25, f"{kernel}, pin {pin}" if pin else kernel, ' text-anchor="end" fill="#555"')]
        if name not in PARTS:
            out += _input(y)
            continue
        part, led, pulled = PARTS[name]
        pull = "100 kohm" if b.header.driver else "10 kohm"
        if b.header.driver:
            part, led = "transistor", f"{led.partition(':')[0]}, 330 ohm"
        out += _output(y, part, led, pull if pulled else "", not b.header.driver)
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Write the pictures, or with --check compare them."""
    stale = []
    for toml in sorted((ROOT / "board_ports").glob("*/board.toml")):
        path, picture = toml.parent / "wiring.svg", draw(board.load(toml.parent.name))
        if sys.argv[1:] != ["--check"]:
            path.write_text(picture)
        elif not path.exists() or path.read_text() != picture:
            stale.append(str(path.relative_to(ROOT)))
    for name in stale:
        print(f"{name}: out of date; run tools/wiring.py", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
