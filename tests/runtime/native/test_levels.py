"""The generator's levels in libdlf: what they compute, against PyTorch in double, and which lists of them are refused."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundle import make_toy_bundle
from helpers.levels import Step, Weights, add_levels, listed, reference, relist, steps

from dlf.runtime import libdlf, stages
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleBrokenError, InvalidArgumentError
from dlf.runtime.libdlf import Levels

CLOSE = 1e-5  # of the largest value; float32 and F(4x4, 3x3) leave some 4e-6

needs_kernels = pytest.mark.skipif(
    libdlf.library().dlf_levels_isa() is None, reason="libdlf has no kernels of levels for this processor"
)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return make_toy_bundle(tmp_path / "toy")


def opened(bundle: Path, found: list[Step], threads: int = 2) -> Levels:
    """Levels with these steps, in float32, in a bundle."""
    weights = Weights()
    add_levels(bundle, listed(found, weights), weights)
    levels = Bundle(bundle).levels(threads)
    assert levels is not None
    return levels


@needs_kernels
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 4), (4, 16)])  # from 96 columns on a row is several items of work
def test_equal_the_direct_method(toy: Path, height: int, width: int) -> None:
    found = steps(height + width)
    base = np.random.default_rng(width).standard_normal((2, 96, height, width), dtype=np.float32)
    images = opened(toy, found).run(base)
    assert images.shape == (2, 3, 16 * height, 16 * width)
    for image, each in zip(images, base, strict=True):
        expected = reference(found, each)
        assert np.mean(np.abs(expected) < 1) > 0.5  # most of it is not clamped
        assert np.abs(image - expected).max() <= CLOSE * 4


@needs_kernels
@pytest.mark.parametrize(("channels", "width"), [(72, 40), (40, 72), (24, 24)])  # the second has a shortcut to more channels
def test_widths_need_not_fill_vectors(toy: Path, channels: int, width: int) -> None:
    found = steps(channels, channels, width)
    base = np.random.default_rng(width).standard_normal((1, channels, 4, 8), dtype=np.float32)
    expected = reference(found, base[0])
    assert np.mean(np.abs(expected) < 1) > 0.5  # most of it is not clamped
    assert np.abs(opened(toy, found).run(base)[0] - expected).max() <= CLOSE * 4


@needs_kernels
def test_threads_do_not_change_the_image(toy: Path) -> None:
    base = np.random.default_rng(1).standard_normal((1, 96, 4, 8), dtype=np.float32)
    images = [opened(toy, steps(1), threads).run(base) for threads in (1, 2, 7)]
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[2], images[0])


@needs_kernels
def test_norm_of_values_far_from_zero(toy: Path) -> None:
    found = steps(2)
    found[0].bias[:] += 100
    base = np.random.default_rng(2).standard_normal((1, 96, 4, 4), dtype=np.float32)
    assert np.abs(opened(toy, found).run(base)[0] - reference(found, base[0])).max() <= 40 * CLOSE


@needs_kernels
def test_large_values_do_not_overflow_silu(toy: Path) -> None:
    found = steps(3)
    output = found[-1]
    assert output.gamma is not None
    output.gamma[:] = 1e4
    output.weight[:] *= np.float32(1e-4)
    base = np.random.default_rng(3).standard_normal((1, 96, 4, 4), dtype=np.float32)
    expected = reference(found, base[0])
    assert np.mean(np.abs(expected) < 1) > 0.5
    assert np.abs(opened(toy, found).run(base)[0] - expected).max() <= 1e-4


def doubled(kernel: np.ndarray) -> np.ndarray:
    """Weights (outputs, inputs, 3, 3) on a doubled map, as those (inputs, outputs, 4, 4) of a transposed convolution."""
    flipped = kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return sum(np.pad(flipped, ((0, 0), (0, 0), (a, 1 - a), (b, 1 - b))) for a in (0, 1) for b in (0, 1))


@needs_kernels
def test_weights_in_other_forms(toy: Path) -> None:
    """4x4 kernels, float16, and int8 with scales, against PyTorch with the values that they hold."""
    rng = np.random.default_rng(4)
    found, weights = steps(4), Weights()
    entries = listed(found, weights)
    forms = {}
    for at in (0, 3, 4, 6, 7, 8):
        values = found[at].weight
        if at == 0:
            entries[at]["weight"] = weights.add(doubled(values))
        elif at == 3:
            halves = values.astype(np.float16)
            halves[0, 0] = np.float16([[6e-8, -6e-8, 6e-5], [0, -0.0, 1e-5], [65504, 1, -1]])  # subnormal, largest
            halves[0, 0, 2, 0] = np.float16(0.5)
            forms[at] = halves.astype(np.float32)
            entries[at]["weight"] = weights.add(halves)
        else:
            scale = rng.uniform(1e-3, 4e-3, values.shape[0]).astype(np.float32)
            axis = 1 if at in (4, 7) else 0
            source = doubled(values) if axis else values
            spread = scale.reshape((1, -1, 1, 1) if axis else (-1, 1, 1, 1))
            # Kernels of 4x4 are exact sums in int8, so that the kernel is found again exactly.
            rounded = np.clip(np.rint(values / scale.reshape(-1, 1, 1, 1)), -31, 31)
            integers = doubled(rounded) if axis else rounded
            assert integers.shape == source.shape
            assert np.abs(integers).max() <= 127
            forms[at] = (rounded * scale.reshape(-1, 1, 1, 1)).astype(np.float32)
            assert spread.shape[axis] == len(scale)
            entries[at]["weight"] = weights.add(integers.astype(np.int8), scale)
    add_levels(toy, entries, weights)
    levels = Bundle(toy).levels(2)
    assert levels is not None
    held = [Step(each.kind, forms.get(at, each.weight), each.bias, each.gamma, each.beta) for at, each in enumerate(found)]
    base = rng.standard_normal((1, 96, 4, 4), dtype=np.float32)
    expected = reference(held, base[0])
    assert np.mean(np.abs(expected) < 1) > 0.5
    assert np.abs(levels.run(base)[0] - expected).max() <= CLOSE * 10


def test_there_are_none_without_a_list(toy: Path) -> None:
    assert Bundle(toy).levels(1) is None


def test_there_are_none_in_scalar_code(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights()
    add_levels(toy, listed(steps(0), weights), weights)
    monkeypatch.setenv("DLF_ISA", "scalar")
    assert Bundle(toy).levels(1) is None


@needs_kernels
def test_map_of_another_shape_is_refused(toy: Path) -> None:
    levels = opened(toy, steps(0))
    assert (levels.channels, levels.stage) == (96, "generator_base")
    for shape in ((1, 64, 4, 4), (1, 96, 4, 6), (1, 96, 5, 4), (96, 4, 4)):
        with pytest.raises(InvalidArgumentError):
            levels.run(np.zeros(shape, np.float32))


Entries = list[dict[str, Any]]


def changed(at: int, *keys: str, to: Any) -> Callable[[Entries], Any]:
    """Replace a value within a step's entry."""

    def change(entries: Entries) -> None:
        inner: Any = entries[at]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return change


REFUSED: list[tuple[Callable[[Entries], Any], str]] = [
    (lambda entries: entries.clear(), "no steps"),
    (lambda entries: entries.extend([entries[0]] * 250), "more than 256"),
    (changed(0, "kind", to="third"), "step 0 is of a kind"),
    (changed(0, "weight", "dtype", to="float64"), "dtype"),
    (changed(0, "weight", "shape", to=[96, 96, 9]), "neither 1 nor 4 dimensions"),
    (changed(0, "weight", "shape", to=[96, 96, 3, 4]), "not one of its kind"),
    (changed(1, "weight", "shape", to=[96, 64, 4, 4]), "not one of its kind"),
    (changed(2, "weight", "shape", to=[64, 96, 3, 3]), "not one of its kind"),
    (changed(0, "weight", "shape", to=[96, 96, 3, 0]), "shape with sides from 1"),
    (changed(0, "weight", "shape", to=[96, 1 << 17, 3, 3]), "shape with sides from 1"),
    (changed(0, "weight", "shape", to=[96, -96, 3, 3]), "shape with sides from 1"),
    (changed(0, "weight", "offset", to=-1), "without an offset"),
    (changed(0, "weight", "offset", to=1 << 63), "does not lie within the file"),
    (changed(0, "weight", "offset", to=2**64 - 1), "does not lie within the file"),
    (changed(0, "bias", "shape", to=[95]), "bias that is no vector of 96"),
    (changed(0, "bias", "dtype", to="int8"), "bias that is no vector of 96 floats"),
    (changed(0, "weight", "dtype", to="int8"), "scale"),
    (changed(1, "groups", to=7), "do not divide"),
    (changed(1, "groups", to=0), "groups from 1"),
    (changed(1, "epsilon", to=0), "no epsilon"),
    (changed(1, "epsilon", to=1e300), "no epsilon"),
    (changed(1, "epsilon", to="small"), "lacks or garbles"),
    (changed(1, "gamma", "shape", to=[64]), "gamma that is no vector"),
    (changed(1, "beta", "shape", to=[64]), "beta that is no vector"),
    (lambda entries: entries[1].pop("gamma"), "lacks or garbles"),
    (lambda entries: entries.pop(0), "double the map 3 times"),
    (lambda entries: entries.pop(1), "step 1 is out of order"),
    (lambda entries: entries.insert(2, entries[2]), "step 3 is out of order"),
    (lambda entries: entries.pop(3), "step 3 is out of order"),
    (lambda entries: entries.pop(), "step 8 is out of order"),
    (lambda entries: entries.pop(2), "step 2 has a weight that does not fit"),
    (lambda entries: entries.append(entries[-1]), "step 9 is out of order"),
    (lambda entries: entries.__setitem__(slice(5, 7), entries[5:7] * 100), "together are larger"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_list_that_breaks_the_rules_is_refused(toy: Path, change: Callable[[Entries], Any], reason: str) -> None:
    weights = Weights()
    entries = listed(steps(0), weights)
    add_levels(toy, entries, weights)
    Bundle(toy)
    broken = copy.deepcopy(entries)
    change(broken)
    relist(toy, broken)
    with pytest.raises(BundleBrokenError, match=rf"manifest\.json .*{reason}"):
        Bundle(toy)


@pytest.mark.parametrize(("field", "value"), [("stage", "nowhere"), ("file", "nowhere.data"), ("stage", 1), ("steps", {})])
def test_list_of_what_is_not_there_is_refused(toy: Path, field: str, value: Any) -> None:
    weights = Weights()
    entries = listed(steps(0), weights)
    add_levels(toy, entries, weights)
    relist(toy, entries, **{field: value})
    with pytest.raises(BundleBrokenError, match=r"manifest\.json"):
        Bundle(toy)


def test_image_of_other_colours_is_refused(toy: Path) -> None:
    weights = Weights()
    found = steps(0)
    entries = listed([*found[:-1], Step("output", *four(found[-1]))], weights)
    add_levels(toy, entries, weights)
    with pytest.raises(BundleBrokenError, match="step 9 has a weight that does not fit"):
        Bundle(toy)


def four(each: Step) -> tuple[Any, ...]:
    """An output of four channels."""
    return np.resize(each.weight, (4, *each.weight.shape[1:])), np.resize(each.bias, 4), each.gamma, each.beta


@needs_kernels
@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_damaged_file_of_weights_is_refused(toy: Path, damage: Callable[[bytes], bytes]) -> None:
    opened(toy, steps(0))
    file = toy / "levels.data"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BundleBrokenError, match=r"levels\.data"):
        Bundle(toy).levels(1)


@needs_kernels
def test_finish_the_generator_of_backends_on_the_cpu(toy: Path, backend: str) -> None:
    levels = opened(toy, steps(5))
    bundle, opened_backend = Bundle(toy), open_backend(backend, 1)
    latent = np.random.default_rng(5).standard_normal((2, 3, 16, 16)).astype(np.float32)
    base = opened_backend.load(bundle, "generator_base")({"latent": latent})["base"]
    whole = opened_backend.load(bundle, "generator")({"latent": latent})["image"]
    image = stages.load(opened_backend, bundle, "generator")({"latent": latent})["image"]
    np.testing.assert_array_equal(image, levels.run(base))
    assert np.abs(image - whole).max() > 0.5  # the toy's whole graph computes something else
    opened_backend.on_cpu = False
    np.testing.assert_array_equal(stages.load(opened_backend, bundle, "generator")({"latent": latent})["image"], whole)


@needs_kernels
def test_base_of_another_shape_is_refused(toy: Path, backend: str) -> None:
    opened(toy, steps(0))
    file = toy / "generator_base.onnx"
    entries = json.loads((toy / "manifest.json").read_text())["stages"]["generator"]["levels"]["steps"]
    weights = Weights()
    add_levels(toy, listed(steps(0, base=32), weights), weights)
    narrow = file.read_bytes()
    opened(toy, steps(0))
    file.write_bytes(narrow)
    relist(toy, entries)
    latent = np.zeros((1, 3, 16, 16), np.float32)
    with pytest.raises(BundleBrokenError, match=r"generator_base gives \(1, 32, 16, 16\) as base, not \(1, 96, 16, 16\)"):
        stages.load(open_backend(backend, 1), Bundle(toy), "generator")({"latent": latent})


def group(root: Path, path: str, **files: str) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_max", ".max").replace("cfs_", "cpu.cfs_")).write_text(content)


def usable(root: Path, groups: str) -> int:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    return int(libdlf.library().dlf_usable_processors(os.fsencode(root)))


def test_processors_are_those_of_the_affinity(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    assert usable(tmp_path, "") == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert libdlf.usable_processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)


several = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one processor only")


@several
@pytest.mark.parametrize(
    ("path", "maximum", "expected"),
    [("", "100000 100000", 1), ("a/b", "50000 100000", 1), ("a", "150000 100000", 2), ("a/b", "max 100000", None)],
)
def test_quota_of_a_group_or_one_around_it(tmp_path: Path, path: str, maximum: str, expected: int | None) -> None:
    group(tmp_path, path, cpu_max=maximum)
    assert usable(tmp_path, "0::/a/b\n") == (expected or len(os.sched_getaffinity(0)))


@several
@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", None)])
@pytest.mark.parametrize("path", ["cpu,cpuacct/a", "cpu,cpuacct"])  # the second: as a container sees it
def test_quota_of_version_1(tmp_path: Path, path: str, quota: str, expected: int | None) -> None:
    group(tmp_path, path, cfs_quota_us=quota, cfs_period_us="100000")
    assert usable(tmp_path, "4:memory:/a\n3:cpu,cpuacct:/a\n") == (expected or len(os.sched_getaffinity(0)))
