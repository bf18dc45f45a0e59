"""Write moonlet.safetensors from a training state, and report the figures of what was written.

    python export.py RUN/state.pt [--side-by-side FOLDER]

The file is f16, in the ldm layout, with bare names. Every figure is measured on the file as written, widened
to f32: latent statistics on procedural pictures that training never drew, PSNR on those, and PSNR on three
photographs that scikit-image ships. The photographs choose nothing; they are only reported.
"""

import argparse
import os

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pictures
from net import Moonlet, stored
from train import HELD_OUT

HERE = os.path.dirname(os.path.abspath(__file__))


def to_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_picture(x):
    return ((x[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def square(picture, side=512):
    """The largest centred square, resized with Lanczos where it is not `side` already."""
    h, w = picture.shape[:2]
    n = min(h, w)
    top, left = (h - n) // 2, (w - n) // 2
    image = Image.fromarray(picture[top:top + n, left:left + n])
    return np.asarray(image if n == side else image.resize((side, side), Image.LANCZOS))


def photographs():
    from skimage import data
    return {name: square(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea")}


def drawn():
    """Pictures that show colour and tile faults: flat fields, gradients, a page."""
    rng = np.random.default_rng(5)
    flats = np.zeros((512, 512, 3), np.float32)
    for i in range(16):
        flats[i // 4 * 128:i // 4 * 128 + 128, i % 4 * 128:i % 4 * 128 + 128] = rng.uniform(0, 255, 3)
    t = np.linspace(0, 1, 512, dtype=np.float32)
    gradient = np.stack([255 * t[None] + 0 * t[:, None], 255 * t[:, None] + 0 * t[None],
                         255 - 255 * t[None] + 0 * t[:, None]], 2)
    page = np.full((512, 512, 3), 250, np.float32)
    page = pictures.glyphs(rng, page, 12)
    out = {"flats": flats, "gradient": gradient, "page": pictures.glyphs(rng, page, 14)}
    for name, c in dict(white=(255,) * 3, black=(0,) * 3, grey=(128,) * 3, sky=(90, 150, 220), red=(220, 20, 20)).items():
        out[name] = np.full((512, 512, 3), c, np.float32)
    return {k: v.clip(0, 255).astype(np.uint8) for k, v in out.items()}


def psnr(a, b):
    """Of 8-bit pictures."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float("inf") if error == 0 else 10 * np.log10(255 ** 2 / error)


@torch.no_grad()
def passed(model, picture):
    return to_picture(model.decoder(model.moments(to_tensor(picture))[0]))


@torch.no_grad()
def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("state")
    args.add_argument("--file", default=os.path.join(HERE, "moonlet.safetensors"))
    args.add_argument("--side-by-side", help="folder for pictures: before on the left, after on the right")
    args = args.parse_args()
    torch.set_num_threads(1)

    saved = torch.load(args.state)
    state = {k: v.half().contiguous() for k, v in stored(saved["ema"]).items()}
    model = Moonlet(trained=False).eval()
    model.load_state_dict({k: v.float() for k, v in state.items()})

    held = [pictures.scene(HELD_OUT + i) for i in range(16)]
    latents = torch.cat([model.moments(to_tensor(p))[0] for p in held]).double()
    shift = round(latents.mean().item(), 4)
    scale = round(1 / latents.std().item(), 4)
    metadata = {
        "name": "moonlet",
        "description": "demonstration model: a small 16-channel KL autoencoder trained on procedural pictures only",
        "licence": "MIT OR Apache-2.0",
        "architecture": "ldm AutoencoderKL, ch 32, ch_mult 2 1 2 3, num_res_blocks 1, z_channels 16, no quant convolutions",
        "scale_factor": str(scale),
        "shift_factor": str(shift),
        "latent": "scaled = (mean - shift_factor) * scale_factor",
        "training_steps": str(saved["step"]),
    }
    save_file(state, args.file, metadata)
    model.load_state_dict({k: v.float() for k, v in load_file(args.file).items()})

    print(f"{args.file}: {os.path.getsize(args.file)} bytes, {sum(v.numel() for v in state.values())} parameters, "
          f"{saved['step']} steps, {saved['seconds'] / 60:.0f} minutes of training")
    deviations = latents.std((0, 2, 3)) * scale
    print(f"scale_factor {scale}, shift_factor {shift}; scaled, the channels' deviations are "
          f"{deviations.min():.2f} to {deviations.max():.2f}")
    noise = torch.cat([model.moments(to_tensor(p))[1] for p in held[:8]]).mul(0.5).exp()
    print(f"sampling noise: mean deviation {noise.mean() * scale:.3f} (scaled)")
    print(f"held-out procedural pictures: {np.mean([min(psnr(p, passed(model, p)), 60) for p in held]):.2f} dB")
    mean = []
    for group, found in (("photograph", photographs()), ("drawn", drawn())):
        for name, before in found.items():
            after = passed(model, before)
            print(f"{group} {name}: {psnr(before, after):.2f} dB, mean colour off by "
                  f"{np.abs(before.mean((0, 1)) - after.mean((0, 1))).max():.2f} of 255")
            if group == "photograph":
                mean.append(psnr(before, after))
            if args.side_by_side:
                os.makedirs(args.side_by_side, exist_ok=True)
                Image.fromarray(np.concatenate([before, after], 1)).save(f"{args.side_by_side}/{name}.png")
    print(f"mean over the photographs: {np.mean(mean):.2f} dB")


if __name__ == "__main__":
    main()
