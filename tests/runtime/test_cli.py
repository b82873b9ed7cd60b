import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

import dlf
from dlf.runtime.bundles import builtin
from dlf.runtime.cli import app

FIELDS = {"width", "height", "version", "fingerprint", "tiles", "bytes", "bpp", "padding_waste", "exif", "xmp"}


@pytest.fixture
def work(tmp_path, toy_bundle, monkeypatch) -> Path:
    """A folder with a.png, b.jpg and c.dlf, in which the command runs, with a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLF_MODEL", str(toy_bundle))
    Image.fromarray(picture()).save("a.png")
    Image.fromarray(picture(seed=1)).save("b.jpg")
    Path("c.dlf").write_bytes(dlf.Codec(toy_bundle).encode(picture(seed=2)))
    return tmp_path


def picture(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def pixels(source: Path | bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(source) if isinstance(source, bytes) else source))


# ------------------------------------------------------------------------------------------------------------- results


def test_results_lie_beside_their_inputs(work, toy_bundle):
    assert run("encode", "a.png", "b.jpg").exit_code == 0
    assert files(work) == {"a.png", "b.jpg", "c.dlf", "a.dlf", "b.dlf"}
    codec = dlf.Codec(toy_bundle)
    assert (work / "a.dlf").read_bytes() == codec.encode(work / "a.png")
    assert run("decode", "c.dlf").exit_code == 0
    assert np.array_equal(pixels(work / "c.png"), codec.decode((work / "c.dlf").read_bytes()))


def test_pictures_go_into_pipes_that_have_a_name(work, toy_bundle):
    reader, writer = os.pipe()
    assert run("decode", "c.dlf", "-o", f"/dev/fd/{writer}").exit_code == 0
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert np.array_equal(pixels(file.read()), dlf.Codec(toy_bundle).decode((work / "c.dlf").read_bytes()))


def test_one_result_goes_to_the_file_that_is_named(work):
    assert run("encode", "a.png", "-o", "sub.dlf").exit_code == 0
    assert dlf.info((work / "sub.dlf").read_bytes()).width == 40
    assert run("decode", "sub.dlf", "-o", "out.bmp").exit_code == 0
    assert Image.open(work / "out.bmp").format == "BMP"


def test_the_device_can_be_named(work):
    assert run("encode", "a.png", "--device", "cpu").exit_code == 0
    assert run("decode", "c.dlf", "--device", "gpu").exit_code == 2
    assert run("decode", "c.dlf", "--device", "cpu", "--backend", "tensorrt").exit_code == 2


@pytest.mark.parametrize("inputs", [["a.png", "b.jpg"], ["a.png"]])
def test_results_go_to_a_folder_that_is_made(work, inputs):
    assert run("encode", *inputs, "-o", "new/folder/").exit_code == 0
    assert files(work / "new" / "folder") == {Path(name).stem + ".dlf" for name in inputs}


def test_one_result_goes_to_a_folder_that_is_there(work):
    (work / "there").mkdir()
    assert run("decode", "c.dlf", "-o", "there").exit_code == 0
    assert files(work / "there") == {"c.png"}


def test_png_level_changes_the_size_of_the_file_and_no_pixel(work):
    found = {}
    for level in ("0", "1", "9"):
        assert run("decode", "c.dlf", "-o", f"{level}.png", "--png-level", level).exit_code == 0
        found[level] = (work / f"{level}.png").read_bytes()
    assert run("decode", "c.dlf").exit_code == 0
    assert (work / "c.png").read_bytes() == found["1"]
    assert len(found["0"]) > len(found["1"]) > len(found["9"])
    assert all(np.array_equal(pixels(data), pixels(found["0"])) for data in found.values())


def test_preview_of_a_file_that_is_cut_off(work, toy_bundle):
    whole = (work / "c.dlf").read_bytes()
    assert run("decode", "-", "-o", "cut.png", stdin=whole[:-5]).exit_code == 1
    result = run("decode", "--preview", "-", "-o", "cut.png", stdin=whole[:-5])
    assert result.exit_code == 0
    assert "(a preview)" in result.stderr
    assert np.array_equal(pixels(work / "cut.png"), dlf.Codec(toy_bundle).decode(whole, detail=False))


def test_standard_input_and_output_carry_files(work, toy_bundle):
    encoded = run("encode", "-", stdin=(work / "a.png").read_bytes())
    assert encoded.exit_code == 0
    assert encoded.stdout_bytes == dlf.Codec(toy_bundle).encode(work / "a.png")
    decoded = run("decode", "-", stdin=encoded.stdout_bytes)
    assert pixels(decoded.stdout_bytes).shape == (30, 40, 3)
    assert run("info", "-", stdin=encoded.stdout_bytes).stdout.startswith("-: 40x30, ")
    assert files(work) == {"a.png", "b.jpg", "c.dlf"}


def test_input_and_output_can_be_redirected_one_by_one(work):
    assert run("encode", "a.png", "-o", "-").stdout_bytes[0] == 0xDF
    assert run("encode", "-", "-o", "x.dlf", stdin=(work / "a.png").read_bytes()).stdout_bytes == b""
    assert run("encode", "-", "b.jpg", "-o", "folder", stdin=(work / "a.png").read_bytes()).exit_code == 0
    assert files(work) == {"a.png", "b.jpg", "c.dlf", "x.dlf", "folder/stdin.dlf", "folder/b.dlf"}


def test_model_option_wins_over_the_variable(work, toy_bundle, monkeypatch):
    monkeypatch.setenv("DLF_MODEL", "nowhere")
    assert run("encode", "a.png", "--model", str(toy_bundle)).exit_code == 0


def test_backend_and_threads_are_used(work, backend):
    result = run("encode", "a.png", "--backend", backend, "--threads", "1", "-v")
    assert result.exit_code == 0
    assert f"on {backend} (" in result.stderr


def test_overwriting_is_asked_for(work):
    (work / "a.dlf").write_bytes(b"precious")
    refused = run("encode", "a.png", "b.jpg")
    assert refused.exit_code == 1
    assert "dlf: a.png: a.dlf exists; use --overwrite" in refused.stderr
    assert (work / "a.dlf").read_bytes() == b"precious"
    assert (work / "b.dlf").exists()
    assert run("encode", "a.png", "--overwrite").exit_code == 0
    assert (work / "a.dlf").read_bytes()[0] == 0xDF


# ------------------------------------------------------------------------------------------------------------- reports


def test_a_line_a_file_tells_what_was_done(work):
    result = run("encode", "a.png", "b.jpg")
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    size = (work / "a.dlf").stat().st_size
    assert lines[0].startswith(f"a.png -> a.dlf: 40x30, {size} bytes, {size * 8 / 1200:.4f} bpp, ")
    assert lines[0].endswith((", openvino", ", onnxruntime"))
    assert lines[1].startswith("b.jpg -> b.dlf: ")
    assert len(lines) == 2


@pytest.mark.parametrize(("command", "inputs"), [("encode", ["a.png", "b.jpg"]), ("decode", ["c.dlf"])])
def test_json_describes_every_file_on_a_line(work, command, inputs):
    result = run(command, *inputs, "--json")
    assert result.stderr == ""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["input"] for line in lines] == inputs
    for line in lines:
        coded = line["output"] if command == "encode" else line["input"]
        assert line["bytes"] == (work / coded).stat().st_size
        assert (line["width"], line["height"]) == (40, 30)
        assert line["bpp"] == pytest.approx(line["bytes"] * 8 / 1200)
        assert line["backend"] in ("openvino", "onnxruntime")
        assert line["seconds"] > 0


def test_info_needs_no_model(work, monkeypatch):
    monkeypatch.delenv("DLF_MODEL")
    size = (work / "c.dlf").stat().st_size
    line = run("info", "c.dlf").stdout
    assert line.startswith(f"c.dlf: 40x30, {size} bytes (6 header, 24 tokens, {size - 32} detail, 2 checksum), ")
    found = json.loads(run("info", "--json", "c.dlf").stdout)
    assert found.keys() == FIELDS | {"file"}
    assert found.pop("file") == "c.dlf"
    assert found == dlf.info((work / "c.dlf").read_bytes()).to_dict()


def test_warnings_name_the_file(work):
    Image.new("RGBA", (4, 4)).save("clear.png")
    result = run("encode", "clear.png")
    assert "dlf: clear.png: has transparent parts" in result.stderr


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_help_shows_examples(command):
    text = run(command, "--help").stdout
    assert "Examples:" in text
    assert text.partition("Examples:")[2].count(f"dlf {command} ") >= 2


def test_version_is_printed():
    assert run("--version").stdout == f"dlf {dlf.__version__}\n"


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_failed_file_does_not_stop_the_others(work):
    Path("broken.png").write_text("no image")
    result = run("encode", "none.png", "broken.png", "a.png")
    assert result.exit_code == 1
    assert "dlf: none.png: cannot be read (No such file or directory)" in result.stderr
    assert "dlf: broken.png: not an image" in result.stderr
    assert "Traceback" not in result.stderr
    assert files(work) == {"a.png", "b.jpg", "c.dlf", "broken.png", "a.dlf"}


@pytest.mark.parametrize("command", ["decode", "info"])
def test_files_that_are_not_dlf_fail(work, command):
    result = run(command, "a.png", "none.dlf", "c.dlf", *(["-o", "out"] if command == "decode" else []))
    assert result.exit_code == 1
    assert "dlf: a.png: it starts with byte 0x89" in result.stderr
    assert "dlf: none.dlf: No such file or directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_traceback_is_shown_on_request(work):
    assert "Traceback" in run("encode", "none.png", "-v").stderr


def test_bug_is_reported_without_a_traceback(work, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(dlf.Codec, "encode", fail)
    result = run("encode", "a.png")
    assert (result.exit_code, result.stderr) == (1, "dlf: a.png: unexpected ZeroDivisionError: oops\n")


def test_format_that_cannot_be_written_is_refused_before_decoding(work, monkeypatch):
    monkeypatch.setattr(dlf.Codec, "decode", None)
    result = run("decode", "c.dlf", "-o", "out.xyz")
    assert result.exit_code == 1
    assert "suffix '.xyz'" in result.stderr


@pytest.mark.parametrize("option", ["--max-pixels", "--max-side"])
@pytest.mark.parametrize(("command", "name"), [("encode", "a.png"), ("decode", "c.dlf"), ("info", "c.dlf")])
def test_limits_can_be_set(work, option, command, name):
    result = run(command, name, option, "39")
    assert result.exit_code == 1
    assert "40x30" in result.stderr
    assert run(command, name, option, "1200").exit_code == 0


def test_missing_output_folder_is_named_before_the_work(work, monkeypatch):
    monkeypatch.setattr(dlf.Codec, "encode", None)
    result = run("encode", "a.png", "-o", "nothere/x.dlf")
    assert result.exit_code == 1
    assert "nothere: there is no such folder" in result.stderr


@pytest.mark.parametrize("name", [".", "/", "", ".."])
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_names_that_are_no_files_are_wrong_usage(work, command, name):
    assert run(command, name).exit_code == 2


def test_name_is_not_read_as_an_emoji(work):
    Path("a.png").rename("x:100:y.png")
    assert "x:100:y.png -> x:100:y.dlf" in run("encode", "x:100:y.png").stderr


def test_bundle_that_is_none_fails(work):
    result = run("encode", "a.png", "--model", "nowhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("dlf: nowhere is not a bundle")


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_interrupt_leaves_no_file(work, monkeypatch, failing):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, failing, interrupt)
    assert run("encode", "a.png", "b.jpg").exit_code == 130
    assert files(work) == {"a.png", "b.jpg", "c.dlf"}


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ([], "Usage"),
        (["encode"], "FILE"),
        (["paint", "a.png"], "paint"),
        (["encode", "a.png", "--backend", "abacus"], "openvino, onnxruntime"),
        (["encode", "a.png", "--threads", "0"], "--threads"),
        (["encode", "a.png", "a.png"], "twice"),
        (["encode", "-", "-"], "twice"),
        (["encode", "a.png", "b.jpg", "-o", "-"], "one result"),
        (["encode", "-", "--json"], "--json"),
        (["encode", "a.png", "b.jpg", "-o", "c.dlf"], "folder"),
        (["encode", "a.png", "x/a.jpg", "-o", "out"], "both be written to out/a.dlf"),
        (["encode", "a.png", "a.jpg"], "both be written to a.dlf"),
    ],
)
def test_wrong_usage_is_told(work, arguments, fact):
    result = run(*arguments)
    assert result.exit_code == 2
    assert fact in result.output
    assert "a.dlf" not in files(work)


def test_without_a_model_the_builtin_one_is_used_and_named(work, monkeypatch):
    monkeypatch.delenv("DLF_MODEL")
    assert run("encode", "a.png").exit_code == 0
    assert f"model {builtin.fingerprint()} (built-in, licence: {builtin.license()})" in run("info", "a.dlf").stdout


def test_info_calls_no_other_model_builtin(work):
    assert run("encode", "a.png").exit_code == 0
    assert "built-in" not in run("info", "a.dlf").stdout


def test_installed_command_keeps_streams_apart(work, toy_bundle):
    """In its own process: bytes on stdout, text on stderr."""
    command = [sys.executable, "-c", "from dlf.runtime.cli import main; main()"]
    with open("a.png", "rb") as image:
        done = subprocess.run([*command, "encode", "-"], stdin=image, capture_output=True, check=True, env=os.environ)
    assert dlf.info(done.stdout).width == 40
    assert done.stderr.startswith(b"- -> -: 40x30, ")
