"""Luna's picture encoders beside Pillow's, on the same photographs, in one run.

    python bench/save.py [--side 1024] [--rounds 5] [--threads 1]

Needs Pillow, numpy and scikit-image (which ships the photographs) and builds the example `save_speed` in release mode.
Each photograph is measured as it is (scaled, so smooth) and with noise of a camera's kind; each figure is the best of the
rounds. Pillow uses one core; --threads is what Luna may use, 0 for all cores.
"""
import argparse
import io
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
import skimage

PHOTOGRAPHS = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg"]
PILLOW = {
    "Pillow png 4": ("PNG", {"compress_level": 4}),
    "Pillow webp 90": ("WEBP", {"quality": 90}),
    "Pillow webp lossless": ("WEBP", {"lossless": True}),
    "Pillow jpeg 90": ("JPEG", {"quality": 90}),
}
BESIDE = {"png": "Pillow png 4", "webp 90": "Pillow webp 90", "webp lossless": "Pillow webp lossless", "jpeg 90": "Pillow jpeg 90"}


def photographs(side):
    folder = Path(skimage.__file__).parent / "data"
    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        picture = Image.open(folder / name).convert("RGB")
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        picture = picture.crop((left, top, left + short, top + short)).resize((side, side), Image.LANCZOS)
        array = np.asarray(picture)
        yield name.split(".")[0], array
        yield name.split(".")[0] + "+noise", (array.astype(int) + rng.integers(-4, 5, array.shape)).clip(0, 255).astype(np.uint8)


def pillow(array, rounds):
    picture = Image.fromarray(array)
    for label, (form, options) in PILLOW.items():
        best = float("inf")
        for _ in range(rounds):
            out, start = io.BytesIO(), time.perf_counter()
            picture.save(out, form, **options)
            best = min(best, (time.perf_counter() - start) * 1e3)
        yield label, best, out.tell()


def luna(root, paths, side, rounds, threads):
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "luna-core", "--example", "save_speed"], cwd=root, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    environment = dict(os.environ, **({"RAYON_NUM_THREADS": str(threads)} if threads else {}))
    command = [target / "release/examples/save_speed", str(rounds), str(side), *paths]
    for line in subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.splitlines():
        name, label, milliseconds, size = line.split("\t")
        yield name, label, float(milliseconds), int(size)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, array in photographs(options.side):
            paths.append(Path(folder) / f"{name}.rgb")
            array.tofile(paths[-1])
            figures[name] = {label: (ms, size) for label, ms, size in pillow(array, options.rounds)}
        for name, label, ms, size in luna(root, paths, options.side, options.rounds, options.threads):
            figures[name][label] = (ms, size)
    print(f"{options.side}x{options.side}, {options.threads or 'all'} thread(s) for Luna; milliseconds, megabytes, times as fast, of the size")
    for label in list(PILLOW) + [label for label in next(iter(figures.values())) if label not in PILLOW]:
        print(f"\n{label}")
        peer = next((peer for start, peer in BESIDE.items() if label.startswith(start)), None)
        for name, found in figures.items():
            ms, size = found[label]
            line = f"  {name:24} {ms:8.2f} ms"
            if size:
                line += f" {size / 1e6:7.3f} MB"
            if peer:
                line += f"   {found[peer][0] / ms:6.1f} x  {size / found[peer][1]:6.3f}"
            print(line)


main()
