"""Luna's text encoders beside torch: time, memory, time to load, and whether they give the same.

    pip install torch transformers safetensors numpy
    cargo build --release -p luna-cli
    python bench/text.py [--models clip-l clip-g] [--precisions f32 bf16] [--runs 5] [--threads N] [--json FILE]

The models have the shapes of SD1.5's CLIP-L (123 million parameters) and SDXL's CLIP-G (695 million) with random weights, in files
of the precision that is measured. The input is one chunk of 77 tokens. A round goes through Luna and torch in turn, each in a process
of its own and after a run that warms it up, and the fastest run of all rounds counts: a figure is worth something only as a ratio to
its neighbour's. Outputs are compared with what torch computes in f32, through a file that `luna-cli text` writes. `first` is how much
longer than its own forward, which is then the first one, that command takes from start to a written file, with the
weights mapped from a file in the cache. `held` is the peak memory of that process over the size of the weights' file.
"""
import argparse, json, os, pathlib, resource, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LUNA = ROOT / "target" / "release" / "luna-cli"
SHAPES = {
    "clip-l": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768),
    "clip-g": dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu", projection_dim=1280),
}


def model(name):
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    kind = CLIPTextModelWithProjection if name == "clip-g" else CLIPTextModel
    return kind(CLIPTextConfig(vocab_size=49408, **SHAPES[name])).eval()


def prepare(folder, name):
    """Writes the weights in both precisions, the tokens, and what torch f32 makes of them."""
    import torch
    from safetensors.torch import save_file

    encoder = model(name)
    for precision, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        # transformers 5 leaves this prefix out where there is no projection; files of real models have it.
        named = lambda key: key if key.startswith("text_") else f"text_model.{key}"
        state = {named(key): value.to(dtype).contiguous() for key, value in encoder.state_dict().items()}
        save_file(state, folder / f"{name}-{precision}.safetensors")
    ids = torch.randint(0, 49000, (1, 77))
    ids[0, 0], ids[0, 60:] = 49406, 49407
    out = encoder(ids, output_hidden_states=True)
    cond, pooled = (out.hidden_states[-2], out.text_embeds) if name == "clip-g" else (out.last_hidden_state, out.pooler_output)
    save_file({"input_ids": ids, "cond": cond.contiguous(), "pooled": pooled.contiguous()}, folder / f"{name}-io.safetensors")


def peer(folder, name, precision, runs, threads):
    """One measurement of torch, in this process; prints JSON."""
    import torch
    from safetensors.torch import load_file

    if threads:
        torch.set_num_threads(threads)
    # The seed makes it the model of the file.
    encoder = model(name).to({"f32": torch.float32, "bf16": torch.bfloat16}[precision])
    ids = load_file(folder / f"{name}-io.safetensors")["input_ids"]
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        encoder(ids, output_hidden_states=True)
        times.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(times[1:])}))


def run(command):
    start = time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1]) | {"process_seconds": time.perf_counter() - start}


def luna(folder, name, precision, a):
    """One measurement of Luna."""
    weights = folder / f"{name}-{precision}.safetensors"
    common = ["--precision", precision, "--json"] + (["--threads", a.threads] if a.threads else [])
    flag, out = "--clip-l" if name == "clip-l" else "--clip-g", folder / "luna.safetensors"
    command = [LUNA, "text", "--tokens", folder / f"{name}-io.safetensors", flag, weights, "-o", out, *common]
    told = [run(command) for _ in range(a.runs)]
    warm = run([LUNA, "bench", "text", "--model", weights, "--runs", a.runs, *common])
    import numpy as np
    from safetensors.numpy import load_file

    ours, theirs = load_file(out), load_file(folder / f"{name}-io.safetensors")
    errors = [float(np.linalg.norm(ours[key] - theirs[key]) / np.linalg.norm(theirs[key])) for key in ("cond", "pooled")]
    return {
        "seconds": warm["best_seconds"],
        "first_seconds": min(one["process_seconds"] - one["call"]["seconds"] for one in told),
        "load_seconds": min(one["load_seconds"] for one in told),
        "held": max(one["peak_memory_bytes"] for one in told) / weights.stat().st_size,
        "relative_error": max(errors),
    }


def compare(folder, a):
    rows = []
    print(f"{a.threads or os.cpu_count()} threads, 77 tokens\n")
    print(f"{'':14}{'Luna':>10}{'torch':>10}{'Luna/torch':>12}{'first':>10}{'held':>7}   relative error")
    for name in a.models:
        for precision in a.precisions:
            rounds = []
            for _ in range(a.rounds):
                mine = luna(folder, name, precision, a)
                command = [sys.executable, __file__, "--peer", "--folder", folder, "--models", name, "--precisions", precision]
                rounds.append((mine, run([*command, "--runs", a.runs, "--threads", a.threads])))
            least = lambda side, key: min(round[side][key] for round in rounds)
            row = {"model": name, "precision": precision, "torch_seconds": least(1, "seconds")}
            row |= {key: least(0, key) for key in rounds[0][0]}
            rows.append(row)
            print(f"{name} {precision:<7}{row['seconds']:>8.3f} s{row['torch_seconds']:>8.3f} s{row['seconds'] / row['torch_seconds']:>12.2f}"
                  f"{row['first_seconds']:>8.2f} s{row['held']:>7.2f}   {row['relative_error']:.1e}", flush=True)
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(rows, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", choices=list(SHAPES), nargs="+", default=list(SHAPES))
    parser.add_argument("--precisions", choices=["f32", "bf16"], nargs="+", default=["f32", "bf16"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: each one's default")
    parser.add_argument("--json", help="write the rows to this file too")
    parser.add_argument("--folder", type=pathlib.Path, help="keep weights and inputs here and use them again")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.folder, a.models[0], a.precisions[0], a.runs, a.threads)
    if not LUNA.exists():
        raise SystemExit("build it first: cargo build --release -p luna-cli")
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.folder or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in a.models:
            if not (folder / f"{name}-io.safetensors").exists():
                prepare(folder, name)
        compare(folder, a)


main()
