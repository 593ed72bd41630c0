"""Clay's masked autoencoder: the encoder that gives embeddings, and the decoder that gives the loss.

Source: https://github.com/Clay-foundation/model; He et al. 2022, https://arxiv.org/abs/2111.06377.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 8
"""Pixels per side of one patch."""
WAVE_DIM = 128
"""Size of an encoded wavelength."""
WEIGHT_TOKENS = 128
"""Learned tokens that the wavelengths attend to."""
_GENERATED_SCALE = 0.02


class Attention(nn.Module):
    """Self-attention over normalized tokens."""

    def __init__(self, dim: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, inner * 3, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, D] → [B, N, D], in the precision of the weights."""
        batch, count, _ = tokens.shape
        qkv = self.to_qkv(self.norm(tokens).to(self.to_qkv.weight.dtype))
        query, key, value = qkv.reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out(mixed.transpose(1, 2).reshape(batch, count, -1))
        return out


class FeedForward(nn.Module):
    """Two layers on every token by itself."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, D] → [B, N, D], in the precision of the weights."""
        norm, widen, bend, narrow = self.net
        out: Tensor = narrow(bend(widen(norm(tokens).to(widen.weight.dtype))))
        return out


class Transformer(nn.Module):
    """Blocks of attention and feed-forward around a residual stream that stays float32."""

    def __init__(self, dim: int, depth: int, inner: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, inner, heads), FeedForward(dim, hidden)]) for _ in range(depth)
        )

    def forward(self, tokens: Tensor, keep: tuple[int, ...] = ()) -> tuple[Tensor, list[Tensor]]:
        """The output [B, N, D], and the tokens after the layers in `keep` (1 is the first).

        The last layer's are the output itself, which is normalized; those of the layers before are not.
        """
        kept = []
        for number, blocks in enumerate(self.layers, start=1):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                tokens = tokens + block(tokens)
            if number in keep and number < len(self.layers):
                kept.append(tokens)
        tokens = self.norm(tokens)
        return tokens, [*kept, tokens] if len(self.layers) in keep else kept

    def multiply_in(self, dtype: torch.dtype) -> None:
        """Do the matrix products in this precision; norms and residuals stay float32."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)


class WeightGenerator(nn.Module):
    """Makes the weights of a layer from encoded wavelengths."""

    def __init__(self, outputs: int, biases: int | None) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WAVE_DIM, 4, dropout=0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc_weight = nn.Linear(WAVE_DIM, outputs)
        if biases is not None:
            self.fc_bias = nn.Linear(WAVE_DIM, biases)
        self.weight_tokens = nn.Parameter(torch.empty(WEIGHT_TOKENS, WAVE_DIM))
        self.bias_token = nn.Parameter(torch.empty(1, WAVE_DIM))

    def forward(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        """[C, WAVE_DIM] → weights [C, outputs], and the token [WAVE_DIM] that a bias is made from."""
        tokens = torch.cat([self.weight_tokens, waves, self.bias_token])
        mixed = self.encoder(tokens)
        return self.fc_weight(mixed[WEIGHT_TOKENS:-1] + waves), mixed[-1]


class _Residual(nn.Module):
    """Two layers beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(WAVE_DIM, WAVE_DIM)
        self.l2 = nn.Linear(WAVE_DIM, WAVE_DIM)

    def forward(self, waves: Tensor) -> Tensor:
        return waves + functional.gelu(self.l2(functional.gelu(self.l1(waves))))


class DynamicEmbedding(nn.Module):
    """Weights between pixels of any bands and tokens of `dim`, made from the bands' wavelengths."""

    def __init__(self, dim: int, *, to_pixels: bool) -> None:
        super().__init__()
        self.dim = dim
        self.weight_generator = WeightGenerator(PATCH**2 * dim, None if to_pixels else dim)
        self.fclayer = _Residual()

    def _generate(self, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = self.weight_generator(self.fclayer(encode_wavelengths(wavelengths)))
        return made

    def kernel(self, wavelengths: Tensor) -> tuple[Tensor, Tensor]:
        """Wavelengths [C] in µm → a convolution from pixels: [dim, C, PATCH, PATCH] and bias [dim]."""
        weights, token = self._generate(wavelengths)
        kernel = weights.reshape(-1, self.dim, PATCH, PATCH).transpose(0, 1) * _GENERATED_SCALE
        return kernel.contiguous(), self.weight_generator.fc_bias(token)

    def projection(self, wavelengths: Tensor) -> Tensor:
        """Wavelengths [C] in µm → a matrix to pixels: [C × PATCH × PATCH, dim], band, then row, then column."""
        weights, _ = self._generate(wavelengths)
        return (weights.reshape(-1, self.dim) * _GENERATED_SCALE).contiguous()


def encode_wavelengths(wavelengths: Tensor) -> Tensor:
    """[C] in µm → sines and cosines [C, WAVE_DIM]."""
    half = WAVE_DIM // 2
    frequencies = 1 / 10_000 ** (torch.arange(half, device=wavelengths.device) / (half - 1))
    angles = wavelengths[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def encode_positions(side: int, dim: int, gsd: float) -> Tensor:
    """Where each of side × side patches lies, scaled by the ground size of a pixel in meters: [side², dim]."""
    quarter = dim // 4
    ramp = torch.arange(quarter) / (quarter - 1)
    frequencies = 1 / 10_000 ** (2 * ramp / dim) * gsd
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y, x = rows.flatten()[:, None] * frequencies, columns.flatten()[:, None] * frequencies
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


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
            pixels: [B, C, S, S], normalized; S a multiple of PATCH.
            metadata: [B, METADATA], time and place.
            gsd: ground size of a pixel in meters.
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
        """[B, 1 + V, encoder dim] → normalized pixels [B, count, C × PATCH × PATCH]."""
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
