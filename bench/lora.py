"""What a LoRA costs in Luna, and what diffusers and PEFT take to load, fuse and unfuse the same file.

    pip install torch diffusers transformers peft safetensors numpy
    cargo build --release -p luna-cli
    python bench/lora.py [--models sd15 clip-g] [--rank 32] [--runs 3] [--threads N] [--json FILE]

Models have the real shapes with random weights, stored in f16: the UNet of SD1.5 with a batch of two 64x64 latents, and CLIP-G with one sequence of 77
tokens. The LoRA is for every linear layer of attentions and feed-forward blocks, written in f16 by PEFT. Each measurement is a process of its own, one
after the other in one run on one machine: a figure is worth something only as a ratio to its neighbour's. `luna-cli bench lora` takes Luna's times.
All compute in f32.

`of plain` is a call's time over the time of the same program's call without a LoRA: of the best ones, and for Luna, which takes them in turn, the median
over the rounds. A LoRA that is loaded changes the peers' model until it is unloaded or unfused, for everyone who calls it; Luna's rows leave the model
as it was. `memory` is the most that the process held in that state, `load` of the peers includes building the adapter's layers in the model.
"""
import argparse, importlib.util, json, os, pathlib, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LUNA = ROOT / "target" / "release" / "luna-cli"
TARGETS = {"sd15": ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"], "clip-g": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]}


def neighbour(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    source = (ROOT / "bench" / f"{name}.py").read_text()
    module = importlib.util.module_from_spec(spec)
    # The scripts run when they are imported.
    exec(compile(source.rsplit("\nmain()", 1)[0], str(spec.origin), "exec"), module.__dict__)
    return module


def build(name):
    import torch

    return neighbour("unet").model(torch, "sd15") if name == "sd15" else neighbour("text").model("clip-g")


def stored(name, key):
    # transformers 5 leaves this prefix out where there is no projection; files of real models have it.
    return key if name == "sd15" or key.startswith("text_") else f"text_model.{key}"


def prepare(folder, name, rank):
    """Writes the weights and the LoRA."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    torch.set_grad_enabled(False)
    model = build(name)
    save_file({stored(name, key): value.half().contiguous() for key, value in model.state_dict().items()}, folder / f"{name}.safetensors")
    wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS[name]))
    for part, value in wrapped.named_parameters():
        if "lora_B" in part:
            value.copy_(0.02 * rank**-0.5 * torch.randn(value.shape))
    part = "unet" if name == "sd15" else "text_encoder_2"
    state = {key.replace("base_model.model.", ""): value for key, value in get_peft_model_state_dict(wrapped).items()}
    save_file({f"{part}.{stored(name, key)}": value.half().contiguous() for key, value in state.items()}, folder / f"{name}-lora-{rank}.safetensors")


def held():
    pages = pathlib.Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def caller(name, model):
    import torch

    torch.manual_seed(1)
    if name == "sd15":
        given = torch.randn(2, 4, 64, 64), torch.full((2,), 500.0), torch.randn(2, 77, 768)
        return lambda model: model(*given)
    ids = torch.randint(0, 49000, (1, 77))
    ids[0, 0], ids[0, 76] = 49406, 49407
    return lambda model: model(ids, output_hidden_states=True)


def peer(folder, a):
    """One program's measurements, in this process; prints JSON."""
    import torch
    from safetensors.torch import load_file

    torch.set_grad_enabled(False)
    if a.threads:
        torch.set_num_threads(a.threads)
    name = a.models[0]
    model = build(name)
    model.load_state_dict({key if key in model.state_dict() else key.removeprefix("text_model."): value.float()
                           for key, value in load_file(folder / f"{name}.safetensors").items()})
    lora, call, rows = folder / f"{name}-lora-{a.rank}.safetensors", caller(name, model), []

    def timed(work):
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result

    def calls(way, model):
        call(model)
        times = sorted(timed(lambda: call(model))[0] for _ in range(a.runs))
        rows.append({"way": way, "seconds": times[0], "memory": held()})

    def step(way, work):
        seconds, result = timed(work)
        rows.append({"way": way, "seconds": seconds, "memory": held()})
        return result

    calls("plain", model)
    if a.peer == "diffusers":
        step("load", lambda: model.load_lora_adapter(str(lora), prefix="unet"))
        calls("loaded", model)
        step("fuse", lambda: model.fuse_lora())
        calls("fused", model)
        step("unfuse", lambda: model.unfuse_lora())
    else:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

        def load():
            wrapped = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=a.rank, target_modules=TARGETS[name]))
            part = "unet." if name == "sd15" else "text_encoder_2."
            keys = {key.removeprefix(part): value.float() for key, value in load_file(lora).items()}
            known = dict(wrapped.base_model.model.named_modules())
            shorter = lambda key: key if key.rsplit(".lora_", 1)[0] in known else key.removeprefix("text_model.")
            missing = set_peft_model_state_dict(wrapped, {f"base_model.model.{shorter(key)}": value for key, value in keys.items()})
            assert not missing.unexpected_keys, missing.unexpected_keys[:3]
            return wrapped.eval()

        wrapped = step("load", load)
        calls("loaded", wrapped.base_model.model)
        step("fuse", wrapped.merge_adapter)
        calls("fused", wrapped.base_model.model)
        step("unfuse", wrapped.unmerge_adapter)
    print(json.dumps(rows))


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def luna(folder, name, a):
    command = [LUNA, "bench", "lora", "--model", folder / f"{name}.safetensors", "--lora", folder / f"{name}-lora-{a.rank}.safetensors", "--runs", a.runs]
    told = run([*command, "--json"] + (["--threads", a.threads] if a.threads else []))
    rows = [{"way": row["way"].replace("_", " "), "seconds": row["best_seconds"], "ratio": row["ratio"], "memory": row["memory_bytes"]} for row in told["rows"]]
    steps = [("read and resolve", told["read_seconds"] + told["resolve_seconds"]), ("merge", told["merge_seconds"]), ("drop the merged copy", told["unmerge_seconds"])]
    return rows + [{"way": way, "seconds": seconds, "memory": None} for way, seconds in steps], told


def show(program, rows):
    plain = rows[0]["seconds"]
    for row in rows:
        ratio = f"{row.get('ratio', row['seconds'] / plain):.3f}" if row["way"] in ("plain", "functional", "first", "first with reading", "merged", "loaded", "fused") else ""
        memory = f"{row['memory'] / 2**30:.2f} GiB" if row["memory"] else ""
        print(f"{program:<11}{row['way']:<22}{row['seconds']:>9.3f} s {ratio:>9} {memory:>10}", flush=True)
        program = ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", choices=list(TARGETS), nargs="+", default=list(TARGETS))
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: each one's default")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--folder", type=pathlib.Path, help="keep weights and LoRAs here and use them again")
    parser.add_argument("--peer", choices=["diffusers", "peft"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.folder, a)
    if not LUNA.exists():
        raise SystemExit("build it first: cargo build --release -p luna-cli")
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.folder or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in a.models:
            if not (folder / f"{name}-lora-{a.rank}.safetensors").exists():
                prepare(folder, name, a.rank)
            print(f"\n{name}, rank {a.rank}, {a.threads or os.cpu_count()} threads\n{'':<11}{'':<22}{'best':>11} {'of plain':>9} {'memory':>10}")
            rows, told = luna(folder, name, a)
            figures[name] = {"luna": told}
            show("Luna", rows)
            for program in ["diffusers", "peft"] if name == "sd15" else ["peft"]:
                command = [sys.executable, __file__, "--peer", program, "--folder", folder, "--models", name, "--rank", a.rank, "--runs", a.runs, "--threads", a.threads]
                figures[name][program] = run(command)
                show(program, figures[name][program])
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
