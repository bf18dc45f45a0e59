"""The moonlet autoencoder as a torch module whose state dict has the ldm names.

What enters: pictures [B, 3, H, W] in -1..1, H and W multiples of 8. What leaves: moments
[B, 32, H/8, W/8] (mean, then log variance) and pictures again. It knows nothing of training or files.

Every residual stream is *stored* `STREAM` times smaller than it is *trained*. The layout fixes GroupNorm to
32 groups and eps = 1e-6. With 64 channels a group holds two channels, so on a flat picture a plain GroupNorm
would answer plus or minus one whatever the colour is: flat colour could not pass. If the stream is so small
that eps is about as large as its variance, GroupNorm divides by nearly a constant instead: colour passes,
crops and whole pictures are treated alike, and tiles of one picture agree. Training therefore uses
eps = 1e-6 / STREAM**2 at the ordinary scale, which is the same function exactly; `stored` converts.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

CH, CH_MULT, BLOCKS, Z = 32, (2, 1, 2, 3), 1, 16
GROUPS, EPS = 32, 1e-6
STREAM = 2.0 ** -10


def conv(a, b, k=3, stride=1):
    return nn.Conv2d(a, b, k, stride, padding=k // 2 if stride == 1 else 0)


class ResBlock(nn.Module):
    def __init__(self, a, b, eps):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, a, eps), conv(a, b)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, b, eps), conv(b, b)
        self.nin_shortcut = conv(a, b, 1) if a != b else None

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nn.Module):
    """One head over all positions of the latent grid."""

    def __init__(self, c, eps):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, c, eps)
        self.q, self.k, self.v, self.proj_out = (conv(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(h)


class Resample(nn.Module):
    def __init__(self, c, down):
        super().__init__()
        self.down, self.conv = down, conv(c, c, 3, 2 if down else 1)

    def forward(self, x):
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Mid(nn.Module):
    def __init__(self, c, eps):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResBlock(c, c, eps), Attention(c, eps), ResBlock(c, c, eps)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    def __init__(self, a, b, n, eps, resample):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(a if i == 0 else b, b, eps) for i in range(n))
        self.name = resample
        if resample:
            setattr(self, resample, Resample(b, resample == "downsample"))

    def forward(self, x):
        for block in self.block:
            x = block(x)
        return getattr(self, self.name)(x) if self.name else x


class Encoder(nn.Module):
    def __init__(self, eps):
        super().__init__()
        widths = [CH * m for m in CH_MULT]
        self.conv_in = conv(3, CH)
        self.down = nn.ModuleList(
            Level(a, b, BLOCKS, eps, "downsample" if i < len(widths) - 1 else None)
            for i, (a, b) in enumerate(zip([CH] + widths, widths)))
        self.mid = Mid(widths[-1], eps)
        self.norm_out, self.conv_out = nn.GroupNorm(GROUPS, widths[-1], eps), conv(widths[-1], 2 * Z)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    def __init__(self, eps):
        super().__init__()
        widths = [CH * m for m in CH_MULT]
        self.conv_in = conv(Z, widths[-1])
        self.mid = Mid(widths[-1], eps)
        self.up = nn.ModuleList(
            Level(a, b, BLOCKS + 1, eps, "upsample" if i > 0 else None)
            for i, (a, b) in enumerate(zip(widths[1:] + widths[-1:], widths)))
        self.norm_out, self.conv_out = nn.GroupNorm(GROUPS, widths[0], eps), conv(widths[0], 3)

    def forward(self, z):
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Moonlet(nn.Module):
    """`trained=True`: ordinary scale, enlarged eps. `trained=False`: what the file holds, eps = 1e-6."""

    def __init__(self, trained=True):
        super().__init__()
        eps = EPS / STREAM ** 2 if trained else EPS
        self.encoder, self.decoder = Encoder(eps), Decoder(eps)

    def moments(self, x):
        mean, log_var = self.encoder(x).float().chunk(2, 1)
        return mean, log_var.clamp(-20.0, 10.0)


def stored(state):
    """The trained state dict as the file has it: everything that writes to a GroupNorm's input, times STREAM.

    Convolutions from a stream to a stream keep their weights, as their input is small already."""
    out = {}
    for name, tensor in state.items():
        layer, kind = name.rsplit(".", 1)
        leaf = layer.rsplit(".", 1)[-1]
        writes = leaf in ("conv_in", "conv1", "conv2", "proj_out")
        passes = leaf in ("nin_shortcut", "conv")
        out[name] = tensor * STREAM if writes or (passes and kind == "bias") else tensor.clone()
    return out
