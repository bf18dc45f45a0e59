"""Train moonlet from nothing but procedural pictures, on a CPU.

    python train.py --out RUN            # start, or go on from RUN/state.pt
    python export.py RUN/state.pt        # write moonlet.safetensors and report its figures

SIGINT and SIGTERM save RUN/state.pt and stop. Crops, flips and latent noise depend on the seed and the step
alone, and pictures on their numbers, so a stopped run goes on as it would have. What it took is in README.md.
"""

import argparse
import json
import math
import multiprocessing
import os
import signal
import time

import numpy as np
import torch
import torch.nn.functional as F

import pictures
from net import Moonlet, Z

SIDE, CHUNK, WINDOW = 384, 64, 20
STEPS_PER_CHUNK = 240
HELD_OUT = 1_000_000_000  # scene numbers from here on are never trained on
KL, SSIM, MSE = 1e-3, 0.08, 4.0


# ---------------------------------------------------------------- pictures

def newest_chunk(step):
    return 12 + step // STEPS_PER_CHUNK


def draw_chunks(folder, step, steps):
    """Worker: writes chunks of scenes a little ahead of the trainer, whose step it reads from `step`."""
    os.nice(5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    for c in range(max(0, newest_chunk(step.value) - WINDOW + 1), newest_chunk(steps) + 1):
        path = os.path.join(folder, f"{c:05}.npy")
        while not os.path.exists(path) and c > newest_chunk(step.value) + 8:
            time.sleep(1)
            if os.getppid() != parent:
                return
        if not os.path.exists(path):
            part = np.stack([pictures.scene(c * CHUNK + i, SIDE) for i in range(CHUNK)])
            np.save(path + ".part.npy", part)
            os.replace(path + ".part.npy", path)


def recolour(rng, crop):
    """Now and then other channels, more saturation, or one flat colour: all of the colour cube must pass."""
    kind = rng.random()
    if kind < 0.08:
        return np.broadcast_to(np.round(255 * rng.beta(0.5, 0.5, 3)).astype(np.uint8), crop.shape)
    if kind < 0.2:
        crop = crop[..., rng.permutation(3)]
    if 0.12 < kind < 0.28:
        grey = crop.mean(2, keepdims=True)
        crop = np.clip(grey + (crop - grey) * rng.uniform(1.3, 3.5) + 0.5, 0, 255).astype(np.uint8)
    return crop


class Crops:
    """Batches of augmented crops; the same step always gives the same batch."""

    def __init__(self, folder, seed):
        self.folder, self.seed, self.chunks = folder, seed, {}

    def load(self, last):
        for c in range(max(0, last - WINDOW + 1), last + 1):
            path = os.path.join(self.folder, f"{c:05}.npy")
            while c not in self.chunks:
                if os.path.exists(path):
                    self.chunks[c] = np.load(path, mmap_mode="r")
                else:
                    time.sleep(0.5)
        for c in [c for c in self.chunks if c <= last - WINDOW]:
            del self.chunks[c]
            os.remove(os.path.join(self.folder, f"{c:05}.npy"))

    def batch(self, step, count, size):
        rng = np.random.default_rng((self.seed, step))
        self.load(newest_chunk(step))
        keys, out = sorted(self.chunks), []
        for _ in range(count):
            picture = self.chunks[keys[rng.integers(len(keys))]][rng.integers(CHUNK)]
            y, x = rng.integers(0, SIDE - size + 1, 2)
            crop = picture[y:y + size, x:x + size]
            if rng.random() < 0.5:
                crop = crop[:, ::-1]
            if rng.random() < 0.5:
                crop = crop[::-1]
            if rng.random() < 0.3:
                crop = crop.transpose(1, 0, 2)
            out.append(np.ascontiguousarray(recolour(rng, crop)))
        x = torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return x.contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- objective

def ssim(a, b):
    """Mean structural similarity with a 7x7 box window, for values in -1..1."""
    pool = lambda t: F.avg_pool2d(t, 7, 1)
    ma, mb = pool(a), pool(b)
    va, vb, cov = pool(a * a) - ma * ma, pool(b * b) - mb * mb, pool(a * b) - ma * mb
    c1, c2 = 4 * 0.01 ** 2, 4 * 0.03 ** 2
    return (((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean()


def losses(model, x, noise):
    mean, log_var = model.moments(x)
    y = model.decoder(mean + torch.exp(0.5 * log_var) * noise).float()
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
    mse = (y - x).square().mean()
    return (y - x).abs().mean() + MSE * mse + SSIM * (1 - ssim(y, x)) + KL * kl, mse, kl


# ---------------------------------------------------------------- optimiser

def orthogonal(g):
    """The nearest semi-orthogonal matrix, roughly, by Newton-Schulz steps (Muon, Jordan 2024)."""
    x = g.flatten(1)
    turn = x.shape[0] > x.shape[1]
    x = x.T if turn else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if turn else x).reshape(g.shape)


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, scaled so that an entry moves as Adam's would at the same rate."""

    def __init__(self, params, lr, momentum=0.95, decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - group["momentum"])
                g = orthogonal(p.grad.lerp(buf, group["momentum"]).contiguous())
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(g, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape[0], p[0].numel())))


def start(model):
    """Streams keep the variance of what they carry; residual branches begin small."""
    for name, p in model.named_parameters():
        if p.ndim < 4:
            if "norm" not in name:
                torch.nn.init.zeros_(p)
            continue
        leaf = name.rsplit(".", 2)[-2]
        gain = {"conv1": 1.4, "conv2": 0.3, "proj_out": 0.1}.get(leaf, 1.0)
        torch.nn.init.normal_(p, std=gain / math.sqrt(p[0].numel()))
        if "upsample" in name:  # begin as the interpolation itself
            with torch.no_grad():
                p.mul_(0.3)[range(len(p)), range(len(p)), 1, 1] += 0.8
    with torch.no_grad():
        model.encoder.conv_out.weight[Z:] *= 0.05
        model.encoder.conv_out.bias[Z:] = -6.0
        model.decoder.conv_out.weight *= 0.3


def rate(step, steps, warm=100, floor=0.01):
    if step < warm:
        return (step + 1) / warm
    t = (step - warm) / max(1, steps - warm)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))


# ---------------------------------------------------------------- the run

def psnr(model, x):
    with torch.no_grad():
        y = model.decoder(model.moments(x)[0]).clamp(-1, 1)
    return (-10 * ((y - x) / 2).square().mean((1, 2, 3)).log10()).mean().item()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", required=True)
    args.add_argument("--steps", type=int, default=1700)
    args.add_argument("--large", type=float, default=0.0, help="share of the steps, at the end, with 256² crops")
    args.add_argument("--batch", type=int, default=4)
    args.add_argument("--lr", type=float, default=6e-4, help="peak rate; norms, biases and the ends get twice as much")
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--no-compile", action="store_true")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(os.path.join(args.out, "chunks"), exist_ok=True)
    path = os.path.join(args.out, "state.pt")

    model = Moonlet()
    start(model)
    model.to(memory_format=torch.channels_last)
    ends = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_out")
    matrix = [p for n, p in model.named_parameters() if p.ndim == 4 and not n.startswith(ends)]
    others = [p for n, p in model.named_parameters() if p.ndim < 4 or n.startswith(ends)]
    muon = Muon(matrix, lr=args.lr)
    adam = torch.optim.AdamW(others, lr=2 * args.lr, betas=(0.9, 0.98), weight_decay=0.0)
    ema = Moonlet()
    ema.load_state_dict(model.state_dict())
    step, seconds = 0, 0.0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        ema.load_state_dict(saved["ema"])
        muon.load_state_dict(saved["muon"])
        adam.load_state_dict(saved["adam"])
        step, seconds = saved["step"], saved["seconds"]

    def save():
        torch.save(dict(model=model.state_dict(), ema=ema.state_dict(), muon=muon.state_dict(),
                        adam=adam.state_dict(), step=step, seconds=seconds), path + ".part")
        os.replace(path + ".part", path)

    reached = multiprocessing.Value("i", step)
    worker = multiprocessing.Process(target=draw_chunks, daemon=True,
                                     args=(os.path.join(args.out, "chunks"), reached, args.steps))
    worker.start()
    stop = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.append(1))

    crops = Crops(os.path.join(args.out, "chunks"), args.seed)
    held = np.stack([pictures.scene(HELD_OUT + i, SIDE)[:256, :256] for i in range(16)])
    held = torch.from_numpy(held).permute(0, 3, 1, 2).float() / 127.5 - 1
    run = losses if args.no_compile else torch.compile(losses)
    began, sums, count = time.time(), torch.zeros(3), 0
    while step < args.steps and not stop:
        large = step >= args.steps * (1 - args.large)
        x = crops.batch(step, max(1, args.batch // 4) if large else args.batch, 256 if large else 128)
        noise = torch.randn((len(x), Z, x.shape[2] // 8, x.shape[3] // 8),
                            generator=torch.Generator().manual_seed(args.seed * 1_000_003 + step))
        factor = rate(step, args.steps)
        for optimiser, times in ((muon, 1), (adam, 2)):
            for group in optimiser.param_groups:
                group["lr"] = args.lr * times * factor
            optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss, mse, kl = run(model, x, noise)
        loss.backward()
        if not torch.isfinite(loss):
            raise SystemExit(f"step {step}: the loss is not finite; go on from the last state with a lower --lr")
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        step += 1
        reached.value = step
        with torch.no_grad():
            weight = 1 - min(0.998, (1 + step) / (10 + step))
            for a, b in zip(ema.parameters(), model.parameters()):
                a.lerp_(b, weight)
        sums += torch.stack([loss, mse, kl]).detach()
        count += 1
        if step % 50 == 0:
            now = time.time()
            seconds += now - began
            l, m, k = (sums / count).tolist()
            print(json.dumps(dict(step=step, loss=round(l, 4), psnr=round(-10 * math.log10(m / 4), 2), kl=round(k, 3),
                                  rate=round(args.lr * factor, 6), s_per_step=round((now - began) / count, 3),
                                  minutes=round(seconds / 60, 1))), flush=True)
            began, sums, count = now, torch.zeros(3), 0
        if step % 500 == 0 or step == args.steps:
            print(json.dumps(dict(step=step, held_out_psnr=round(psnr(ema, held), 2))), flush=True)
            save()
    save()
    worker.terminate()


if __name__ == "__main__":
    main()
