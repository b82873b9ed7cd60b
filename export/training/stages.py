"""The losses of the three stages of training."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model import DLF, Config
from dlf.export.model.config import PATCH
from dlf.export.perceptual.lpips import LPIPS
from dlf.export.training.autoencoder import TrainingEncoder
from dlf.export.training.quantisers import quantise_detail, quantise_semantic
from dlf.runtime.formats import TILE

ENTRY_SCALE = 8.0  # of the VQGAN's codebook at the start


@dataclass(frozen=True)
class Stage:
    """One entry of the configuration's list of stages; see `builtin.toml`."""

    name: str
    kind: Literal["autoencode", "align", "finetune"]
    minutes: float
    lr: float
    pixel: float = 1.0  # weight of the mean absolute error on -1..1
    colour: float = 0.0  # weight of the mean absolute error of the blocks' mean colours
    alexnet: float = 1.0  # weight of LPIPS-AlexNet
    vgg16: float = 0.0  # weight of LPIPS-VGG16
    vgg16_side: int = 128  # pixels a side of the crop that VGG16 sees of each tile
    texture: float = 0.0  # weight of the distance of texture in VGG16's features
    vq: float = 0.25  # weight of the codebook's and commitment loss
    commitment: float = (
        0.25  # of the semantic latent to its codebook; tokens that say little so far end up saying nothing under it
    )
    detail_bpp: float = 0.0  # target of the detail stream, bits per pixel
    noisy_rate: bool = False  # rate of noisy instead of rounded latents
    large_crops: float = 0.0  # share of batches with crops of several tiles
    spread_tokens: bool = False  # start with tokens that tell tiles apart (see `Nets.spread_tokens`)


class Nets(nn.Module):
    """The model and the encoder of its first stage."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = DLF(config)
        self.encoder = TrainingEncoder(config)
        self._initialise()

    def _initialise(self) -> None:
        """What the model leaves at PyTorch's defaults and trains badly from there."""
        for name, p in self.model.named_parameters():
            if name.endswith("pos_embedding"):  # a table of logits
                nn.init.zeros_(p)
        quantiser, channels = self.model.hybrid_codec.quantize_feat, self.model.config.detail_channels
        with torch.no_grad():
            # The mixture of many entries is small; and while it is one of many, the softmax passes gradients.
            self.model.vqgan.quantize.embedding.weight.mul_(ENTRY_SCALE)
            # The prior starts as a Gaussian of scale and step 1.
            quantiser.get_parameter("y_prior_fusion.1.block.1.conv_out.bias")[: 2 * channels] += 1.0
            quantiser.get_parameter("y_spatial_prior.2.block.1.conv_out.bias")[:channels] += 1.0

    @torch.no_grad()
    def fit_inputs(self, images: Tensor, latent_scale: float = 2.0) -> None:
        """Start the analysis from the data.

        Patches are embedded by their principal components; the semantic latent is spread over its codebook's sphere, and the
        codebook drawn from it; the detail latent has a useful scale. `images` give more tokens than the codebook has entries.
        """
        encoder, quantiser = self.model.hybrid_codec.encoder, self.model.hybrid_codec.quantize_feat
        width = encoder.patch_embed.weight.shape[0]
        patches = F.unfold(images * 0.5 + 0.5, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        values, vectors = values.flip(0)[:width].clamp(min=1e-4), vectors.flip(1)[:, :width]
        basis = (vectors * values**-0.25).T  # half whitened: fine structure counts, but less
        encoder.patch_embed.weight.copy_(basis.reshape(encoder.patch_embed.weight.shape))
        encoder.get_parameter("patch_embed.bias").copy_(-basis @ mean)
        nn.init.eye_(encoder.pix_emb_proj.weight[:, :, 0, 0])
        z, y = self.model.analysis(images)
        z = z.mT.flatten(0, -2)
        deviation, mean = z.std(0), z.mean(0)
        encoder.conv_out.weight.div_(deviation[:, None, None, None])
        encoder.get_parameter("conv_out.bias").sub_(mean).div_(deviation)
        z = (z - mean) / deviation
        entries = self.model.hybrid_codec.quantize.embedding.weight
        entries.copy_(F.normalize(z[torch.randperm(len(z))[: len(entries)]], dim=-1))
        gain = latent_scale / y.std()
        quantiser.enc_q.mul_(gain)
        quantiser.dec_q.div_(gain)

    @torch.no_grad()
    def spread_tokens(self, images: Tensor) -> None:
        """Start the semantic branch anew from what tells the tiles of `images` apart, when its tokens have come to say the same
        of every tile: then no gradient leads away from that.

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


@dataclass
class Losses:
    """The networks that judge, built once."""

    alexnet: LPIPS
    vgg16: LPIPS

    @staticmethod
    def make() -> "Losses":
        """Both networks in bfloat16, without gradients of their own."""
        return Losses(*(LPIPS(n).to(torch.bfloat16).requires_grad_(False) for n in ("alexnet", "vgg16")))

    def __call__(self, stage: Stage, image: Tensor, output: Tensor, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms for the log."""
        terms = {"pixel": (image - output).abs().mean()}
        total = stage.pixel * terms["pixel"]
        if stage.colour:
            terms["colour"] = colour_error(image - output)
            total = total + stage.colour * terms["colour"]
        if stage.alexnet:
            terms["lpips_alexnet"] = self.alexnet(image, output).mean()
            total = total + stage.alexnet * terms["lpips_alexnet"]
        if stage.vgg16:
            a, b = random_crops(torch.cat([image, output], 1), stage.vgg16_side, rng).split(3, 1)
            distances = self.vgg16.compare(a, b, texture=stage.texture > 0)
            terms |= {"lpips_vgg16": distances.lpips.mean(), "texture": distances.texture.mean()}
            total = total + stage.vgg16 * terms["lpips_vgg16"] + stage.texture * terms["texture"]
        return total, terms


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
    """What a step gives: the loss without the rate, the rate to weigh, what to log, and tokens for the codebook's upkeep."""

    distortion: Tensor
    rate: Tensor
    log: dict[str, Tensor]
    z: Tensor | None = None
    indices: Tensor | None = None


def generate(model: DLF, latent: Tensor) -> Tensor:
    """The image, not clamped."""
    image: Tensor = model.vqgan.decoder(model.vqgan.post_quant_conv(latent))
    return image.float()


def autoencode(nets: Nets, losses: Losses, stage: Stage, image: Tensor, rng: torch.Generator) -> Outcome:
    """Stage (a): training encoder, mixture of codebook entries, pixel generator."""
    logits = nets.encoder(image)
    output = generate(nets.model, nets.model.vqgan.quantize(logits))
    total, terms = losses(stage, image, output, rng)
    mean = logits.softmax(1).mean((0, 2, 3))
    perplexity = torch.exp(-(mean * (mean + 1e-9).log()).sum())
    return Outcome(total, torch.zeros(()), {name: term.detach() for name, term in (terms | {"perplexity": perplexity}).items()})


def _code(nets: Nets, stage: Stage, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Outcome]:
    """Logits of the latent adaptor after both quantisers, and an outcome that lacks the distortion."""
    model = nets.model
    z, y = model.analysis(image)
    with torch.autocast("cpu", enabled=False):
        semantic = quantise_semantic(model.hybrid_codec.quantize, z.float(), stage.commitment)
        detail = quantise_detail(model.hybrid_codec.quantize_feat, y.float(), rng)
    logits = model.prior_fusion(*model.synthesis(semantic.z_hat, detail.y_hat)).float()
    pixels = image.shape[0] * image.shape[2] * image.shape[3]
    rate = (detail.noisy_bits if stage.noisy_rate else detail.bits) / pixels
    log = {"detail_bpp": detail.bits.detach() / pixels, "vq": semantic.loss.detach()}
    return logits, Outcome(stage.vq * semantic.loss, rate, log, z.detach().float(), semantic.indices)


def align(nets: Nets, losses: Losses, stage: Stage, image: Tensor, rng: torch.Generator) -> Outcome:
    """Stage (b): both branches and the adaptor learn to name the latent that the training encoder found."""
    with torch.no_grad():
        target = nets.encoder(image)
        wanted = nets.model.vqgan.quantize(target)
    logits, outcome = _code(nets, stage, image, rng)
    cross_entropy = -(target.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    # The codebook stays as the first stage left it.
    latent = torch.einsum("nkhw,kd->ndhw", logits.softmax(1), nets.model.vqgan.quantize.embedding.weight.detach())
    distance = (latent - wanted).square().mean() / wanted.var()
    outcome.distortion = outcome.distortion + 0.2 * cross_entropy + distance
    outcome.log |= {"cross_entropy": cross_entropy.detach(), "latent": distance.detach()}
    return outcome


def finetune(nets: Nets, losses: Losses, stage: Stage, image: Tensor, rng: torch.Generator) -> Outcome:
    """Stage (c): everything, end to end, on pixels and features."""
    logits, outcome = _code(nets, stage, image, rng)
    total, terms = losses(stage, image, generate(nets.model, nets.model.vqgan.quantize(logits)), rng)
    outcome.distortion = outcome.distortion + total
    outcome.log |= {name: term.detach() for name, term in terms.items()}
    return outcome


STEP = {"autoencode": autoencode, "align": align, "finetune": finetune}
