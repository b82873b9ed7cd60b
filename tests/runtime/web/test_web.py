"""The codec in a web page, in headless Chromium: equal to the native one, and refusing what it refuses."""

import base64
import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers.conformance import FOLDER, SIZES, entropy_bin, latent, tokens, vectors
from helpers.entropy import extreme_tables, random_tables
from skimage.data import astronaut

from dlf.runtime import errors, libdlf
from dlf.runtime.codec import Codec
from dlf.runtime.libdlf import EntropyModel

PHOTO = np.ascontiguousarray(astronaut()[:300, :257])
RGBA = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)]).tobytes()
OPEN = "const codec = await dlf.Dlf.open('model/', {threads: 2});\n"
REFUSED = "const refused = work => work().then(() => ['nothing', 0, ''], error => [error.name, error.code, error.message]);\n"


@pytest.fixture(scope="session")
def native(site):
    return Codec(site / "model", backend="onnxruntime", threads=2)


@pytest.fixture(scope="session")
def file(native):
    return native.encode(PHOTO)


def array(text: str, dtype) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_conformance_vectors_are_reproduced(page):
    script = """
    const {Core} = await import(new URL("dlf/core.js", location.href));
    const core = new Core(await WebAssembly.compileStreaming(fetch("dlf/core.wasm")), files.entropy);
    return ["1x1", "255x257", "768x512", "2048x1365"].map(name => {
        const info = core.info(files[name]);
        const found = core.decode(files[name], info);
        const y = new Float32Array(files[`${name}.y`].buffer), tokens = new Uint16Array(files[`${name}.tokens`].buffer);
        const file = core.encode(tokens, y, info.width, info.height, info.fingerprint);
        return {...info, tokens: b64(found.tokens), symbols: b64(found.symbols), y_hat: b64(found.y_hat), file: b64(file)};
    });"""
    files = {"entropy": entropy_bin()}
    for name in SIZES:
        files |= {name: (FOLDER / f"{name}.dlf").read_bytes(), f"{name}.y": latent(name).tobytes()}
        files[f"{name}.tokens"] = tokens(name).tobytes()
    for name, found in zip(SIZES, page.run(script, files), strict=True):
        assert (found["width"], found["height"]) == SIZES[name]
        assert np.array_equal(array(found["tokens"], "<u2"), tokens(name).ravel())
        digest = hashlib.sha256(base64.b64decode(found["y_hat"])).digest()
        assert digest == vectors()[f"{name}.y_hat_sha256"].tobytes()
        if f"{name}.symbols" in vectors():
            assert np.array_equal(array(found["symbols"], "<i4"), vectors()[f"{name}.symbols"].ravel())
        assert base64.b64decode(found["file"]) == files[name]


@pytest.mark.parametrize(("make", "channels"), [(random_tables, 8), (extreme_tables, 8), (extreme_tables, 40)])
def test_the_prior_equals_the_scalar_code(page, monkeypatch, make, channels):
    monkeypatch.setenv("DLF_ISA", "scalar")
    rng = np.random.default_rng(channels)
    native = EntropyModel(make(rng, channels).to_bytes())
    y = (rng.normal(0, 3, (channels, 16, 24)) * rng.choice([1, 100], (channels, 16, 24))).astype(np.float32)
    picked = rng.integers(16, size=(6, 32)).astype(np.uint16)
    detail, y_hat = native.encode_detail_with_reconstruction(y)
    script = """
    const {Core} = await import(new URL("dlf/core.js", location.href));
    const core = new Core(await WebAssembly.compileStreaming(fetch("dlf/core.wasm")), files.entropy);
    const file = core.encode(new Uint16Array(files.tokens.buffer), new Float32Array(files.y.buffer), 768, 512, FINGERPRINT);
    return {file: b64(file), y_hat: b64(core.decode(file, core.info(file)).y_hat)};"""
    script = script.replace("FINGERPRINT", str(native.fingerprint))
    found = page.run(
        script,
        {"entropy": make(np.random.default_rng(channels), channels).to_bytes(), "y": y.tobytes(), "tokens": picked.tobytes()},
    )
    assert base64.b64decode(found["file"]) == native.write_file(768, 512, picked, detail)
    assert base64.b64decode(found["y_hat"]) == y_hat.tobytes()


@pytest.mark.parametrize("model", ["builtin", "model"])
def test_files_pass_both_ways(page, site, file, model):
    native = Codec(site / model, backend="onnxruntime", threads=2)
    script = (
        f"const codec = await dlf.Dlf.open('{model}', {{threads: 2}});"
        + """
    const image = new ImageData(new Uint8ClampedArray(files.rgba.buffer), 257, 300);
    const own = await codec.encode(image);
    const [theirs, preview] = [await codec.decode(files.file), await codec.decode(files.start, {preview: true})];
    const again = await codec.decode(own);
    return {own: b64(own), theirs: b64(theirs.data), preview: b64(preview.data), again: b64(again.data),
            size: [theirs.width, theirs.height], model: codec.model, isolated: crossOriginIsolated};"""
    )
    start = file[: tokens_end(file)]
    found = page.run(script, {"rgba": RGBA, "file": file, "start": start})
    assert found["size"] == [257, 300] and found["isolated"] and found["model"]["threads"] == 2
    own = base64.b64decode(found["own"])
    for shown, expected in (
        ("theirs", native.decode(file)),
        ("preview", native.decode(start, detail=False)),
        ("again", native.decode(own)),
    ):
        pixels = array(found[shown], np.uint8).reshape(300, 257, 4)
        assert (pixels[..., 3] == 255).all()
        assert np.abs(pixels[..., :3].astype(int) - expected).mean() < 0.5, shown


def tokens_end(file: bytes) -> int:
    found = libdlf.parse_file(file, libdlf.Limits())
    return found.header_bytes + found.token_bytes


def damaged(file: bytes) -> dict[str, bytes]:
    """A file for each refusal, by its error's name; all but the first without a checksum or with a true one."""
    flipped = bytearray(file)
    flipped[-5] ^= 1
    detail = tokens_end(file)
    bare = bytes([file[0], file[1] | 0x10]) + file[2:-2]
    return {
        "ChecksumError": bytes(flipped),
        "NotDLFError": b"PNG" + file,
        "UnsupportedVersionError": bytes([0xDF, 0xA0]) + file[2:],
        "TruncatedError": bare[:-1],
        "TrailingBytesError": bare + b"\0",
        "TokensMissingError": bare[:20],
        "WrongModelError": bytes([*bare[:2], bare[2] ^ 1, *bare[3:]]),
        "SizeLimitError": bytes([*bare[:4], 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0x7F]) + bare[8:],
        "StreamCorruptError": bare[:detail] + bytes(4) + bare[detail + 4 :],  # no encoder's state is 0
    }


def test_refusals_of_files_are_the_native_ones(page, native, file):
    files = damaged(file)
    for name, data in files.items():
        with pytest.raises(errors.DLFError) as refused:
            native.decode(data)
        assert type(refused.value).__name__ == name
    script = (
        OPEN
        + REFUSED
        + """
    const found = {};
    for (const name in files) if (name !== "good") found[name] = await refused(() => codec.decode(files[name]));
    found.good = (await codec.decode(files.good)).width;
    found.text = await refused(() => codec.decode("text"));
    found.image = await refused(() => codec.encode({}));
    found.device = await refused(() => dlf.Dlf.open("model", {device: "tpu"}));
    return found;"""
    )
    found = page.run(script, {**files, "good": file})
    assert found.pop("good") == 257  # after all refusals the codec still works
    assert found.pop("text")[:2] == found.pop("device")[:2] == ["InvalidArgumentError", 1]
    assert found.pop("image")[:2] == ["ImageError", 42]
    for name, (said, code, message) in found.items():
        assert (said, code) == (name, getattr(errors, name).code) and message


def test_refusals_of_bundles(page, site):
    def bundle(name: str, manifest=None, **contents: bytes) -> None:
        shutil.copytree(site / "model", site / name, dirs_exist_ok=True)
        for file, data in contents.items():
            (site / name / file.replace("_", ".")).write_bytes(data)
        if manifest is not None:
            known = json.loads((site / name / "manifest.json").read_text())
            (site / name / "manifest.json").write_text(json.dumps(manifest(known)))

    good = (site / "model" / "entropy.bin").read_bytes()
    bundle("short", entropy_bin=good[:-1])
    bundle("changed", entropy_bin=good[:-1] + bytes([good[-1] ^ 1]))
    bundle("unnamed", lambda manifest: manifest | {"files": {}})
    bundle("future", lambda manifest: manifest | {"format_version": 2})
    bundle("broken", manifest_json=b"{")
    script = (
        REFUSED
        + """
    const found = {};
    for (const name of ["short", "changed", "unnamed", "future", "broken", "missing"]) {
        await caches.delete("dlf-files");
        found[name] = await refused(() => dlf.Dlf.open(name));
    }
    return found;"""
    )
    found = page.run(script)
    for name in ("short", "changed", "unnamed"):
        assert found[name][:2] == ["BundleBrokenError", 30], name
    for name in ("future", "broken", "missing"):
        assert found[name][:2] == ["BundleForeignError", 31], name


def test_a_bundle_is_fetched_once(page, file):
    script = (
        OPEN
        + """
    await codec.decode(files.file);
    codec.close();
    const steps = [];
    const second = await dlf.Dlf.open("model", {progress: step => steps.push(step)});
    await second.decode(files.file);
    return steps;"""
    )
    assert page.run(script, {"file": file}) == []


def test_a_page_that_is_not_isolated_decodes_on_one_thread(page, bare_page, file):
    script = OPEN + "return [crossOriginIsolated, codec.model.threads, b64((await codec.decode(files.file)).data)];"
    (*isolated, expected), (*bare, found) = page.run(script, {"file": file}), bare_page.run(script, {"file": file})
    assert (isolated, bare) == ([True, 2], [False, 1])
    assert_close(found, base64.b64decode(expected))


def test_without_an_adapter_of_webgpu_the_cpu_computes(page):
    script = """
    const codec = await dlf.Dlf.open("model/", {device: "gpu"});
    return [await navigator.gpu?.requestAdapter().catch(() => null) ?? null, codec.model.device];"""
    adapter, device = page.run(script)
    if adapter is not None:
        pytest.skip("this Chromium has an adapter of WebGPU")
    assert device == "cpu"


@pytest.fixture(scope="module")
def webgpu_flags(page):
    """With these Chromium has an adapter of WebGPU that computes on the CPU, SwiftShader. It needs minutes for a picture."""
    flags = ["--enable-unsafe-webgpu"]
    if not page.run("return Boolean(await navigator.gpu?.requestAdapter().catch(() => null));", flags=flags):
        pytest.skip("this Chromium has no adapter of WebGPU, not even in software")
    return flags


@pytest.mark.slow
def test_webgpu_decodes_to_the_native_picture(page, native, webgpu_flags):
    file = native.encode(PHOTO[:256, :256])
    script = """
    const codec = await dlf.Dlf.open("model/", {device: "gpu"});
    return [codec.model.device, b64((await codec.decode(files.file)).data)];"""
    device, found = page.run(script, {"file": file}, timeout=3000, flags=webgpu_flags)
    assert device == "gpu"
    pixels = array(found, np.uint8).reshape(256, 256, 4)[..., :3]
    assert np.abs(pixels.astype(int) - native.decode(file)).mean() < 0.5


@pytest.mark.slow
def test_webgpu_encodes_to_the_native_tokens_and_symbols(page, native, webgpu_flags):
    script = """
    const codec = await dlf.Dlf.open("model/", {device: "gpu"});
    const image = new ImageData(new Uint8ClampedArray(files.rgba.buffer), 256, 256);
    return [codec.model.device, b64(await codec.encode(image))];"""
    rgba = np.dstack([PHOTO[:256, :256], np.full((256, 256), 255, np.uint8)]).tobytes()
    device, found = page.run(script, {"rgba": rgba}, timeout=3000, flags=webgpu_flags)
    assert device == "gpu"
    assert base64.b64decode(found) == native.encode(PHOTO[:256, :256])


def assert_close(found: str, expected: bytes) -> None:
    assert np.abs(array(found, np.uint8).astype(int) - np.frombuffer(expected, np.uint8)).mean() < 0.1


@pytest.mark.slow
def test_a_hundred_decodes_take_no_more_memory_than_a_few(page, native):
    script = (
        OPEN
        + """
    const memory = [];
    for (let i = 0; i <= 120; ++i) {
        if (i % 20 === 0) memory.push(await residentMemory());
        await codec.decode(files.file);
    }
    return memory;"""
    )
    memory = page.run(script, {"file": native.encode(PHOTO[:256, :256])}, timeout=1200)
    assert memory[-1] - memory[1] < 16e6, memory  # a decode's picture alone, kept a hundred times, would be 26 MB


def test_names_and_codes_of_errors_are_pythons(page):
    found = page.run("return Object.entries(dlf).filter(([name]) => name.endsWith('Error')).map(([n, c]) => [n, c.code]);")
    assert {"DLFError", "NotDLFError", "BackendFailedError"} < {name for name, _ in found}
    assert all(getattr(errors, name).code == code for name, code in found)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_the_demonstration_page(page, file, tmp_path, theme, width):
    script = """
    const given = new DataTransfer();
    given.items.add(new File([files.file], "photo.dlf"));
    const choose = document.getElementById("choose");
    choose.files = given.files;
    choose.dispatchEvent(new Event("change"));
    const status = document.getElementById("status");
    while (!/Done|photo.dlf:/.test(status.textContent)) await new Promise(done => requestAnimationFrame(done));
    const canvas = document.getElementById("decoded");
    return [status.textContent, canvas.width, canvas.height, canvas.nextElementSibling.textContent,
            document.documentElement.scrollWidth <= innerWidth];"""
    view = {"viewport": {"width": width, "height": 800}, "colorScheme": theme}
    said, *size, caption, fits = page.run(script, {"file": file}, view=view, shot=str(tmp_path / "shot.png"))
    assert (said, size, fits) == ("Done.", [257, 300], True)
    assert caption.startswith(f"{len(file)} bytes")


def test_the_element_shows_the_picture_and_reports_refusals(page, site, file):
    (site / "photo.dlf").write_bytes(file)
    (site / "bad.dlf").write_bytes(file[:-3])
    script = """
    await import(new URL("dlf/dlf-img.js", location.href));
    const show = src => new Promise(done => {
        const element = document.createElement("dlf-img");
        element.onerror = event => done(event.detail.name);
        element.addEventListener("load", () => {
            const canvas = element.shadowRoot.querySelector("canvas");
            done([canvas.width, canvas.height, canvas.getAttribute("aria-label")]);
        });
        Object.entries({src, bundle: "model", alt: "A woman"}).forEach(([name, value]) => element.setAttribute(name, value));
        document.body.append(element);
    });
    return [await show("photo.dlf"), await show("bad.dlf"), await show("none.dlf")];"""
    assert page.run(script) == [[257, 300, "A woman"], "ChecksumError", "ImageError"]
