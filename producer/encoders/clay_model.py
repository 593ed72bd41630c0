"""Clay's masked autoencoder: the encoder that gives embeddings, and the decoder that gives the loss.

Source: https://github.com/Clay-foundation/model; He et al. 2022, https://arxiv.org/abs/2111.06377.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clay_publish.producer.encoders.clay_layers import PATCH, DynamicEmbedding, Transformer, encode_positions

METADATA = 8
"""Channels of a token that hold time and place."""
MASKED = 0.75
"""Share of the patches that the decoder must guess."""


@dataclass(frozen=True)
class Sizes:
    """The shape of one transformer, read off its tensors."""

    dim: int
    depth: int
    inner: int
    """Heads × size of a head."""
    heads: int
    hidden: int

    def transformer(self) -> Transformer:
        """A transformer of this shape."""
        return Transformer(self.dim, self.depth, self.inner, self.heads, self.hidden)


class ClayEncoder(nn.Module):
    """Pixels → tokens; the first is the embedding of the chip."""

    kernel: Tensor
    bias: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.dim = sizes.dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, sizes.dim))
        self.patch_embedding = DynamicEmbedding(sizes.dim, to_pixels=False)
        self.transformer = sizes.transformer()

    def tune(self, wavelengths: Tensor) -> None:
        """Make the patch embedding for bands of these wavelengths [C], in µm."""
        # In double precision, so that the rounded weights are the same whatever the machine and its threads.
        kernel, bias = copy.deepcopy(self.patch_embedding).double().kernel(wavelengths.double())
        self.register_buffer("kernel", kernel.float(), persistent=False)
        self.register_buffer("bias", bias.float(), persistent=False)

    def forward(
        self,
        pixels: Tensor,
        metadata: Tensor,
        gsd: float,
        visible: Tensor | None = None,
        keep: tuple[int, ...] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode chips.

        Args:
            pixels: [B, C, S, S], normalised; S a multiple of PATCH.
            metadata: [B, METADATA], time and place.
            gsd: ground size of a pixel in metres.
            visible: the only patches to look at, [V]; default: all.
            keep: layers whose tokens are wanted.

        Returns:
            tokens [B, 1 + patches, dim], and those after the layers in `keep`.
        """
        patches = functional.conv2d(pixels, self.kernel, self.bias, stride=PATCH).flatten(2).transpose(1, 2)
        patches = patches + encode_places(patches.shape[1], self.dim, gsd, metadata)
        if visible is not None:
            patches = patches[:, visible]
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        out: tuple[Tensor, list[Tensor]] = self.transformer(tokens, keep)
        return out


class ClayDecoder(nn.Module):
    """Tokens of the visible patches → pixels of all patches."""

    matrix: Tensor

    def __init__(self, sizes: Sizes, encoder_dim: int) -> None:
        super().__init__()
        self.dim = sizes.dim
        self.enc_to_dec = nn.Linear(encoder_dim, sizes.dim) if encoder_dim != sizes.dim else nn.Identity()
        self.mask_patch = nn.Parameter(torch.empty(sizes.dim))
        self.transformer = sizes.transformer()
        self.embed_to_pixels = DynamicEmbedding(sizes.dim, to_pixels=True)

    def tune(self, wavelengths: Tensor) -> None:
        """Make the way back to pixels for bands of these wavelengths [C], in µm."""
        matrix = copy.deepcopy(self.embed_to_pixels).double().projection(wavelengths.double())
        self.register_buffer("matrix", matrix.float(), persistent=False)

    def forward(self, tokens: Tensor, visible: Tensor, count: int, metadata: Tensor, gsd: float) -> Tensor:
        """[B, 1 + V, encoder dim] → normalised pixels [B, count, C × PATCH × PATCH]."""
        tokens = self.enc_to_dec(tokens)
        patches = self.mask_patch.expand(len(tokens), count, -1).clone()
        patches[:, visible] = tokens[:, 1:]
        patches = patches + encode_places(count, self.dim, gsd, metadata)
        decoded, _ = self.transformer(torch.cat([tokens[:, :1], patches], dim=1))
        return functional.linear(decoded[:, 1:], self.matrix)


def encode_places(count: int, dim: int, gsd: float, metadata: Tensor) -> Tensor:
    """What is added to patches: their place in the chip, and the chip's in time and on Earth; [B, count, dim]."""
    places = encode_positions(round(count**0.5), dim - METADATA, gsd).to(metadata.device)
    return torch.cat([places.expand(len(metadata), -1, -1), metadata[:, None].expand(-1, count, -1)], dim=2)


def reconstruction_loss(
    encoder: ClayEncoder, decoder: ClayDecoder, pixels: Tensor, metadata: Tensor, *, gsd: float, order: Tensor
) -> Tensor:
    """How badly the masked patches are guessed: L1 per chip, [B].

    `order` [patches] is the same for every chip: its first MASKED share is hidden, so a chip's loss never depends on
    its batch.
    """
    count = len(order)
    hidden, visible = order[: int(MASKED * count)], order[int(MASKED * count) :]
    tokens, _ = encoder(pixels, metadata, gsd, visible)
    guessed = decoder(tokens, visible, count, metadata, gsd)[:, hidden]
    true = functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)[:, hidden]
    loss: Tensor = (guessed - true).abs().mean((1, 2))
    return loss
