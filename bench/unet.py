"""Luna beside torch on the UNet of SD1.5 or SDXL: time, memory, callers, the first answer, and whether they give the same.

    pip install torch diffusers safetensors numpy
    cargo build --release -p luna-cli
    python bench/unet.py [--model sd15] [--batch 2] [--size 512] [--runs 3] [--precisions f32 bf16] [--callers 8] [--threads N]

The model has the real shape with random weights, stored in f16 as checkpoints are, 1.7 GB for SD1.5. Each measurement is a process of its own,
one after the other in one run on one machine: a figure is worth something only as a ratio to its neighbour's. Times are of the fastest counted
run after one that warms up; for Luna `luna-cli bench unet` takes them. torch runs in channels-last. Outputs are compared with what torch
computes in f32, through files that `luna-cli forward` writes.

"First answer" is the wall time of a whole `luna-cli forward` on a file that is not in the page cache, less the forward itself.

With --callers N, N threads call one Luna model at the same time, and N torch processes hold a copy each; torch's processes start
together and count their own time. Memory is what all processes hold.
"""
import argparse, json, os, pathlib, resource, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LUNA = ROOT / "target" / "release" / "luna-cli"


def model(torch, name):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    if name == "sd15":
        return UNet2DConditionModel(down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
                                    block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8).eval()
    return UNet2DConditionModel(down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2, up_block_types=["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
                                block_out_channels=(320, 640, 1280), cross_attention_dim=2048, attention_head_dim=[5, 10, 20], transformer_layers_per_block=[1, 2, 10],
                                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
                                projection_class_embeddings_input_dim=2816).eval()


def call(unet, given, dtype):
    import torch

    added = None
    if "text" in given:
        added = {"text_embeds": given["text"].to(dtype), "time_ids": given["time_ids"]}
    return unet(given["x"].to(dtype), given["timesteps"], given["context"].to(dtype), added_cond_kwargs=added).sample.to(torch.float32)


def prepare(folder, a):
    """Writes the weights in f16, the input, and what torch makes of it in f32."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_grad_enabled(False)
    unet = model(torch, a.model)
    weights = folder / f"{a.model}.safetensors"
    if not weights.exists():
        save_file({name: value.half().contiguous() for name, value in unet.state_dict().items()}, weights)
    unet.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    side, width = a.size // 8, {"sd15": 768, "sdxl": 2048}[a.model]
    given = {"x": torch.randn(a.batch, 4, side, side), "timesteps": torch.full((a.batch,), 500.0), "context": torch.randn(a.batch, 77, width)}
    if a.model == "sdxl":
        given["text"] = torch.randn(a.batch, 1280)
        given["time_ids"] = torch.tensor([[a.size, a.size, 0, 0, a.size, a.size]] * a.batch, dtype=torch.float32)
        given["y"] = torch.cat([given["text"], unet.add_time_proj(given["time_ids"].flatten()).reshape(a.batch, -1)], dim=1)
    save_file(given | {"out": call(unet, given, torch.float32)}, step_file(folder, a))


def step_file(folder, a):
    return folder / f"{a.model}-{a.batch}x{a.size}.safetensors"


def peer(folder, a):
    """One measurement of torch, in this process; prints JSON."""
    import torch
    from safetensors.torch import load_file

    torch.set_grad_enabled(False)
    if a.threads:
        torch.set_num_threads(a.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[a.precisions[0]]
    # One copy in memory at any time: the weights go from the mapped file into their own precision.
    torch.set_default_dtype(dtype)
    unet = model(torch, a.model)
    torch.set_default_dtype(torch.float32)
    unet.load_state_dict(load_file(folder / f"{a.model}.safetensors"))
    unet = unet.to(memory_format=torch.channels_last)
    given = load_file(step_file(folder, a))
    out = call(unet, given, dtype)
    if a.start_at:
        print("ready", flush=True)
        sys.stdin.readline()
    times, start = [], time.perf_counter()
    for _ in range(a.runs):
        before = time.perf_counter()
        call(unet, given, dtype)
        times.append(time.perf_counter() - before)
    seconds = time.perf_counter() - start
    error = ((out - given["out"]).norm() / given["out"].norm()).item()
    told = {"best_seconds": min(times), "seconds": seconds, "resident": resident(), "peak_bytes": peak_bytes(), "relative_error": error}
    print(json.dumps(told), flush=True)
    if a.start_at:
        sys.stdin.readline()


def resident():
    pages = pathlib.Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else peak_bytes()


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def bench(folder, a, precision, callers=1):
    common = ["--precision", precision, "--json"] + (["--threads", a.threads] if a.threads else [])
    command = [LUNA, "bench", "unet", "--model", folder / f"{a.model}.safetensors", "--size", a.size, "--batch", a.batch]
    return run([*command, "--runs", a.runs, "--callers", callers, *common])


def torch_command(folder, a, precision):
    command = [sys.executable, __file__, "--peer", "--folder", folder, "--model", a.model, "--batch", a.batch, "--size", a.size]
    return [str(part) for part in [*command, "--precisions", precision, "--runs", a.runs, "--threads", a.threads]]


def forward(folder, a, precision):
    """The relative error of a whole `luna-cli forward` on a cold file, and its wall time beside the forward's."""
    import numpy as np
    from safetensors.numpy import load_file

    weights, out = folder / f"{a.model}.safetensors", folder / "luna.safetensors"
    with open(weights, "rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    told = run([LUNA, "forward", step_file(folder, a), "-o", out, "--model", weights, "--precision", precision, "--json"])
    wall = time.perf_counter() - start
    ours, theirs = load_file(out)["out"], load_file(step_file(folder, a))["out"]
    error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return {"relative_error": error, "wall": wall, "overhead": wall - told["calls"][0]["seconds"], "load_seconds": told["model"]["load_seconds"]}


def compare(folder, a):
    rows = []
    print(f"{a.model}, batch {a.batch}, {a.size}² pixels, {a.threads or os.cpu_count()} threads; peak memory in GiB")
    print(f"{'':6}{'Luna':>18}{'torch':>18}{'Luna / torch':>14}   relative error of each; first answer")
    for precision in a.precisions:
        mine, first = bench(folder, a, precision), forward(folder, a, precision)
        theirs = run(torch_command(folder, a, precision))
        rows.append({"precision": precision, "luna": mine, "first": first, "torch": theirs})
        cell = lambda seconds, peak: f"{seconds:.2f} s, {peak / 2**30:.2f}"
        ratio = mine["best_seconds"] / theirs["best_seconds"]
        print(f"{precision:6}{cell(mine['best_seconds'], mine['running_memory_bytes']):>18}{cell(theirs['best_seconds'], theirs['peak_bytes']):>18}{ratio:>14.2f}"
              f"   {first['relative_error']:.1e} {theirs['relative_error']:.1e}; forward + {first['overhead']:.2f} s (loading {first['load_seconds']:.2f} s)", flush=True)
    return rows


def callers(folder, a):
    """Many callers: threads on one copy, and processes of torch with a copy each."""
    precision = a.precisions[0]
    mine = bench(folder, a, precision, a.callers)
    children = [subprocess.Popen(torch_command(folder, a, precision) + ["--start-at"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                for _ in range(a.callers)]
    for child in children:
        if child.stdout.readline().strip() != "ready":
            raise SystemExit("a torch process failed")
    start = time.perf_counter()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    theirs = [json.loads(child.stdout.readline()) for child in children]
    seconds = time.perf_counter() - start
    for child in children:
        child.stdin.close()
        child.wait()
    held = sum(child["resident"] for child in theirs)
    gib = lambda bytes: f"{bytes / 2**30:.2f} GiB"
    one, running = mine["loaded_memory_bytes"], mine["running_memory_bytes"]
    print(f"\n{a.callers} callers, {a.runs} calls each in {precision}")
    print(f"  Luna, one process:       {mine['seconds']:.1f} s; {gib(mine['model']['weight_bytes'])} of weights, {gib(one)} held loaded, {gib(running)} while answering")
    print(f"  torch, {a.callers} processes:      {seconds:.1f} s; {gib(held)} held in all ({held / running:.1f} times Luna's)")
    return {"precision": precision, "luna": mine, "torch": {"seconds": seconds, "held": held}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["sd15", "sdxl"], default="sd15")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512, help="side of the square picture")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", choices=["f32", "bf16", "f16"], default=["f32", "bf16"])
    parser.add_argument("--callers", type=int, default=0, help="also measure so many callers at the same time")
    parser.add_argument("--threads", type=int, default=0, help="0: each one's default")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--folder", type=pathlib.Path, help="keep weights and inputs here and use them again")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--start-at", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.folder, a)
    if not LUNA.exists():
        raise SystemExit("build it first: cargo build --release -p luna-cli")
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.folder or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not step_file(folder, a).exists():
            prepare(folder, a)
        figures = {"alone": compare(folder, a)}
        if a.callers:
            figures["callers"] = callers(folder, a)
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(figures, indent=1))


main()
