"""The stages of training: what each trains, from what, and on which losses."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model import DLF, Config
from dlf.export.model.config import GRID, PATCH
from dlf.export.perceptual.lpips import LPIPS
from dlf.export.training.ablation import Part, VectorDetail, ablated
from dlf.export.training.adversary import Discriminator, balance, critic_loss, deceive_loss
from dlf.export.training.grid import grid_excess
from dlf.export.training.hybrid import Taught, hybrids
from dlf.export.training.proxy import Proxy, opponent, restart_semantic
from dlf.export.training.quantisers import Semantic, quantise_detail, quantise_semantic
from dlf.export.training.texture import texture_distance
from dlf.runtime.formats import TILE

Kind = Literal["generator", "proxy", "decoder", "finetune"]
SHIFT = 16  # pixels, the period of the generator's grid: AlexNet sees each tile at a random shift below it


@dataclass(frozen=True)
class Stage:
    """One entry of the configuration's list of stages; see `builtin.toml`."""

    name: str
    kind: Kind
    minutes: float
    lr: float
    tiles: int  # in a batch
    pixel: float = 1.0  # weight of the mean absolute error on -1..1
    colour: float = 0.0  # weight of the mean absolute error of the blocks' mean colours
    alexnet: float = 1.0  # weight of LPIPS-AlexNet
    vgg16: float = 0.0  # weight of LPIPS-VGG16
    vgg16_side: int = 64  # pixels a side of the crop that VGG16 sees of each tile
    texture: float = 0.0  # weight of the distance of texture in VGG16's features, on the same crops
    grid: float = 0.0  # weight of the grid beyond the photograph's
    adversarial: float = 0.0  # share of the adversarial gradient at the image, of the other losses' norm
    commitment: float = 0.25  # weight of the semantic latent's distance from its codebook
    detail_bpp: float = 0.0  # target of the detail stream, bits per pixel
    detail_dropout: float = 0.0  # share of the tiles whose decoder gets no detail
    channel_dropout: float = 0.0  # share of the tiles whose decoder gets each channel of the detail by a coin
    hybrid: tuple[float, float] = (0.0, 0.0)  # share of the tiles whose detail is that of a hybrid, at first and at last
    alone: float = 1.0  # weight of all that judges texture on tiles without detail, as a share of its weight on others
    large_crops: float = 0.0  # share of batches with crops of several tiles
    proxy: float = 0.0  # weight of the tokens' distance from the codes of `Proxy`
    window: int = 0  # cells of 16x16 pixels a side of the part of each image that is generated and judged; 0: all of it
    whole: float = 0.0  # share of batches that are generated whole in spite of the window, half as many tiles

    def __post_init__(self) -> None:
        if self.grid and 0 < self.window < GRID and not self.whole:
            raise ValueError(f"stage {self.name}: the grid is told on whole tiles, not on windows of {self.window} cells")

    def at(self, progress: float, coin: float = 1.0) -> "Stage":
        """The stage as it is at a share of its time, for a batch that drew `coin`, 0 to 1."""
        first, last = self.hybrid
        now = replace(self, hybrid=(first + (last - first) * progress,) * 2)
        if coin < self.whole:
            return replace(now, window=0, tiles=self.tiles // 2)
        return replace(now, grid=0.0) if self.whole else now


class Nets(nn.Module):
    """The model, its adversary, the codes that its tokens learn first, and the model as it was before that."""

    def __init__(self, config: Config, without: Part | None = None) -> None:
        super().__init__()
        self.model = ablated(config, without)
        self.critic = Discriminator()
        self.proxy = Proxy(config.codebook_dim)
        self.teacher = ablated(config, without).requires_grad_(False)

    def trained(self, kind: Kind) -> nn.ModuleList:
        """The parts of the model that a stage trains."""
        codec = self.model.hybrid_codec
        if kind == "generator":
            return nn.ModuleList([self.model.vqgan.decoder, self.model.vqgan.post_quant_conv])
        if kind == "proxy":
            return nn.ModuleList([codec.encoder, codec.decoder, self.model.prior_fusion])
        if kind == "decoder":
            quantiser = codec.quantize_feat
            return nn.ModuleList([codec.decoder, quantiser.dec_trans_0, quantiser.dec_trans_1, self.model.prior_fusion])
        return nn.ModuleList([self.model])

    @torch.no_grad()
    def start_proxy(self, images: Tensor) -> None:
        """Keep the model as the teacher, and start its semantic branch again, with a codebook of the codes of tiles
        (n, 3, 256, 256)."""
        self.teacher.load_state_dict(self.model.state_dict())
        self.proxy.fit(images)
        restart_semantic(self.model, images[:64])
        entries = self.model.hybrid_codec.quantize.embedding.weight
        entries.copy_(spherical_means(self.proxy(images).mT.flatten(0, 3), len(entries)))

    @torch.no_grad()
    def start_detail(self, images: Tensor) -> None:
        """Start the codebook of the detail, where the model has one, with the latents of tiles (n, 3, 256, 256)."""
        quantiser = self.model.hybrid_codec.quantize_feat
        if isinstance(quantiser, VectorDetail):
            quantiser.start(self.model.analysis(images)[1])

    @torch.no_grad()
    def start_decoder(self) -> None:
        """Keep the model as the teacher, and start again what the adaptor makes of the semantic map."""
        self.teacher.load_state_dict(self.model.state_dict())
        fresh, adaptor = DLF(self.model.config).prior_fusion, self.model.prior_fusion
        adaptor.titok_in.load_state_dict(fresh.titok_in.state_dict())
        merge, new = adaptor.merge[0], fresh.merge[0]
        assert isinstance(merge, nn.Linear) and isinstance(new, nn.Linear)
        width = self.model.config.vit_width
        merge.weight[:, :width] = new.weight[:, :width]

    @torch.no_grad()
    def teach(self, image: Tensor) -> Taught:
        """What the teacher makes of tiles (n, 3, 256, 256), and of their hybrids."""
        coded, mixed = (whole(self.teacher, x) for x in (image, hybrids(image)))
        return Taught(coded.semantic.z_hat, coded.y_hat, mixed.y_hat, coded.logits.half())


def spherical_means(points: Tensor, count: int, rounds: int = 20) -> Tensor:
    """Spherical k-means: `count` unit vectors (count, dim) around which unit vectors `points` (n, dim) lie."""
    means = points[torch.randperm(len(points))[:count]].clone()
    for _ in range(rounds):
        nearest = (points @ means.T).argmax(1)
        sums = torch.zeros_like(means).index_add_(0, nearest, points)
        empty = sums.norm(dim=1) == 0
        sums[empty] = points[torch.randperm(len(points))[: int(empty.sum())]]
        means = F.normalize(sums, dim=1)
    return means


@dataclass
class Losses:
    """The networks that judge, built once."""

    alexnet: LPIPS
    vgg16: LPIPS

    @staticmethod
    def make(device: torch.device) -> "Losses":
        """Both networks, without gradients of their own."""
        return Losses(*(LPIPS(n).to(device).requires_grad_(False) for n in ("alexnet", "vgg16")))

    def gradient(
        self,
        stage: Stage,
        critic: Discriminator,
        image: Tensor,
        output: Tensor,
        rng: torch.Generator,
        texture: Tensor | None = None,
    ) -> "Verdict":
        """The gradient of all losses at the output, and what the discriminator learns from; images (n, 3, 256h, 256w).

        `texture` (n,) weighs the losses of networks and of the grid on each image; 1 if it is not given.
        """
        texture = image.new_ones(len(image)) if texture is None else texture.to(image.device)
        output = output.detach().requires_grad_()
        terms = {"pixel": (image - output).abs().mean(), "colour": colour_error(image - output)}
        total = stage.pixel * terms["pixel"] + stage.colour * terms["colour"]
        down, right = torch.randint(SHIFT, (2,), generator=rng).tolist()
        shifted = [x[:, :, down : down - SHIFT, right : right - SHIFT] for x in (image, output)]
        with torch.no_grad():
            real_taps = self.alexnet.taps(shifted[0])
        taps = self.alexnet.taps(shifted[1])
        terms["lpips_alexnet"] = (texture * self.alexnet.distance(real_taps, taps)).mean()
        total = total + stage.alexnet * terms["lpips_alexnet"]
        if stage.vgg16:
            a, b = random_crops(torch.cat([image, output], 1), stage.vgg16_side, rng).split(3, 1)
            with torch.no_grad():
                real = self.vgg16.taps(a)
            painted, weight = self.vgg16.taps(b), texture.repeat(len(a) // len(texture))
            terms["lpips_vgg16"] = (weight * self.vgg16.distance(real, painted)).mean()
            terms["texture"] = (weight * texture_distance(real, painted)).mean()
            total = total + stage.vgg16 * terms["lpips_vgg16"] + stage.texture * terms["texture"]
        if stage.grid:
            tiles = [
                x.unfold(2, TILE, TILE).unfold(3, TILE, TILE).permute(0, 2, 3, 1, 4, 5).flatten(0, 2) for x in (image, output)
            ]
            with torch.no_grad():
                natural = grid_excess(tiles[0])
            excess = F.relu(grid_excess(tiles[1]) - natural)
            terms["grid"] = (texture.repeat_interleave(len(excess) // len(texture)) * excess).mean()
            total = total + stage.grid * terms["grid"]
        (gradient,) = torch.autograd.grad(total, output, retain_graph=True)
        critic_total = torch.zeros((), device=image.device)
        if stage.adversarial:
            deceived = deceive_loss(critic(shifted[1], taps))
            (adversarial,) = torch.autograd.grad(deceived, output)
            gradient = balance(gradient, adversarial, stage.adversarial * texture)
            critic_total = critic_loss(critic(shifted[0], real_taps), critic(shifted[1].detach(), [t.detach() for t in taps]))
            terms |= {"deceived": deceived, "critic": critic_total}
        return Verdict(gradient, critic_total, {name: term.detach() for name, term in terms.items()})


@dataclass
class Verdict:
    """The gradient at the output, the discriminator's loss, and the terms for the log."""

    gradient: Tensor
    critic: Tensor
    terms: dict[str, Tensor]


COLOUR_BLOCK = 8  # pixels a side


def colour_error(difference: Tensor) -> Tensor:
    """Mean absolute error of the means of blocks, in brightness and in the two opponent colours, all three alike.

    In RGB the three are far from alike: photographs differ in brightness first, then from blue to yellow, and hardly from red to
    green, so that a network which is short of bits leaves the last one out.
    """
    return opponent(F.avg_pool2d(difference, COLOUR_BLOCK)).abs().mean()


def random_crops(x: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """Random squares of x (n, c, height, width), as many as it has tiles, at least one of each; (count, c, side, side)."""
    n, _, height, width = x.shape
    count = n * max(1, height // TILE) * max(1, width // TILE)
    tops, lefts = (torch.randint(free - side + 1, (count,), generator=rng) for free in (height, width))
    return torch.stack(
        [x[i % n, :, top : top + side, left : left + side] for i, (top, left) in enumerate(zip(tops, lefts, strict=True))]
    )


@dataclass
class Outcome:
    """What a step gives: the loss without the rate, the rate to weigh, the discriminator's loss, what to log, and tokens for the
    codebook's upkeep."""

    loss: Tensor
    rate: Tensor
    critic: Tensor
    log: dict[str, Tensor]
    z: Tensor | None = None
    indices: Tensor | None = None


def generate(model: DLF, latent: Tensor) -> Tensor:
    """The image, not clamped."""
    image: Tensor = model.vqgan.decoder(model.vqgan.post_quant_conv(latent))
    return image.float()


def generate_window(model: DLF, latent: Tensor, image: Tensor, cells: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows at random places, so many cells a side, of images (n, 3, height, width) and of what their latents generate; both
    (n, 3, 16 * cells, 16 * cells).

    The generator's upper levels take most of the time of a step, and see no further than a few cells.
    """
    base = model.vqgan.decoder.base(model.vqgan.post_quant_conv(latent))
    places = [torch.randint(side - cells + 1, (len(image),), generator=rng).tolist() for side in base.shape[2:]]

    def cut(x: Tensor, cell: int) -> Tensor:
        side = cells * cell
        corners = ((cell * top, cell * left) for top, left in zip(*places, strict=True))
        return torch.stack([part[:, top : top + side, left : left + side] for part, (top, left) in zip(x, corners, strict=True)])

    return cut(image, PATCH), model.vqgan.decoder.upper(cut(base, 1)).float()


def dropped(n: int, share: float, rng: torch.Generator) -> Tensor:
    """Which of n images the decoder gets no detail of: each with the odds `share`, but never all unless it is 1; (n,), bool."""
    out = torch.rand(n, generator=rng) < share
    out[0] &= share == 1 or not bool(out.all())
    return out


def some_channels(n: int, channels: int, share: float, rng: torch.Generator) -> Tensor:
    """Which channels of the detail the decoder gets, of each of n images: all, or for the share of them each by a coin; 0 or 1,
    (n, channels, 1, 1).

    A decoder that gets all of the detail or nothing learns two separate ways, and hears no token where there is detail.
    """
    thinned = torch.rand(n, 1, 1, 1, generator=rng) < share
    return 1 - (thinned & (torch.rand(n, channels, 1, 1, generator=rng) < 0.5)).float()


class Coded:
    """Both branches of a batch after their quantisers, and the logits of the latent adaptor."""

    def __init__(
        self,
        model: DLF,
        image: Tensor,
        commitment: float,
        drop: Tensor,
        channels: Tensor | None = None,
        mixed: Tensor | None = None,
    ) -> None:
        z, y = model.analysis(image)
        if mixed is not None and mixed.any():
            # Encoded by itself, so that no token can tell the detail what the colours are.
            y = y.index_put((mixed.to(image.device),), model.analysis(hybrids(image)[mixed])[1].to(y.dtype))
        with torch.autocast(image.device.type, enabled=False):
            self.z, self.y = z.float(), y.float()
            self.semantic: Semantic = quantise_semantic(model.hybrid_codec.quantize, self.z, commitment)
            keep = (~drop).to(image.device)
            self.detail = quantise_detail(model.hybrid_codec.quantize_feat, self.y[keep])
        # No detail means a latent of zeros.
        self.y_hat = torch.zeros_like(self.y).index_put((keep,), self.detail.y_hat)
        if channels is not None:
            self.y_hat = self.y_hat * channels.to(image.device)
        self.bpp = self.detail.bits / max(1, image[keep].numel() / image.shape[1])
        self.logits = model.prior_fusion(*model.synthesis(self.semantic.z_hat, self.y_hat)).float()


def whole(model: DLF, image: Tensor) -> Coded:
    """Images (n, 3, 256h, 256w), none without its detail."""
    return Coded(model, image, Stage.commitment, torch.zeros(len(image), dtype=torch.bool))


def generator(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """The pixel generator alone, from the latents of files."""
    (image,) = batch
    with torch.no_grad():
        coded = Coded(nets.model, image, stage.commitment, dropped(len(image), 0.0, rng))
        latent = nets.model.vqgan.quantize(coded.logits)
    output = generate(nets.model, latent)
    verdict = losses.gradient(stage, nets.critic, image, output, rng)
    return Outcome((output * verdict.gradient).sum(), output.new_zeros(()), verdict.critic, verdict.terms)


def unlike(z: Tensor, codes: Tensor) -> Tensor:
    """1 less the cosine between tokens and codes, (n, h, w, dim, 32) each; the mean over all."""
    return 1 - (F.normalize(z, dim=3) * codes).sum(3).mean()


def proxy(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """Tokens learn the codes of their places, and the decoder to read them; all else stays as the teacher has it.

    Takes a fraction of the time of a step that has the generator too.
    """
    (image,) = batch
    model, entries = nets.model, nets.model.vqgan.quantize.embedding.weight.detach()
    with torch.no_grad():
        drop = dropped(len(image), 0.0, rng)
        taught = Coded(nets.teacher, image, stage.commitment, drop)
        codes = nets.proxy(image)
        z_hat = model.hybrid_codec.quantize.embed(model.hybrid_codec.quantize.look_up(codes))
        drop = dropped(len(image), stage.detail_dropout, rng)
        y_hat = taught.y_hat * ~drop[:, None, None, None].to(image.device)
    z, y = (x.float() for x in model.analysis(image))
    logits = model.prior_fusion(*model.synthesis(z_hat, y_hat)).float()
    cross_entropy = -(taught.logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    latent, wanted = (torch.einsum("nkhw,kd->ndhw", x.softmax(1), entries) for x in (logits, taught.logits))
    distance = (latent - wanted).square().mean((1, 2, 3)) / wanted.var((0, 2, 3)).mean()
    moved = (y - taught.y).square().mean() / taught.y.var((0, 2, 3)).mean()
    tokens = unlike(z, codes)
    log = {"tokens": tokens, "detail": moved, "cross_entropy": cross_entropy, "latent_dropped": distance[drop].mean()}
    log = {name: term.detach() for name, term in log.items()} | {"latent_kept": distance[~drop].mean().detach()}
    loss = stage.proxy * tokens + moved + 0.2 * cross_entropy + distance.mean()
    return Outcome(loss, loss.new_zeros(()), loss.new_zeros(()), log)


def decoder(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """The decoder and the adaptor learn the teacher's latents from tokens, with the teacher's detail, a hybrid's or none.

    Encoder and generator have no part in it, so that it sees six times as many tiles a minute as a stage end to end.
    """
    z_hat, y_hat, y_hat_hybrid, taught = batch
    model, entries = nets.model, nets.model.vqgan.quantize.embedding.weight.detach()
    coin = torch.rand(len(z_hat), generator=rng).to(z_hat.device)
    drop, mixed = coin < stage.detail_dropout, coin > 1 - stage.hybrid[0]
    y_hat = torch.where(mixed[:, None, None, None], y_hat_hybrid, y_hat) * ~drop[:, None, None, None]
    logits = model.prior_fusion(*model.synthesis(z_hat, y_hat)).float()
    cross_entropy = -(taught.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    latent, wanted = (torch.einsum("nkhw,kd->ndhw", x.softmax(1), entries) for x in (logits, taught))
    distance = (latent - wanted).square().mean((1, 2, 3)) / wanted.var((0, 2, 3)).mean()
    named = {"dropped": drop, "hybrid": mixed, "kept": ~(drop | mixed)}
    log = {"cross_entropy": cross_entropy} | {f"latent_{name}": distance[chosen].mean() for name, chosen in named.items()}
    loss = 0.2 * cross_entropy + distance.mean()
    nothing = loss.new_zeros(())
    return Outcome(loss, nothing, nothing, {name: term.detach() for name, term in log.items()})


def finetune(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """Everything, end to end, on pixels and features."""
    (image,) = batch
    n, channels = len(image), nets.model.config.detail_channels
    drop, some = dropped(n, stage.detail_dropout, rng), some_channels(n, channels, stage.channel_dropout, rng)
    mixed = torch.rand(n, generator=rng) < stage.hybrid[0]
    coded = Coded(nets.model, image, stage.commitment, drop, some, mixed)
    tokens = unlike(coded.z, nets.proxy(image))
    latent = nets.model.vqgan.quantize(coded.logits)
    if stage.window:
        image, output = generate_window(nets.model, latent, image, stage.window, rng)
    else:
        output = generate(nets.model, latent)
    texture = torch.where(drop, stage.alone, 1.0)
    verdict = losses.gradient(stage, nets.critic, image, output, rng, texture)
    log = verdict.terms | {"detail_bpp": coded.bpp.detach(), "vq": coded.semantic.loss.detach(), "tokens": tokens.detach()}
    loss = (output * verdict.gradient).sum() + 0.25 * (coded.semantic.loss + coded.detail.loss) + stage.proxy * tokens
    return Outcome(loss, coded.bpp, verdict.critic, log, coded.z.detach(), coded.semantic.indices)


STEP = {"generator": generator, "proxy": proxy, "decoder": decoder, "finetune": finetune}


@torch.no_grad()
def judge(model: DLF, losses: Losses, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """How images (n, 3, 256h, 256w) come back: whole, from their tokens alone, and with the tokens of the tile before; and their
    tokens (n, tiles, 32). LPIPS-VGG16 and the grid are those of a part of each image."""
    coded = whole(model, image)

    def picture(z_hat: Tensor, y_hat: Tensor) -> Tensor:
        logits = model.prior_fusion(*model.synthesis(z_hat, y_hat)).float()
        return generate(model, model.vqgan.quantize(logits)).clamp(-1, 1)

    z_hat, y_hat = coded.semantic.z_hat, coded.y_hat
    output = picture(z_hat, y_hat)
    others = z_hat.flatten(0, 2).roll(1, 0).reshape(z_hat.shape)
    named = {"": output, "_tokens_alone": picture(z_hat, torch.zeros_like(y_hat)), "_tokens_swapped": picture(others, y_hat)}
    figures = {f"lpips_alexnet{name}": losses.alexnet(image, x).mean() for name, x in named.items()}
    figures |= {
        "lpips_vgg16": losses.vgg16(*(x[..., 64:192, 64:192] for x in (image, output))).mean(),
        "psnr": 10 * torch.log10(4 / (image - output).square().mean((1, 2, 3))).mean(),
        "grid": grid_excess(output[..., :TILE, :TILE]).mean() - grid_excess(image[..., :TILE, :TILE]).mean(),
        "detail_bpp": coded.bpp,
    }
    return figures, coded.semantic.indices


def perplexity(usage: Tensor) -> float:
    """Of a codebook whose entries are used in these shares or counts."""
    shares = usage / usage.sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))
