"""Procedural pictures that have the statistics of photographs: nothing is read from disk, everything is seeded.

What enters: a seed and a side length. What leaves: uint8 [side, side, 3]. A scene is drawn at twice its size
and reduced, so that edges are antialiased as a camera's are. Most scenes are dead leaves (Lee, Mumford and
Huang 2001): opaque shapes whose sizes follow a power law, each with its own palette, 1/f texture, shading and
sharpness; others are fur, pages of glyphs, lines, plain gradients, shaded balls and raw 1/f fields.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

# Anchor colours (sRGB, 0..255): skin, sky, fur, wood, leaves, stone, cloth, paper, metal, neon.
PALETTES = [np.array(p, np.float32) for p in (
    [(70, 40, 30), (190, 130, 105), (235, 190, 165), (250, 225, 205)],
    [(60, 100, 170), (120, 165, 220), (200, 220, 240), (250, 250, 252)],
    [(30, 22, 18), (110, 78, 52), (180, 140, 100), (240, 225, 205)],
    [(50, 25, 12), (110, 60, 30), (165, 105, 60), (215, 170, 120)],
    [(15, 30, 12), (45, 80, 30), (100, 140, 60), (190, 205, 120)],
    [(25, 25, 28), (90, 88, 85), (150, 148, 145), (225, 224, 220)],
    [(60, 10, 20), (180, 30, 40), (230, 110, 60), (250, 210, 120)],
    [(10, 12, 40), (40, 50, 130), (110, 80, 170), (210, 190, 230)],
    [(0, 0, 0), (20, 20, 22), (235, 235, 230), (255, 255, 255)],
    [(255, 120, 20), (220, 60, 20), (240, 240, 240), (40, 60, 110)],
)]
GLYPHS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?%&()/+-=*'\"#@<>"


def spectrum(rng, h, w, alpha, stretch=1.0, angle=0.0):
    """A Gaussian field with power 1/f^(2 alpha), unit variance, stretched along `angle`."""
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    u, v = fx * math.cos(angle) + fy * math.sin(angle), fy * math.cos(angle) - fx * math.sin(angle)
    f = np.sqrt((u * stretch) ** 2 + (v / stretch) ** 2) + 1.0 / max(h, w)
    noise = np.fft.rfft2(rng.standard_normal((h, w), dtype=np.float32))
    field = np.fft.irfft2(noise * f ** -alpha, (h, w)).astype(np.float32)
    return (field - field.mean()) / (field.std() + 1e-6)


@functools.lru_cache(maxsize=2)
def bank(epoch, size=768, count=28):
    """Luminance-like fields that the scenes of one epoch of seeds share."""
    rng = np.random.default_rng((epoch, 77))
    out = []
    for i in range(count):
        stretch = math.exp(rng.uniform(0, 1.6)) if i % 3 == 0 else 1.0
        field = spectrum(rng, size, size, rng.uniform(0.6, 1.9), stretch, rng.uniform(0, math.pi))
        if i % 4 == 1:  # wood grain, veins, stripes
            field = np.sin(field * rng.uniform(2, 9))
        elif i % 7 == 2:  # bark, knit: sharp creases
            field = 1.0 - 2.0 * np.abs(field).clip(0, 1)
        out.append(field.astype(np.float16))
    return out


def texture(rng, epoch, h, w):
    """A random window of the bank, at a random scale."""
    field = bank(epoch)[rng.integers(28)]
    n = field.shape[0]
    zoom = 2 if h * 2 <= n and w * 2 <= n and rng.random() < 0.25 else 1
    y, x = rng.integers(0, n - h * zoom + 1), rng.integers(0, n - w * zoom + 1)
    return field[y:y + h * zoom:zoom, x:x + w * zoom:zoom].astype(np.float32)


def colour(rng, palette):
    """A colour near the palette's line, sometimes any colour at all."""
    if rng.random() < 0.12:
        return rng.uniform(0, 255, 3).astype(np.float32)
    t = rng.uniform(0, 3)
    i = min(int(t), 2)
    return (palette[i] * (1 - t + i) + palette[i + 1] * (t - i) + rng.normal(0, 7, 3)).astype(np.float32)


def ramp(rng, h, w):
    """Smooth shading in about -1..1: a plane, or a bowl."""
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
    a = rng.uniform(0, 2 * math.pi)
    plane = math.cos(a) * x + math.sin(a) * y
    if rng.random() < 0.5:
        return plane
    return 1.0 - ((x - rng.uniform(-.6, .6)) ** 2 + (y - rng.uniform(-.6, .6)) ** 2)


def surface(rng, epoch, h, w, palette):
    """Colour, shading and texture of one leaf: float32 [h, w, 3] in 0..255."""
    base = colour(rng, palette)
    lum = ramp(rng, h, w) * rng.exponential(22)
    other = colour(rng, palette) - base
    kind = rng.random()
    out = np.broadcast_to(base, (h, w, 3))
    if kind < 0.75:
        field = texture(rng, epoch, h, w)
        contrast = min(rng.exponential(11), 60)
        lum = lum + field * contrast
        if kind < 0.3:  # two colours mixed by the field
            mix = np.clip(0.5 + field * rng.uniform(0.1, 0.6), 0, 1)
            out = out + mix[..., None] * other * rng.uniform(0.2, 1)
    tint = np.maximum(base, 24) / max(base.mean(), 24)
    return out + lum[..., None] * tint


def outline(rng, cx, cy, r):
    """A random closed shape as polygon points."""
    kind = rng.random()
    squash, turn = rng.uniform(0.25, 1), rng.uniform(0, 2 * math.pi)
    if kind < 0.35:  # ellipse
        t = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        x, y = np.cos(t), squash * np.sin(t)
    elif kind < 0.6:  # polygon with 3..6 corners
        t = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 7)))
        x, y = np.cos(t), squash * np.sin(t)
    elif kind < 0.72:  # bar
        x, y = np.array([-1.6, 1.6, 1.6, -1.6]), np.array([-1, -1, 1, 1]) * squash * 0.35
    else:  # blob
        t = np.linspace(0, 2 * math.pi, 56, endpoint=False)
        rad = 1 + sum(rng.normal(0, 0.35 / k) * np.cos(k * t + rng.uniform(0, 6.3)) for k in range(2, 7))
        x, y = rad * np.cos(t), squash * rad * np.sin(t)
    c, s = math.cos(turn), math.sin(turn)
    return np.stack([cx + r * (c * x - s * y), cy + r * (s * x + c * y)], 1)


def leaf(rng, epoch, canvas, palette, r):
    n = canvas.shape[0]
    points = outline(rng, rng.uniform(0, n), rng.uniform(0, n), r)
    soft = rng.choice([0, 0, 0, 1.2, 3, 6]) if r > 12 else 0
    pad = int(3 * soft) + 1
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + pad + 1, n)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    mask = Image.new("L", (int(x1 - x0), int(y1 - y0)))
    ImageDraw.Draw(mask).polygon([(float(a - x0), float(b - y0)) for a, b in points], fill=255)
    if soft:
        mask = mask.filter(ImageFilter.GaussianBlur(float(soft)))
    m = np.asarray(mask, np.float32)[..., None] / 255
    view = canvas[y0:y1, x0:x1]
    view += m * (surface(rng, epoch, y1 - y0, x1 - x0, palette) - view)


def dead_leaves(rng, epoch, n):
    palettes = [PALETTES[i] for i in rng.integers(0, len(PALETTES), rng.integers(1, 4))]
    canvas = np.array(surface(rng, epoch, n, n, palettes[0]), np.float32)
    low, high = rng.choice([6, 10, 20, 40]), n * rng.uniform(0.15, 0.5)
    for _ in range(int(rng.choice([12, 50, 150, 350, 600]))):
        # density r^-3, cut at both ends, which gives the picture its 1/f^2 power
        u = rng.random()
        r = 1.0 / math.sqrt(u / low ** 2 + (1 - u) / high ** 2)
        leaf(rng, epoch, canvas, palettes[rng.integers(len(palettes))], r)
    return canvas


def field_scene(rng, epoch, n):
    """Correlated colour fields with a natural power spectrum: luminance strong, chroma weak and smooth."""
    alpha = rng.uniform(0.9, 1.8)
    lum = spectrum(rng, n, n, alpha) * rng.uniform(15, 60)
    warm, green = spectrum(rng, n, n, alpha + 0.4), spectrum(rng, n, n, alpha + 0.4)
    c = rng.uniform(2, 22)
    rgb = np.stack([lum + c * warm, lum + 0.3 * c * green, lum - c * warm], 2)
    return colour(rng, PALETTES[rng.integers(len(PALETTES))]) + rgb


def plain(rng, epoch, n):
    """Flat colour or a smooth gradient between two or three colours."""
    t = 0.5 + 0.5 * ramp(rng, n, n)[..., None] * rng.choice([0, 0.4, 1])
    a, b = (rng.uniform(0, 255, 3) for _ in range(2))
    out = a * (1 - t) + b * t + np.zeros((n, n, 3))
    if rng.random() < 0.4:
        out += (0.5 + 0.5 * ramp(rng, n, n)[..., None]) * (rng.uniform(-90, 90, 3))
    return out.astype(np.float32)


def balls(rng, epoch, n):
    """Lambert-shaded balls with a highlight over a plain or leafy ground."""
    canvas = plain(rng, epoch, n) if rng.random() < 0.5 else dead_leaves(rng, epoch, n)
    yy, xx = np.mgrid[0:n, 0:n].astype(np.float32)
    light = rng.normal(0, 1, 3) + (0, 0, 1.2)
    light /= np.linalg.norm(light)
    for _ in range(rng.integers(1, 7)):
        cx, cy, r = rng.uniform(0, n), rng.uniform(0, n), n * rng.uniform(0.05, 0.3)
        x, y = (xx - cx) / r, (yy - cy) / r
        d2 = x * x + y * y
        z = np.sqrt(np.clip(1 - d2, 0, 1))
        lambert = np.clip(x * light[0] + y * light[1] + z * light[2], 0, 1)[..., None]
        skin = colour(rng, PALETTES[rng.integers(len(PALETTES))]) * (0.25 + 0.85 * lambert)
        skin = skin + 150 * rng.random() * lambert ** rng.uniform(10, 60)
        if rng.random() < 0.5:
            skin = skin + texture(rng, epoch, n, n)[..., None] * rng.exponential(10)
        edge = np.clip((1 - d2) * r / 3, 0, 1)[..., None]
        canvas = canvas + edge * (skin - canvas)
    return canvas


def draw(canvas, paint):
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    paint(ImageDraw.Draw(image))
    return np.asarray(image).astype(np.float32)


def ink(rng, wild=0.6):
    if rng.random() < wild:
        return tuple(int(v) for v in rng.integers(0, 256, 3))
    return (int(rng.choice([0, 20, 235, 255])),) * 3


def glyphs(rng, canvas, lines):
    """Lines of PIL's built-in font at sizes from small print to posters."""
    n = canvas.shape[0]

    def paint(pen):
        y, fill = rng.uniform(0, n / 2), ink(rng)
        size = float(np.clip(18 * math.exp(rng.normal(0.4, 0.55)), 15, 150))
        font = ImageFont.load_default(size)
        x = rng.uniform(-20, n / 2)
        for _ in range(lines):
            text = "".join(rng.choice(list(GLYPHS + "      "), int(rng.integers(3, 40))))
            pen.text((x, y), text, fill=fill, font=font)
            y += size * 1.25
            if rng.random() < 0.1:
                fill = ink(rng)
    return draw(canvas, paint)


def page(rng, epoch, n):
    canvas = plain(rng, epoch, n)
    if rng.random() < 0.6:
        canvas[:] = rng.choice([255, 245, 30, 0]) + rng.normal(0, 6, 3)
    for _ in range(rng.integers(1, 5)):
        canvas = glyphs(rng, canvas, int(rng.integers(2, 18)))
    return canvas


def strokes(rng, canvas, count):
    """Thin lines and curves, straight edges of all widths."""
    n = canvas.shape[0]

    def paint(pen):
        for _ in range(count):
            p = rng.uniform(-0.1 * n, 1.1 * n, (2, 2))
            if rng.random() < 0.4:
                t = np.linspace(0, 1, 24)[:, None]
                bend = rng.normal(0, 0.3 * n, 2)
                p = p[0] * (1 - t) + p[1] * t + 4 * t * (1 - t) * bend
            pen.line([tuple(map(float, q)) for q in p], fill=ink(rng, 0.8),
                     width=int(rng.choice([1, 2, 2, 3, 4, 6, 12])))
    return draw(canvas, paint)


def fur(rng, epoch, n, canvas=None):
    """Hairs that follow a smooth direction field, back to front, each a little lighter or darker."""
    palette = PALETTES[rng.integers(len(PALETTES))] if rng.random() < 0.4 else PALETTES[rng.choice([0, 2, 3, 5])]
    canvas = surface(rng, epoch, n, n, palette).astype(np.float32) if canvas is None else canvas
    ground = ndimage.gaussian_filter(texture(rng, epoch, n, n), 6)
    bends = texture(rng, epoch, n, n)
    bends = ndimage.zoom(ndimage.zoom(bends, 16 / n, order=1), n / 16, order=1)[:n, :n] * rng.uniform(0.2, 1.2)
    heading, length = rng.uniform(0, 6.3), rng.uniform(15, 70)
    count, spread = int(rng.uniform(1500, 4500)), rng.uniform(8, 30)
    pos = rng.uniform(0, n, (count, 2))
    tone = rng.normal(0, spread, count)
    width = rng.choice([1, 2, 2, 3, 4], count)
    anchors = [colour(rng, palette) for _ in range(2)]

    def paint(pen):
        for i in range(count):
            x, y = pos[i]
            j, k = min(int(y), bends.shape[0] - 1), min(int(x), bends.shape[1] - 1)
            a = heading + bends[j, k] + rng.normal(0, 0.12)
            t = min(max(0.5 + 0.5 * ground[j, k], 0), 1)
            c = anchors[0] * (1 - t) + anchors[1] * t + tone[i]
            dx, dy = math.cos(a) * length, math.sin(a) * length
            curl = rng.normal(0, 0.12)
            mid = (x + dx / 2 - curl * dy, y + dy / 2 + curl * dx)
            pen.line([(x, y), mid, (x + dx, y + dy)], fill=tuple(int(min(max(v, 0), 255)) for v in c),
                     width=int(width[i]))
    return draw(canvas, paint)


def scene(seed, side=384):
    """Scene number `seed`: uint8 [side, side, 3]. The same seed gives the same picture."""
    rng, epoch, n = np.random.default_rng((seed, 2024)), seed // 64, 2 * side
    kind = rng.random()
    if kind < 0.56:
        canvas = dead_leaves(rng, epoch, n)
    elif kind < 0.66:
        canvas = field_scene(rng, epoch, n)
    elif kind < 0.72:
        canvas = plain(rng, epoch, n)
    elif kind < 0.78:
        canvas = balls(rng, epoch, n)
    elif kind < 0.85:
        canvas = page(rng, epoch, n)
    else:
        canvas = fur(rng, epoch, n)
    if rng.random() < 0.12:
        canvas = fur(rng, epoch, n, canvas)
        for _ in range(rng.integers(2, 12)):
            leaf(rng, epoch, canvas, PALETTES[rng.integers(len(PALETTES))], n * rng.uniform(0.03, 0.2))
    if rng.random() < 0.15:
        canvas = strokes(rng, canvas, int(rng.choice([3, 10, 40])))
    if rng.random() < 0.12:
        canvas = glyphs(rng, canvas, int(rng.integers(1, 6)))
    if rng.random() < 0.3:  # cast light over everything
        canvas = canvas * (1 + 0.45 * rng.random() * ramp(rng, n, n)[..., None])
    if rng.random() < 0.4:  # focus
        canvas = ndimage.gaussian_filter(canvas, (s := rng.uniform(0.6, 3.0), s, 0))
    canvas = canvas.reshape(side, 2, side, 2, 3).mean((1, 3))
    if rng.random() < 0.35:  # sensor noise
        canvas = canvas + rng.normal(0, rng.uniform(0.5, 5), canvas.shape)
    if rng.random() < 0.2:
        canvas = canvas.mean(2, keepdims=True) + (canvas - canvas.mean(2, keepdims=True)) * rng.uniform(0, 1.3)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
