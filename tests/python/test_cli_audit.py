# SPDX-License-Identifier: Apache-2.0
"""``qsafp audit`` against a running guard and against files that it left."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from qsafp_embedded.audit import Log
from qsafp_embedded.cli import main
from qsafp_embedded.errors import AuditError
from qsafp_embedded.scenarios.stage import Stage


def test_a_log_is_listed_verified_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stage(profile="home") as stage:
        where = ["--dir", str(stage.root)]
        stage.start()

        def said(*words: str) -> str:
            assert main(["audit", *words, *where]) == 0
            return capsys.readouterr().out

        rows = json.loads(said("list", "--json", "--last", "3"))
        assert len(rows) == 3
        assert [r["seq"] for r in rows] == list(range(rows[0]["seq"], rows[0]["seq"] + 3))
        good = json.loads(said("verify", "--json", "--k0", str(stage.root / "auditor/k0")))
        assert good["ok"]
        assert "its root holds" in good["lease"]
        said("export", "--cbor", "--out", str(tmp_path / "log.cbor"))
        said("export", "--out", str(tmp_path / "log.jsonl"))
        ring = stage.root / "guard/state/log.ring"
        for file in (tmp_path / "log.cbor", tmp_path / "log.jsonl", ring):
            assert json.loads(said("verify", "--json", "--file", str(file)))["records"] >= good["records"]
        assert Log.open(ring).raw[: good["records"]] == Log.open(tmp_path / "log.cbor").raw[: good["records"]]
        assert main(["audit", "export", "--out", str(tmp_path / "log.jsonl"), *where]) == 1  # never overwritten
        assert "never overwrites" in capsys.readouterr().err
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            assert main(["audit", "export", "--out", str(tmp_path / "half.jsonl"), *where]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "File too large" in capsys.readouterr().err
        assert not (tmp_path / "half.jsonl").exists()
        bad = bytearray(ring.read_bytes())
        bad[256 * 2 + 150] ^= 1
        (tmp_path / "bad.ring").write_bytes(bad)
        assert main(["audit", "verify", "--file", str(tmp_path / "bad.ring"), *where]) == 1
        assert "record 2 does not verify" in capsys.readouterr().err


def test_a_file_of_another_devices_log_is_refused(tmp_path: Path, vectors: Path) -> None:
    with pytest.raises(AuditError, match="record 0 is not"):
        Log.open(vectors / "wire/log.bin", bytes(32)).verify()
