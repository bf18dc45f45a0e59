"""Luna beside torch and OpenVINO on one VAE: time, peak memory, and whether they give the same.

    pip install torch diffusers safetensors openvino numpy
    cargo build --release -p luna-cli
    python bench/vae.py [--sizes 256 512 1024] [--runs 3] [--precision f32] [--threads N] [--peers torch openvino] [--json FILE]

The model has the shape of SDXL's VAE (83.7 million parameters) with random weights. Each measurement is a process of its
own, so that peak memory is its own too, and all happen in one run on one machine, one after the other: a figure is worth
something only as a ratio to its neighbour's. Times are of the fastest counted run after one that warms up; for Luna
`luna-cli bench` takes them. Outputs are compared through files that `luna-cli decode` and `encode` write and that torch computes in f32.
A torch f32 decode of 1024² needs about 6 GB; torch in bf16 takes minutes on a processor without AVX-512: `--peers openvino` leaves it out.
"""
import argparse, json, os, pathlib, resource, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LUNA = ROOT / "target" / "release" / "luna-cli"


def model(torch):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[128, 256, 512, 512],
        layers_per_block=2, latent_channels=4, norm_num_groups=32, sample_size=1024,
    ).eval()


def prepare(folder, sizes):
    """Writes the weights, and for each size an input of each direction with what torch f32 makes of it."""
    import torch
    from safetensors.torch import save_file

    torch.set_grad_enabled(False)
    vae = model(torch)
    save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, folder / "vae.safetensors")
    for size in sizes:
        latent, image = torch.randn(1, 4, size // 8, size // 8), torch.rand(1, size, size, 3)
        decoded = (0.5 * vae.decode(latent).sample + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        mean = vae.encode(2 * image.permute(0, 3, 1, 2) - 1).latent_dist.mean
        for name, tensors in (("latent", {"latent": latent, "decoded": decoded}), ("image", {"image": image, "mean": mean})):
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}-{size}.safetensors")


def best(work, runs):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peer(name, folder, direction, size, precision, runs, threads):
    """One measurement of a peer, in this process; prints JSON."""
    import torch
    from safetensors.torch import load_file

    torch.set_grad_enabled(False)
    if threads:
        torch.set_num_threads(threads)
    vae = model(torch)
    vae.load_state_dict(load_file(folder / "vae.safetensors"))
    if direction == "decode":
        x = load_file(folder / f"latent-{size}.safetensors")["latent"]
    else:
        x = 2 * load_file(folder / f"image-{size}.safetensors")["image"].permute(0, 3, 1, 2).contiguous() - 1
    if name == "torch":
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]
        vae = vae.to(dtype).to(memory_format=torch.channels_last)
        x = x.to(dtype).to(memory_format=torch.channels_last)
        work = (lambda: vae.decode(x)) if direction == "decode" else (lambda: vae.encode(x))
    else:
        import openvino

        class Half(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.vae = vae

            def forward(self, x):
                if direction == "decode":
                    return self.vae.decode(x, return_dict=False)[0]
                return self.vae.quant_conv(self.vae.encoder(x))

        converted = openvino.convert_model(Half(), example_input=x)
        converted.reshape(list(x.shape))
        options = {"INFERENCE_PRECISION_HINT": precision} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        compiled = openvino.Core().compile_model(converted, "CPU", options)
        work = lambda: compiled(x.numpy())
    print(json.dumps({"seconds": best(work, runs), "peak_bytes": peak_bytes()}))


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def luna(folder, direction, size, a):
    """Time and memory by `luna-cli bench`, the relative error by a file that it writes."""
    common = ["--precision", a.precision, "--json"] + (["--threads", a.threads] if a.threads else [])
    told = run([LUNA, "bench", "--model", folder / "vae.safetensors", "--size", size, "--only", direction, "--runs", a.runs, *common])
    timing = told["timings"][0]
    source, result, theirs = ("latent", "image", "decoded") if direction == "decode" else ("image", "latent", "mean")
    out = folder / "luna.safetensors"
    run([LUNA, direction, folder / f"{source}-{size}.safetensors", "-o", out, "--vae", folder / "vae.safetensors", *common])
    from safetensors.numpy import load_file
    import numpy as np

    ours, reference = load_file(out)[result], load_file(folder / f"{source}-{size}.safetensors")[theirs]
    error = float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))
    share = timing["share_of_peak"]
    return {"seconds": timing["best_seconds"], "peak_bytes": told["peak_memory_bytes"], "relative_error": error, "share_of_peak": share}


def compare(folder, a):
    rows = []
    print(f"{a.precision}, {a.threads or os.cpu_count()} threads; seconds (× Luna's), peak memory in GiB (× Luna's)\n")
    peers = "".join(f"{name:>28}" for name in a.peers)
    print(f"{'':16}{'Luna':>20}{peers}   relative error, share of peak")
    for size in a.sizes:
        for direction in ("decode", "encode"):
            row = {"direction": direction, "size": size, "luna": luna(folder, direction, size, a)}
            for name in a.peers:
                command = [sys.executable, __file__, "--peer", name, "--folder", folder, "--sizes", size, "--direction", direction]
                row[name] = run([*command, "--precision", a.precision, "--runs", a.runs, "--threads", a.threads])
            rows.append(row)
            mine = row["luna"]
            cells = [f"{mine['seconds']:.2f} s, {mine['peak_bytes'] / 2**30:.2f}"]
            for name in a.peers:
                theirs = row[name]
                time_ratio, memory_ratio = theirs["seconds"] / mine["seconds"], theirs["peak_bytes"] / mine["peak_bytes"]
                cells.append(f"{theirs['seconds']:.2f} s (×{time_ratio:.2f}), {theirs['peak_bytes'] / 2**30:.2f} (×{memory_ratio:.1f})")
            share = f"{mine['share_of_peak']:.0%}" if mine["share_of_peak"] else "-"
            others = "".join(f"{cell:>28}" for cell in cells[1:])
            print(f"{direction} {size:>5}²   {cells[0]:>20}{others}   {mine['relative_error']:.1e}, {share}", flush=True)
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(rows, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", choices=["f32", "bf16", "f16"], default="f32")
    parser.add_argument("--peers", choices=["torch", "openvino"], nargs="+", default=["torch", "openvino"])
    parser.add_argument("--threads", type=int, default=0, help="0: each one's default")
    parser.add_argument("--json", help="write the rows to this file too")
    parser.add_argument("--folder", type=pathlib.Path, help="keep weights and inputs here and use them again")
    parser.add_argument("--peer", choices=["torch", "openvino"], help=argparse.SUPPRESS)
    parser.add_argument("--direction", choices=["decode", "encode"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.peer, a.folder, a.direction, a.sizes[0], a.precision, a.runs, a.threads)
    if not LUNA.exists():
        raise SystemExit("build it first: cargo build --release -p luna-cli")
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.folder or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        missing = [size for size in a.sizes if not (folder / f"image-{size}.safetensors").exists()]
        if missing or not (folder / "vae.safetensors").exists():
            prepare(folder, a.sizes)
        compare(folder, a)


main()
