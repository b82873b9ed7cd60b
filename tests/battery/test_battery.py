"""The battery itself, at a small part of its counts: its parts find nothing wrong, and find what is made wrong."""

import json

import pytest
from helpers.c import picture as other_picture

import battery.damage
import battery.threads
from battery.__main__ import PARTS, main


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_small_part_finds_nothing_wrong(part, tmp_path, capsys):
    if part in ("threads", "agreement", "soak"):
        pytest.importorskip("openvino")
    assert main([part, "--scale", "0.005", "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())[part]
    assert figures["figures"]
    assert figures["wrong"] == []
    assert f"{part}: right" in capsys.readouterr().out


def test_damage_that_is_accepted_is_wrong(monkeypatch, toy_bundle, tmp_path):
    monkeypatch.setattr(battery.damage, "decode", lambda *arguments: None)
    monkeypatch.setattr(battery.damage, "SIZES", (20,))
    result = battery.damage.run(0.001, toy_bundle, tmp_path)
    assert result.wrong
    assert result.figures["accepted"] == len(result.wrong)


def test_thread_that_gives_something_else_is_wrong(monkeypatch, toy_bundle, tmp_path):
    pytest.importorskip("openvino")
    monkeypatch.setattr(battery.threads, "Context", Wrong)
    result = battery.threads.run(0.01, toy_bundle, tmp_path)
    assert [fact.split(":")[0] for fact in result.wrong] == ["C"]


class Wrong:
    """A codec whose pictures are of another image."""

    def __init__(self, model):
        pass

    def encode(self, pixels):
        return b""

    def decode(self, data):
        return other_picture(8, 8)


def test_unknown_part_is_refused():
    with pytest.raises(SystemExit):
        main(["unknown"])
