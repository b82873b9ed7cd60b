"""The stages of training: what each trains, from what, and on which losses."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model import DLF, Config
from dlf.export.model.config import GRID
from dlf.export.perceptual.lpips import LPIPS
from dlf.export.training.adversary import Discriminator, balance, critic_loss, deceive_loss
from dlf.export.training.grid import grid_excess
from dlf.export.training.quantisers import Semantic, quantise_detail, quantise_semantic
from dlf.runtime.formats import TILE

Kind = Literal["generator", "listen", "semantic", "tokens", "finetune"]
FROM_TARGETS = ("listen", "semantic", "tokens")  # the kinds that learn from `Targets`, not from photographs
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
    grid: float = 0.0  # weight of the grid beyond the photograph's
    adversarial: float = 0.0  # share of the adversarial gradient at the image, of the other losses' norm
    commitment: float = 0.25  # weight of the semantic latent's distance from its codebook
    detail_bpp: float = 0.0  # target of the detail stream, bits per pixel
    detail_dropout: float = 0.0  # share of the tiles whose decoder gets no detail
    large_crops: float = 0.0  # share of batches with crops of several tiles
    spread: float = 0.0  # weight of the tokens' lack of variance between tiles


class Nets(nn.Module):
    """The model and its adversary."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = DLF(config)
        self.critic = Discriminator()
        # Reads the generator's latent off the decoder's semantic map, for the kinds "listen" and "semantic".
        self.head = nn.Linear(config.vit_width, config.vqgan_codebook_dim)

    def trained(self, kind: Kind) -> nn.ModuleList:
        """The parts of the model that a stage trains."""
        codec = self.model.hybrid_codec
        if kind == "generator":
            return nn.ModuleList([self.model.vqgan.decoder, self.model.vqgan.post_quant_conv])
        encoder, decoder = codec.encoder, codec.decoder
        listener = [self.head, decoder.decoder_embed, decoder.ln_pre, decoder.transformer, decoder.ln_post]
        if kind == "listen":
            return nn.ModuleList(listener)
        reader = [encoder.transformer[-1], encoder.ln_post, encoder.conv_out, codec.quantize]
        if kind == "semantic":
            return nn.ModuleList([*reader, *listener])
        if kind == "tokens":
            return nn.ModuleList([*reader, decoder, self.model.prior_fusion])
        return nn.ModuleList([self.model])

    @torch.no_grad()
    def spread_tokens(self, images: Tensor) -> None:
        """Start the tokens from what tells the tiles of `images` apart.

        Tokens become the principal components of the features at their place, less what the places' means differ in (that part
        says nothing about a tile), and the codebook is drawn from them.
        """
        encoder, entries = self.model.hybrid_codec.encoder, self.model.hybrid_codec.quantize.embedding.weight
        seen: list[Tensor] = []
        hook = encoder.conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][..., 0]))
        for batch in images.split(4):
            self.model.analysis(batch)
        hook.remove()
        features = torch.cat(seen)  # (tiles, width, places)
        places = features.mean(0)
        mean = places.mean(1)
        centred = (features - places).mT.flatten(0, 1)
        _, sizes, directions = torch.linalg.svd((places - mean[:, None]).T)
        constant = directions[: int((sizes > 1e-3 * sizes[0]).sum())]
        centred = centred - centred @ constant.T @ constant
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        values, vectors = values.flip(0)[: entries.shape[1]], vectors.flip(1)[:, : entries.shape[1]]
        basis = (vectors * values.rsqrt()).T
        encoder.conv_out.weight.copy_(basis[:, :, None, None])
        encoder.get_parameter("conv_out.bias").copy_(-basis @ mean)
        z = F.normalize(centred @ basis.T, dim=1)
        entries.copy_(z[torch.randperm(len(z))[: len(entries)]])

    @torch.no_grad()
    def reset_semantic_decoder(self) -> None:
        """Start the decoder's semantic branch again, so that it can tell its places apart and hears its tokens.

        Its interactive transforms pass it on as it is; places have sines and cosines of their row and column.
        """
        fresh, decoder, width = DLF(self.model.config), self.model.hybrid_codec.decoder, self.model.config.vit_width
        new = fresh.hybrid_codec.decoder
        for name in ("decoder_embed", "transformer", "ln_pre", "ln_post", "mask_token", "latent_token_positional_embedding"):
            for old, p in zip(_tensors(getattr(decoder, name)), _tensors(getattr(new, name)), strict=True):
                old.copy_(p)
        decoder.decoder_embed.weight.mul_(2.0)
        row, column = (a.flatten() for a in torch.meshgrid(*2 * [torch.arange(16) / 16], indexing="ij"))
        waves = torch.stack([torch.pi * k * place for k in range(1, width // 4 + 1) for place in (row, column)], 1)
        decay = 1 / torch.arange(1, width // 4 + 1).repeat_interleave(2).sqrt()
        places = torch.cat([waves.sin() * decay, waves.cos() * decay], 1)
        decoder.positional_embedding[1:] = places / places.norm(dim=1, keepdim=True)
        for block in decoder.inter_blocks.children():
            for p in _tensors(block.zero_add):
                p.zero_()
        merge, new_merge = (model.prior_fusion.get_parameter("merge.0.weight") for model in (self.model, fresh))
        merge[:, :width] = new_merge[:, :width]


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


def _tensors(part: nn.Module | Tensor) -> list[Tensor]:
    return [part] if isinstance(part, Tensor) else list(part.parameters())


@dataclass(frozen=True)
class Targets:
    """What the stage "tokens" learns from, of many tiles: computed once by the model as the stage finds it.

    Shapes: `tokens` (n, 289, vit_width), what the encoder's last layer reads; `y_hat` (n, detail_channels, 8, 8);
    `logits` (n, vqgan_codebook_size, 16, 16), of the latent adaptor. In half precision.
    """

    tokens: Tensor
    y_hat: Tensor
    logits: Tensor

    @staticmethod
    @torch.no_grad()
    def of(model: DLF, images: Tensor) -> "Targets":
        """Of the tiles (n, 3, 256, 256)."""
        codec = model.hybrid_codec
        seen: list[Tensor] = []
        hook = codec.encoder.transformer[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].half()))
        z, y = model.analysis(images)
        hook.remove()
        y_hat = quantise_detail(codec.quantize_feat, y).y_hat
        logits = model.prior_fusion(*model.synthesis(codec.quantize.embed(codec.quantize.look_up(z)), y_hat))
        return Targets(seen[0], y_hat.half(), logits.half())

    @staticmethod
    def join(parts: list["Targets"]) -> "Targets":
        """Several, one after the other."""
        return Targets(*(torch.cat([getattr(p, name) for p in parts]) for name in ("tokens", "y_hat", "logits")))


@dataclass
class Losses:
    """The networks that judge, built once."""

    alexnet: LPIPS
    vgg16: LPIPS

    @staticmethod
    def make(device: torch.device) -> "Losses":
        """Both networks, without gradients of their own."""
        return Losses(*(LPIPS(n).to(device).requires_grad_(False) for n in ("alexnet", "vgg16")))

    def gradient(self, stage: Stage, critic: Discriminator, image: Tensor, output: Tensor, rng: torch.Generator) -> "Verdict":
        """The gradient of all losses at the output, and what the discriminator learns from; images (n, 3, 256h, 256w)."""
        output = output.detach().requires_grad_()
        terms = {"pixel": (image - output).abs().mean(), "colour": colour_error(image - output)}
        total = stage.pixel * terms["pixel"] + stage.colour * terms["colour"]
        down, right = torch.randint(SHIFT, (2,), generator=rng).tolist()
        shifted = [x[:, :, down : down - SHIFT, right : right - SHIFT] for x in (image, output)]
        with torch.no_grad():
            real_taps = self.alexnet.taps(shifted[0])
        taps = self.alexnet.taps(shifted[1])
        terms["lpips_alexnet"] = self.alexnet.distance(real_taps, taps).mean()
        total = total + stage.alexnet * terms["lpips_alexnet"]
        if stage.vgg16:
            a, b = random_crops(torch.cat([image, output], 1), stage.vgg16_side, rng).split(3, 1)
            terms["lpips_vgg16"] = self.vgg16(a, b).mean()
            total = total + stage.vgg16 * terms["lpips_vgg16"]
        if stage.grid:
            tiles = [
                x.unfold(2, TILE, TILE).unfold(3, TILE, TILE).permute(0, 2, 3, 1, 4, 5).flatten(0, 2) for x in (image, output)
            ]
            with torch.no_grad():
                natural = grid_excess(tiles[0])
            terms["grid"] = F.relu(grid_excess(tiles[1]) - natural).mean()
            total = total + stage.grid * terms["grid"]
        (gradient,) = torch.autograd.grad(total, output, retain_graph=True)
        critic_total = torch.zeros((), device=image.device)
        if stage.adversarial:
            deceived = deceive_loss(critic(shifted[1], taps))
            (adversarial,) = torch.autograd.grad(deceived, output)
            gradient = balance(gradient, adversarial, stage.adversarial)
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
    red, green, blue = F.avg_pool2d(difference, COLOUR_BLOCK).unbind(1)
    brightness, blue_yellow, red_green = (red + green + blue) / 3, blue - (red + green) / 2, red - green
    return torch.stack([brightness, blue_yellow, red_green]).abs().mean()


def random_crops(x: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """Random squares of x (n, c, 256h, 256w), as many as it has tiles; (n*h*w, c, side, side)."""
    n, _, height, width = x.shape
    count = n * (height // TILE) * (width // TILE)
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


def dropped(n: int, share: float, rng: torch.Generator) -> Tensor:
    """Which of n images the decoder gets no detail of: each with the odds `share`, but never all; (n,), bool."""
    out = torch.rand(n, generator=rng) < share
    out[0] &= not bool(out.all())
    return out


class Coded:
    """Both branches of a batch after their quantisers, and the logits of the latent adaptor."""

    def __init__(self, model: DLF, image: Tensor, commitment: float, drop: Tensor) -> None:
        z, y = model.analysis(image)
        with torch.autocast(image.device.type, enabled=False):
            self.z = z.float()
            self.semantic: Semantic = quantise_semantic(model.hybrid_codec.quantize, self.z, commitment)
            keep = (~drop).to(image.device)
            detail = quantise_detail(model.hybrid_codec.quantize_feat, y.float()[keep])
        # No detail means a latent of zeros.
        self.y_hat = torch.zeros_like(y, dtype=torch.float).index_put((keep,), detail.y_hat)
        self.bpp = detail.bits / (image[keep].numel() / image.shape[1])
        self.logits = model.prior_fusion(*model.synthesis(self.semantic.z_hat, self.y_hat)).float()


def generator(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """The pixel generator alone, from the latents of files."""
    (image,) = batch
    with torch.no_grad():
        coded = Coded(nets.model, image, stage.commitment, dropped(len(image), 0.0, rng))
        latent = nets.model.vqgan.quantize(coded.logits)
    output = generate(nets.model, latent)
    verdict = losses.gradient(stage, nets.critic, image, output, rng)
    return Outcome((output * verdict.gradient).sum(), output.new_zeros(()), verdict.critic, verdict.terms)


def semantic_latent(nets: Nets, z_hat: Tensor) -> Tensor:
    """The generator's latent (n, 256, vqgan_codebook_dim) that the head reads off the tokens z_hat (n, codebook_dim, 32) alone.

    The decoder's semantic branch without its interactive transforms, which start as the identity.
    """
    decoder = nets.model.hybrid_codec.decoder
    latents = decoder.decoder_embed(z_hat.transpose(1, 2)) + decoder.latent_token_positional_embedding
    s = torch.cat([decoder.class_embedding, decoder.mask_token[0].expand(GRID * GRID, -1)]) + decoder.positional_embedding
    s = decoder.ln_pre(torch.cat([s.expand(len(z_hat), -1, -1), latents], 1))
    for layer in decoder.transformer:
        s = layer(s)
    latent: Tensor = nets.head(decoder.ln_post(s[:, 1 : 1 + GRID * GRID]))
    return latent


def listen(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """The decoder's semantic branch learns to read the generator's latent off tokens that stay as they are, not rounded.

    Tokens that are trained before the decoder listens to them fall together.
    """
    with torch.no_grad():
        z_hat = F.normalize(read_tokens(nets.model, batch[0].float()), dim=-2)
    loss = semantic_distance(nets, z_hat, batch[2].float())
    return Outcome(loss, loss.new_zeros(()), loss.new_zeros(()), {"latent_dropped": loss.detach()})


def semantic(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """The semantic branch alone, with its codebook, learns to tell the generator's latent.

    Takes a tenth of the time of a step that has the detail too.
    """
    z = read_tokens(nets.model, batch[0].float())
    found = quantise_semantic(nets.model.hybrid_codec.quantize, z, stage.commitment)
    distance, narrow = semantic_distance(nets, found.z_hat, batch[2].float()), lack_of_spread(z)
    loss = distance + 0.25 * found.loss + stage.spread * narrow
    log = {"vq": found.loss, "latent_dropped": distance, "narrow": narrow}
    log = {name: term.detach() for name, term in log.items()}
    return Outcome(loss, loss.new_zeros(()), loss.new_zeros(()), log, z.detach(), found.indices)


def semantic_distance(nets: Nets, z_hat: Tensor, logits: Tensor) -> Tensor:
    """Mean squared error of `semantic_latent` against the latent that the adaptor's logits stand for; 1 for the means."""
    latent = semantic_latent(nets, z_hat).float()
    wanted = torch.einsum("nkhw,kd->nhwd", logits.softmax(1), nets.model.vqgan.quantize.embedding.weight.detach())
    return (latent - wanted.flatten(1, 2)).square().mean() / wanted.var((0, 1, 2)).mean()


SPREAD = 0.7  # variance of a place's unit vectors between tiles that is enough; 1 at most


def lack_of_spread(z: Tensor) -> Tensor:
    """How far the variance between tiles of the unit vectors of z (tiles, dim, 32) is below `SPREAD`, the mean over the places.

    The variance term of VICReg (Bardes et al., 2022): tokens that are the same for all tiles say nothing.
    """
    if len(z) < 2:
        return z.new_zeros(())
    variance = F.normalize(z, dim=1).var(0).sum(0)
    return F.relu(SPREAD - variance).mean() / SPREAD


def read_tokens(model: DLF, s: Tensor) -> Tensor:
    """The semantic latent (n, codebook_dim, 32) of `Targets.tokens` (n, 289, vit_width)."""
    encoder = model.hybrid_codec.encoder
    return encoder.read_tokens(encoder.transformer[-1](s)).float()


def tokens(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """The semantic branch, and what reads it, learn to name the latent that both branches gave before it was started again."""
    s, y_hat, target = (x.float() for x in batch)
    codec = nets.model.hybrid_codec
    z = read_tokens(nets.model, s)
    semantic = quantise_semantic(codec.quantize, z, stage.commitment)
    drop = dropped(len(s), stage.detail_dropout, rng).to(s.device)
    y_hat = y_hat * ~drop[:, None, None, None]
    logits = nets.model.prior_fusion(*nets.model.synthesis(semantic.z_hat[:, None, None], y_hat)).float()
    cross_entropy = -(target.softmax(1) * logits.log_softmax(1)).sum(1).mean((1, 2))
    entries = nets.model.vqgan.quantize.embedding.weight.detach()
    latent, wanted = (torch.einsum("nkhw,kd->ndhw", x.softmax(1), entries) for x in (logits, target))
    distance = (latent - wanted).square().mean((1, 2, 3)) / wanted.var((0, 2, 3)).mean()
    narrow = lack_of_spread(z)
    loss = (0.2 * cross_entropy + distance).mean() + 0.25 * semantic.loss + stage.spread * narrow
    log = {"vq": semantic.loss, "narrow": narrow, "cross_entropy": cross_entropy.mean(), "latent_dropped": distance[drop].mean()}
    log = {name: term.detach() for name, term in log.items()} | {"latent_kept": distance[~drop].mean().detach()}
    return Outcome(loss, loss.new_zeros(()), loss.new_zeros(()), log, z.detach(), semantic.indices)


def finetune(nets: Nets, losses: Losses, stage: Stage, batch: tuple[Tensor, ...], rng: torch.Generator) -> Outcome:
    """Everything, end to end, on pixels and features."""
    (image,) = batch
    coded = Coded(nets.model, image, stage.commitment, dropped(len(image), stage.detail_dropout, rng))
    output = generate(nets.model, nets.model.vqgan.quantize(coded.logits))
    verdict = losses.gradient(stage, nets.critic, image, output, rng)
    narrow = lack_of_spread(coded.z.flatten(0, 2))
    log = verdict.terms | {"detail_bpp": coded.bpp.detach(), "vq": coded.semantic.loss.detach(), "narrow": narrow.detach()}
    loss = (output * verdict.gradient).sum() + 0.25 * coded.semantic.loss + stage.spread * narrow
    return Outcome(loss, coded.bpp, verdict.critic, log, coded.z.detach(), coded.semantic.indices)


STEP = {"generator": generator, "listen": listen, "semantic": semantic, "tokens": tokens, "finetune": finetune}


@torch.no_grad()
def judge(nets: Nets, losses: Losses, image: Tensor) -> dict[str, Tensor]:
    """How a batch of single tiles comes back: whole, from its tokens alone, and with its neighbour's tokens."""
    model = nets.model
    keep = torch.zeros(len(image), dtype=torch.bool)
    coded = Coded(model, image, 0.25, keep)

    def picture(z_hat: Tensor, y_hat: Tensor) -> Tensor:
        logits = model.prior_fusion(*model.synthesis(z_hat, y_hat)).float()
        return generate(model, model.vqgan.quantize(logits)).clamp(-1, 1)

    z_hat, y_hat = coded.semantic.z_hat, coded.y_hat
    whole = picture(z_hat, y_hat)
    alone, swapped = picture(z_hat, torch.zeros_like(y_hat)), picture(z_hat.roll(1, 0), y_hat)
    named = {"": whole, "_tokens_alone": alone, "_tokens_swapped": swapped}
    return {f"lpips_alexnet{name}": losses.alexnet(image, x).mean() for name, x in named.items()} | {
        "lpips_vgg16": losses.vgg16(*(x[..., 64:192, 64:192] for x in (image, whole))).mean(),
        "psnr": 10 * torch.log10(4 / (image - whole).square().mean((1, 2, 3))).mean(),
        "grid": grid_excess(whole).mean() - grid_excess(image).mean(),
        "detail_bpp": coded.bpp,
    }
