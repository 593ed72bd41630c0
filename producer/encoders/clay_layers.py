"""The layers of Clay's encoder and decoder, with the parameter names of its checkpoints.

Source: https://github.com/Clay-foundation/model (v1.0 and v1.5 share them); the patch embedding whose weights are made
from wavelengths follows DOFA, https://arxiv.org/abs/2403.15356.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 8
"""Pixels a side of one patch."""
WAVE_DIM = 128
"""Size of an encoded wavelength."""
WEIGHT_TOKENS = 128
"""Learned tokens that the wavelengths attend to."""
_GENERATED_SCALE = 0.02


class Attention(nn.Module):
    """Self-attention over normalised tokens."""

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

        The last layer's are the output itself, which is normalised; those of the layers before are not.
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
    """Where each of side × side patches lies, scaled by the ground size of a pixel in metres: [side², dim]."""
    quarter = dim // 4
    ramp = torch.arange(quarter) / (quarter - 1)
    frequencies = 1 / 10_000 ** (2 * ramp / dim) * gsd
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y, x = rows.flatten()[:, None] * frequencies, columns.flatten()[:, None] * frequencies
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
