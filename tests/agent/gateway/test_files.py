"""The folder that Envoy follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inferd_agent.errors import ConfigError
from inferd_agent.gateway import bootstrap, files
from inferd_agent.gateway.files import Files
from inferd_agent.gateway.settings import read_settings
from tests.agent.gateway.devices import member


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files in the order in which they were written."""
    names: list[str] = []
    really = files.write_atomically

    def note(path: Path, data: bytes, *, mode: int) -> None:
        names.append(path.name)
        assert mode == 0o600
        really(path, data, mode=mode)

    monkeypatch.setattr(files, "write_atomically", note)
    return names


def test_trust_is_written_before_endpoints_and_only_what_changed(tmp_path: Path, written: list[str]) -> None:
    """Envoy reads a file whenever it is replaced, so it is replaced only for a reason."""
    folder = Files(tmp_path / "gw")
    assert folder.update([])
    assert folder.update([member("a", anchors="CA")])
    assert written == [bootstrap.CLUSTERS, bootstrap.ENDPOINTS] * 2
    assert not folder.update([member("a", anchors="CA")])
    assert folder.update([member("a", anchors="CA", state="draining")])
    assert written[4:] == [bootstrap.ENDPOINTS]
    found = json.loads((tmp_path / "gw" / bootstrap.ENDPOINTS).read_text())
    assert found["resources"][0]["endpoints"][0]["lb_endpoints"][0]["health_status"] == "DRAINING"
    folder.close()


def test_what_never_changes_is_written_once(tmp_path: Path, written: list[str]) -> None:
    """The bootstrap, and where the certificate lies if there is one."""
    folder = Files(tmp_path)
    folder.prepare(read_settings("tcp:127.0.0.1:1", cert="/c.pem", key="/k.pem"))
    assert written == [bootstrap.BOOTSTRAP, bootstrap.CERTIFICATE]
    assert "PRIVATE KEY" not in (tmp_path / bootstrap.CERTIFICATE).read_text()
    folder.close()


def test_a_folder_has_one_gateway(tmp_path: Path) -> None:
    """Two would overwrite each other's files; the second is told to take another folder."""
    first = Files(tmp_path)
    with pytest.raises(ConfigError, match="another gateway"):
        Files(tmp_path)
    first.close()
    Files(tmp_path).close()
