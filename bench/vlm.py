"""Luna beside torch on the language model of a vision-language model: tokens a second and the time to read a prompt.

    pip install torch transformers safetensors numpy
    cargo build --release -p luna-cli
    python bench/vlm.py [--layers 28] [--prompt 1000] [--tokens 32] [--threads N] [--precision f32] [--json FILE]

The model has the shape of Qwen3-VL-2B's language model (1.7 billion parameters, tied embeddings) with random weights in bf16
and a small vision part. Each measurement is a process of its own, one after the other in one run on one machine: a figure is
worth something only as a ratio to its neighbour's. What limits tokens a second at batch 1 is how fast the weights can be
read: the bytes of all weights that a token needs, over the read bandwidth, which is measured in the same run as the fastest
of several sums over a gigabyte. Both sides generate greedily; their tokens are compared.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def config(layers):
    from transformers import Qwen3VLConfig

    text = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": layers, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [24, 20, 20]}}
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 128, "patch_size": 16, "out_hidden_size": 2048,
              "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


def prepare(folder, a):
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3VLForConditionalGeneration(config(a.layers)).eval()
    model.save_pretrained(folder / "model")
    torch.set_default_dtype(torch.float32)
    for name, count in (("prompt", a.prompt), ("short", 16)):
        save_file({"input_ids": torch.randint(0, 150000, (1, count))}, folder / f"{name}.safetensors")


def bandwidth(threads):
    """Bytes a second that sums over a gigabyte of f32 read."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    values = torch.ones(1 << 28)
    best = 1e9
    for _ in range(8):
        start = time.perf_counter()
        values.sum()
        best = min(best, time.perf_counter() - start)
    return {"bytes_per_second": values.numel() * 4 / best}


def torch_peer(folder, a):
    import torch
    from safetensors.torch import load_file
    from transformers import Qwen3VLForConditionalGeneration

    torch.set_grad_enabled(False)
    if a.threads:
        torch.set_num_threads(a.threads)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder / "model", dtype=torch.bfloat16).eval()
    short = load_file(folder / "short.safetensors")["input_ids"]
    prompt = load_file(folder / "prompt.safetensors")["input_ids"]
    model(input_ids=short, use_cache=True)
    best = 1e9
    for _ in range(a.runs):
        start = time.perf_counter()
        model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        best = min(best, time.perf_counter() - start)
    out = model(input_ids=short, use_cache=True, logits_to_keep=1)
    ids = [int(out.logits[0, -1].argmax())]
    start = time.perf_counter()
    while len(ids) < a.tokens:
        out = model(input_ids=torch.tensor([[ids[-1]]]), past_key_values=out.past_key_values, use_cache=True)
        ids.append(int(out.logits[0, -1].argmax()))
    speed = (len(ids) - 1) / (time.perf_counter() - start)
    return {"prompt_seconds": best, "tokens_per_second": speed, "ids": ids}


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def luna(folder, a):
    common = ["--model", folder / "model", "--greedy", "--ids", "--json", "--precision", a.precision]
    common += ["--threads", a.threads] if a.threads else []
    reads = [run([a.luna, "describe", "--inputs", folder / "prompt.safetensors", "--max-tokens", 1, *common]) for _ in range(a.runs)]
    told = [run([a.luna, "describe", "--inputs", folder / "short.safetensors", "--max-tokens", a.tokens, *common]) for _ in range(a.runs)]
    fastest = max(told, key=lambda one: one["tokens_per_second"])
    return {"prompt_seconds": min(one["prompt_seconds"] for one in reads), "tokens_per_second": fastest["tokens_per_second"],
            "ids": fastest["ids"]}


def token_bytes(folder):
    """Bytes of the weights that a token reads: all of the language model, the embeddings as its logits."""
    from safetensors import safe_open

    total = 0
    for path in (folder / "model").glob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():
                if "visual" not in name:
                    size = 2
                    for side in file.get_slice(name).get_shape():
                        size *= side
                    total += size
    return total


def compare(folder, a):
    peer = [sys.executable, __file__, "--folder", folder, "--tokens", a.tokens, "--runs", a.runs, "--threads", a.threads]
    read = run([*peer, "--peer", "bandwidth"])["bytes_per_second"]
    needed = token_bytes(folder)
    limit = read / needed
    mine, theirs = luna(folder, a), run([*peer, "--peer", "torch"])
    print(f"{needed / 1e9:.2f} GB of weights a token, {read / 1e9:.1f} GB/s read: at most {limit:.2f} tokens/s\n")
    print(f"{'':28}{'Luna ' + a.precision:>16}{'torch bf16':>16}")
    print(f"{'tokens/s':28}{mine['tokens_per_second']:>16.2f}{theirs['tokens_per_second']:>16.2f}")
    print(f"{'share of the limit':28}{mine['tokens_per_second'] / limit:>16.2f}{theirs['tokens_per_second'] / limit:>16.2f}")
    print(f"{f'reading {a.prompt} tokens, s':28}{mine['prompt_seconds']:>16.2f}{theirs['prompt_seconds']:>16.2f}")
    alike = sum(x == y for x, y in zip(mine["ids"], theirs["ids"]))
    print(f"\n{alike} of {len(mine['ids'])} greedy tokens alike (torch rounds to bf16 between layers)")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"limit": limit, "luna": mine, "torch": theirs}, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--prompt", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", choices=["f32", "bf16", "f16"], default="f32")
    parser.add_argument("--threads", type=int, default=0, help="0: each one's default")
    parser.add_argument("--luna", type=pathlib.Path, default=ROOT / "target" / "release" / "luna-cli")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the model here and use it again")
    parser.add_argument("--peer", choices=["torch", "bandwidth"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        print(json.dumps(bandwidth(a.threads) if a.peer == "bandwidth" else torch_peer(a.folder, a)))
        return
    if not a.luna.exists():
        raise SystemExit("build it first: cargo build --release -p luna-cli")
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.folder or pathlib.Path(scratch)
        if not (folder / "model" / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder, a)
        compare(folder, a)


main()
