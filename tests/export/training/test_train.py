"""The training loop on random images: it runs through its stages, learns, resumes exactly and writes a loadable checkpoint."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dlf.export.checkpoint import GROUPS_KEY, load_checkpoint
from dlf.export.model import Config
from dlf.export.training import ablation, stages
from dlf.export.training.ablation import Part
from dlf.export.training.adversary import Discriminator
from dlf.export.training.data import Photographs, build_cache, pack_crops
from dlf.export.training.optimiser import Optimiser, orthogonalise, schedule
from dlf.export.training.stages import Losses, Nets, Stage, Verdict
from dlf.export.training.train import Settings, Trainer, app
from dlf.runtime.errors import CheckpointError, InvalidArgumentError

BUILTIN = Path(__file__).parents[3] / "export" / "training" / "builtin.toml"
TINY = Config(
    vit_width=64,
    vit_layers=1,
    codebook_size=16,
    codebook_dim=4,
    detail_width=64,
    detail_channels=8,
    encoder_insertions=(0,),
    decoder_insertions=(0,),
    insertion_depth=1,
    adaptor_width=64,
    vqgan_codebook_size=16,
    vqgan_codebook_dim=8,
    vqgan_width=8,
    vqgan_multipliers=(1, 1, 1, 1, 1),
    vqgan_blocks=1,
    vqgan_groups=2,
)


class Judge(Losses):
    """Stands for the perceptual networks, which a test must not fetch: pixels alone, and a critic of pixels alone."""

    def __init__(self) -> None:
        distance = lambda a, b: (a - b).abs().mean((1, 2, 3))  # noqa: E731
        super().__init__(alexnet=distance, vgg16=distance)  # type: ignore[arg-type]

    def gradient(
        self,
        stage: Stage,
        critic: Discriminator,
        image: torch.Tensor,
        output: torch.Tensor,
        rng: torch.Generator,
        texture: torch.Tensor | None = None,
    ) -> Verdict:
        leaf = output.detach().requires_grad_()
        error = (image - leaf).abs().mean()
        (gradient,) = torch.autograd.grad(error, leaf)
        critic_total = critic.pixels(image).square().mean() + sum(p.sum() * 0 for p in critic.parameters())
        return Verdict(gradient, critic_total, {"pixel": error.detach()})


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for i in range(4):
        small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
        small.resize((400, 300), Image.Resampling.BICUBIC).save(tmp_path / "photographs" / f"{i}.png")
    assert build_cache([tmp_path / "photographs"], tmp_path / "cache", 280) == 4
    return Photographs.open(tmp_path / "cache", held_out=4)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """A configuration of the stages of some kinds, each of a few steps, from random weights in a file."""
    torch.manual_seed(5)
    config = replace(TINY, vit_layers=2)
    save_file(Nets(config).model.state_dict(), tmp_path / "start.safetensors", {GROUPS_KEY: "2"})

    def make(*kinds: str, steps: int = 3) -> Settings:
        stage = {"minutes": steps / 60, "lr": 0.002, "tiles": 2, "detail_bpp": 0.03, "detail_dropout": 0.5, "proxy": 1.0}
        return replace(
            Settings.read(BUILTIN),
            model=config,
            start=str(tmp_path / "start.safetensors"),
            stages=tuple(Stage(name=kind, kind=kind, **stage) for kind in kinds),  # type: ignore[arg-type]
            revive_steps=2,
            judge_minutes=1.0,
            proxy_tiles=8,
            taught_tiles=8,
        )

    return make


def trainer(config: Settings, photographs: Photographs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A trainer whose clock advances a second a step."""
    monkeypatch.setattr(stages.Losses, "make", staticmethod(lambda device: Judge()))
    return Trainer(config, photographs, folder, clock=itertools.count().__next__)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_all_stages_run_and_leave_a_checkpoint(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("generator", "proxy", "decoder", "finetune")
    config = replace(config, stages=(*config.stages, replace(config.stages[-1], name="windows", window=4)))
    run = trainer(config, photographs, tmp_path / "run", monkeypatch)
    run.run()
    lines = log(tmp_path / "run")
    assert all(np.isfinite(v) for line in lines for k, v in line.items() if k != "stage")
    assert {line["stage"] for line in lines} == {"generator", "proxy", "decoder", "finetune", "windows"}
    assert sum("lr" in line for line in lines) == 15
    assert all(1 <= line["token_perplexity"] <= 16.01 for line in lines if "token_perplexity" in line)
    model = load_checkpoint(tmp_path / "run" / "windows.safetensors")
    assert model.config == config.model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, run.shadow[name]), name


@pytest.mark.parametrize("part", Part)
def test_a_model_without_a_part_is_trained_from_the_weights_of_the_whole(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    config = settings("finetune")
    config = replace(config, model=ablation.without(config.model, part), without=part)
    if part is Part.DETAIL:
        config = replace(config, stages=(replace(config.stages[0], detail_dropout=1.0, detail_bpp=0.0),))
    run = trainer(config, photographs, tmp_path / "run", monkeypatch)
    given, begun = load_file(config.start), run._weights()
    assert all(torch.equal(begun[name], given[name]) for name in begun.keys() & given.keys()) == (part is not Part.DETAIL)
    run.run()
    model = ablation.load(tmp_path / "run" / "finetune.safetensors")
    assert model.config == config.model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, run.shadow[name]), name
    rates = [line["detail_bpp"] for line in log(tmp_path / "run") if "lr" in line]
    assert len(rates) == 3 and all(np.isfinite(rates))
    expected = {Part.DETAIL: 0.0, Part.SCALAR: 0.03125}
    assert part not in expected or rates == [expected[part]] * 3


def test_a_configuration_without_detail_drops_it_from_every_tile() -> None:
    for stage in Settings.read(BUILTIN, Part.DETAIL).stages:
        assert (stage.detail_dropout, stage.detail_bpp) == (1.0, 0.0)


def test_a_stage_moves_what_it_trains_and_nothing_else(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(settings("generator"), photographs, tmp_path / "run", monkeypatch)
    before = run._weights()
    run.run()
    moved = {name.split(".")[0] for name, tensor in run.nets.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"vqgan"}


def test_tokens_learn_their_codes_and_the_decoder_to_read_them(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(settings("proxy", steps=36), photographs, tmp_path / "run", monkeypatch).run()
    for distance in ("tokens", "latent_kept"):
        distances = [line[distance] for line in log(tmp_path / "run") if distance in line]
        assert np.mean(distances[-10:]) < 0.8 * np.mean(distances[:10]), distance


def test_the_decoder_learns_what_it_is_taught(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("decoder", steps=30)
    run = trainer(
        replace(config, stages=(replace(config.stages[0], hybrid=(0.3, 0.3)),)), photographs, tmp_path / "run", monkeypatch
    )
    before = run._weights()
    run.run()
    distances = [line["latent_kept"] for line in log(tmp_path / "run") if "latent_kept" in line]
    assert np.mean(distances[-5:]) < 0.8 * np.mean(distances[:5])
    moved = {name for name, tensor in run.nets.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in moved} == {"decoder", "quantize_feat", "titok_in", "feat_in", "merge", "ffn"}
    assert not any(part in name for name in moved for part in ("enc_", "prior_vec", "spatial_prior"))


@pytest.mark.parametrize("first", ["generator", "proxy", "decoder"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    first: str, settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(first, "finetune", steps=4)
    whole = trainer(config, photographs, tmp_path / "whole", monkeypatch)
    whole.run()
    part = trainer(config, photographs, tmp_path / "part", monkeypatch)
    part.run(minutes=2 / 60)
    assert part.stage_step == 2
    resumed = trainer(config, photographs, tmp_path / "part", monkeypatch)
    resumed.run()
    found = resumed.nets.state_dict()
    for name, tensor in whole.nets.state_dict().items():
        assert torch.equal(tensor, found[name]), name
    assert resumed.rate_weight == whole.rate_weight


def test_weights_are_judged_on_photographs_of_any_size(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = settings("generator").start  # random weights: their tokens swapped or alone give pictures as far from the photograph
    monkeypatch.setattr(stages.Losses, "make", staticmethod(lambda device: Judge()))
    result = CliRunner().invoke(app, ["judge", start, *map(str, sorted((tmp_path / "photographs").iterdir()))])
    figures = json.loads(result.stdout)
    assert 0 < figures["lpips_alexnet"] < 2
    assert figures["lpips_alexnet_tokens_swapped"] == figures["lpips_alexnet"]  # a picture of one tile has no other
    assert figures["lpips_alexnet_tokens_alone"] != figures["lpips_alexnet"]
    assert 1 <= figures["token_perplexity"] <= TINY.codebook_size


def test_weights_of_another_size_are_refused(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("generator")
    larger = trainer(replace(config, model=replace(config.model, codebook_size=32)), photographs, tmp_path / "a", monkeypatch)
    assert len(larger.nets.model.hybrid_codec.quantize.embedding.weight) == 32  # the one part that may change
    with pytest.raises(CheckpointError, match="lacks"):
        trainer(replace(config, model=replace(config.model, detail_channels=16)), photographs, tmp_path / "b", monkeypatch)


def test_a_finished_run_is_left_alone(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("generator")
    trainer(config, photographs, tmp_path / "run", monkeypatch).run()
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    trainer(config, photographs, tmp_path / "run", monkeypatch).run()
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_the_weight_of_the_rate_follows_the_rate(
    settings: Callable[..., Settings], photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(settings("finetune"), photographs, tmp_path / "run", monkeypatch)
    stage, start = run.settings.stages[0], run.rate_weight
    run._steer(stage, 2 * stage.detail_bpp)
    raised = run.rate_weight
    run.stage_step = 0
    run._steer(stage, stage.detail_bpp / 2)
    assert start < raised
    assert run.rate_weight < raised


def test_the_configurations_are_complete() -> None:
    builtin, tokens, both = (Settings.read(BUILTIN.with_name(f"{name}.toml")) for name in ("builtin", "tokens", "both"))
    assert {stage.kind for stage in builtin.stages} == {"generator"}
    assert [stage.kind for stage in tokens.stages] == ["proxy", "finetune", "finetune"]
    assert [stage.kind for stage in both.stages] == ["decoder", "finetune"]
    for config in (builtin, tokens, both):
        assert config.model.codebook_size & (config.model.codebook_size - 1) == 0, "token bits would be wasted"
    assert tokens.model == both.model
    assert replace(tokens.model, codebook_size=builtin.model.codebook_size) == builtin.model


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BUILTIN.read_text().replace("seed = 1", "seed = 1\nsede = 2"))
    with pytest.raises(InvalidArgumentError, match=r"a\.toml is no training configuration .*sede"):
        Settings.read(tmp_path / "a.toml")


def refusal(*arguments: str) -> str:
    """What the command says when it refuses its arguments, without a traceback."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    return result.output


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    def of_run(config: str, *options: str) -> str:
        return refusal("run", config, "--cache", str(tmp_path / "none"), "--run", str(tmp_path / "run"), *options)

    Image.new("RGB", (300, 200)).save(tmp_path / "small.png")
    (tmp_path / "garbled.toml").write_text("seed = = 1")
    (tmp_path / "stageless.toml").write_text("seed = 1")
    assert "none is no cache of photographs; make one" in of_run(str(BUILTIN))
    for config in ("nowhere.toml", "small.png", "garbled.toml", "stageless.toml"):
        assert f"{config} is no training configuration" in of_run(str(tmp_path / config))
    assert "'cuda'" in of_run(str(BUILTIN), "--device", "tpu")
    assert "greater than or equal to 1" in of_run(str(BUILTIN), "--threads", "0")
    weights = str(BUILTIN.with_name("runs") / "ninth.safetensors")
    assert "small.png is smaller than a tile" in refusal("judge", weights, str(tmp_path / "small.png"))
    assert "no image" in refusal("cache", str(tmp_path / "empty"), "--cache", str(tmp_path / "cache"))


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 16, 40), (1, 40, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    module = torch.nn.Linear(16, 16)
    optimiser, before = Optimiser(module, 0.1, 0.01), module.weight.detach().clone()
    module.weight.grad, module.bias.grad = torch.full((16, 16), float("nan")), torch.zeros(16)
    optimiser.step(1.0, 1.0)
    assert torch.equal(module.weight, before)


def test_schedule_warms_up_and_ends_at_zero() -> None:
    assert schedule(0.0, 0.1) == 0
    assert schedule(0.1, 0.1) == 1
    assert schedule(1.0, 0.1) == pytest.approx(0)
    assert schedule(1.2, 0.1) == pytest.approx(0)


def test_crops_come_from_images_that_are_not_judged(photographs: Photographs) -> None:
    marked = Photographs(photographs.pixels.copy(), photographs.sizes, held_out=4)
    marked.image(0)[:] = 7
    crops = marked.crops(np.random.default_rng(0), 8, 1, 1)
    assert crops.shape == (8, 3, 256, 256)
    assert float(crops.min()) >= -1
    assert float(crops.max()) <= 1
    assert all(float(crop.std()) > 0 for crop in crops)
    assert torch.equal(marked.judged(), torch.full((1, 3, 256, 256), 7 / 127.5 - 1))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no image"):
        build_cache([tmp_path], tmp_path / "cache", 512)


def test_packed_crops_keep_to_their_size_and_are_read_as_photographs(photographs: Photographs, tmp_path: Path) -> None:
    count = pack_crops(photographs, tmp_path / "packed", 30_000, side=256)
    files = list((tmp_path / "packed").iterdir())
    assert 4 <= len(files) == count
    assert 20_000 < sum(f.stat().st_size for f in files) <= 30_000
    assert build_cache([tmp_path / "packed"], tmp_path / "cache2", 512) == count
