"""Luna beside torch and llama.cpp on the language model of a vision-language model: tokens a second and the time to read a prompt.

    pip install torch transformers safetensors numpy gguf llama-cpp-python
    cargo build --release -p luna-cli
    python bench/vlm.py [--layers 28] [--prompt 1000] [--tokens 32] [--runs 5] [--prompt-runs 1] [--threads N] [--precision f32 bf16] [--storage bf16 q8_0] [--json FILE]

The model has the shape of Qwen3-VL-2B's language model (1.7 billion parameters, tied embeddings) with random weights in bf16 and a small
vision part. Each measurement is a process of its own, one after the other in one run on one machine: a figure is worth something only as
a ratio to its neighbour's. What limits tokens a second at batch 1 is how fast the weights can be read: the bytes of all weights that a
token needs, over the read bandwidth. A cloud machine's bandwidth changes by half within a minute, so it is measured right before and after
each measurement, as the median of sums over a gigabyte, and each measurement is set beside its own; the table gives medians. All generate
greedily; their tokens are compared. llama.cpp reads the same weights from a GGUF file, with `--storage q8_0` rounded to that type; where
llama-cpp-python is not installed, its row is left out, which is said.
"""
import argparse, importlib.util, json, os, pathlib, statistics, subprocess, sys, tempfile, time

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
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Qwen3VLForConditionalGeneration(config(a.layers)).state_dict().items()}
    shapes.pop("lm_head.weight")
    values = {name: torch.ones(shape, dtype=torch.bfloat16) if len(shape) == 1 else torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02)
              for name, shape in shapes.items()}
    (folder / "model").mkdir()
    save_file(values, folder / "model" / "model.safetensors", {"format": "pt"})
    config(a.layers).save_pretrained(folder / "model")
    for name, count in (("prompt", a.prompt), ("short", 16)):
        save_file({"input_ids": torch.randint(0, 150000, (1, count))}, folder / f"{name}.safetensors")


NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def write_gguf(folder, a, kind):
    """The language model as llama.cpp's converter names it: all that a token needs, no vocabulary."""
    import gguf, numpy as np, torch
    from safetensors import safe_open

    text = config(a.layers).text_config
    writer = gguf.GGUFWriter(folder / f"{kind}.gguf.part", "qwen3", use_temp_file=False)
    for add, value in ((writer.add_block_count, a.layers), (writer.add_context_length, text.max_position_embeddings),
                       (writer.add_embedding_length, text.hidden_size), (writer.add_feed_forward_length, text.intermediate_size),
                       (writer.add_head_count, text.num_attention_heads), (writer.add_head_count_kv, text.num_key_value_heads),
                       (writer.add_key_length, text.head_dim), (writer.add_value_length, text.head_dim), (writer.add_vocab_size, text.vocab_size),
                       (writer.add_layer_norm_rms_eps, text.rms_norm_eps), (writer.add_rope_freq_base, 5e6), (writer.add_tokenizer_model, "none")):
        add(value)
    with safe_open(folder / "model" / "model.safetensors", "pt") as file:
        for name in file.keys():
            if "visual" in name:
                continue
            own = name.removeprefix("model.language_model.")
            if own.startswith("layers."):
                _, layer, rest = own.split(".", 2)
                own = f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
            else:
                own = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[own]
            value = file.get_tensor(name)
            if value.dim() == 1:
                writer.add_tensor(own, value.float().numpy())
            elif kind == "bf16":
                writer.add_tensor(own, value.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(own, gguf.quantize(value.float().numpy(), gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    (folder / f"{kind}.gguf.part").rename(folder / f"{kind}.gguf")


class Bandwidth:
    """Bytes a second that sums over a gigabyte of f32 read."""

    def __init__(self, threads):
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.values = torch.ones(1 << 28)

    def measure(self):
        times = []
        for _ in range(9):
            start = time.perf_counter()
            self.values.sum()
            times.append(time.perf_counter() - start)
        return self.values.numel() * 4 / statistics.median(times)


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
    if a.what == "prompt":
        start = time.perf_counter()
        model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        return {"prompt_seconds": time.perf_counter() - start}
    out = model(input_ids=short, use_cache=True, logits_to_keep=1)
    ids = [int(out.logits[0, -1].argmax())]
    start = time.perf_counter()
    while len(ids) < a.tokens:
        out = model(input_ids=torch.tensor([[ids[-1]]]), past_key_values=out.past_key_values, use_cache=True)
        ids.append(int(out.logits[0, -1].argmax()))
    return {"tokens_per_second": (len(ids) - 1) / (time.perf_counter() - start), "ids": ids}


def llama_peer(folder, a):
    import ctypes, llama_cpp as l
    import numpy as np
    from safetensors.numpy import load_file

    # Whoever hands a callback to C keeps it alive.
    silence = l.llama_log_callback(lambda *_: None)
    l.llama_log_set(silence, ctypes.c_void_p(0))
    l.llama_backend_init()
    model = l.llama_model_load_from_file(str(folder / f"{a.storage[0]}.gguf").encode(), l.llama_model_default_params())
    short, prompt = (load_file(folder / f"{name}.safetensors")["input_ids"][0].tolist() for name in ("short", "prompt"))
    threads = a.threads or os.cpu_count()

    def context():
        params = l.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads, params.n_threads_batch = 2048, 2048, 512, threads, threads
        return l.llama_init_from_model(model, params)

    def read(at, ids):
        array = (l.llama_token * len(ids))(*ids)
        if l.llama_decode(at, l.llama_batch_get_one(array, len(ids))) != 0:
            raise SystemExit("llama_decode failed")
        count = l.llama_vocab_n_tokens(l.llama_model_get_vocab(model))
        return int(np.ctypeslib.as_array(l.llama_get_logits_ith(at, -1), (count,)).argmax())

    at = context()
    read(at, short)
    l.llama_free(at)
    at = context()
    start = time.perf_counter()
    if a.what == "prompt":
        read(at, prompt)
        return {"prompt_seconds": time.perf_counter() - start}
    ids = [read(at, short)]
    start = time.perf_counter()
    while len(ids) < a.tokens:
        ids.append(read(at, [ids[-1]]))
    return {"tokens_per_second": (len(ids) - 1) / (time.perf_counter() - start), "ids": ids}


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed with {result.returncode}:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def luna(folder, a, precision, what):
    inputs, tokens = ("prompt", 1) if what == "prompt" else ("short", a.tokens)
    command = [a.luna, "describe", "--inputs", folder / f"{inputs}.safetensors", "--max-tokens", tokens, "--model", folder / "model",
               "--greedy", "--ids", "--json", "--precision", precision]
    return run(command + (["--threads", a.threads] if a.threads else []))


def prompt_tokens(folder):
    from safetensors import safe_open

    with safe_open(folder / "prompt.safetensors", "np") as file:
        return file.get_slice("input_ids").get_shape()[1]


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


def ways(folder, a):
    """What is compared: names, and functions of what is measured, `tokens` or `prompt`."""
    def peer(name, *more):
        command = [sys.executable, __file__, "--folder", folder, "--tokens", a.tokens, "--threads", a.threads, "--peer", name, *more]
        return lambda what: run([*command, "--what", what])

    found = {f"Luna, {precision} activations": lambda what, precision=precision: luna(folder, a, precision, what) for precision in a.precision}
    if importlib.util.find_spec("llama_cpp") is None:
        print("llama-cpp-python is not installed: no llama.cpp")
    else:
        found |= {f"llama.cpp {kind}": peer("llama", "--storage", kind) for kind in a.storage}
    return found if a.without_torch else found | {"torch bf16": peer("torch")}


def compare(folder, a):
    bandwidth, needed, found = Bandwidth(a.threads), token_bytes(folder), ways(folder, a)
    reads, told, prompts = [bandwidth.measure()], {name: [] for name in found}, {name: [] for name in found}
    for number in range(a.runs):
        for name, measure in found.items():
            one = measure("tokens")
            reads.append(bandwidth.measure())
            one["limit"] = (reads[-2] + reads[-1]) / 2 / needed
            told[name].append(one)
            print(f"run {number + 1}: {name}: {one['tokens_per_second']:.2f} of {one['limit']:.2f} tokens/s", file=sys.stderr)
    for number in range(a.prompt_runs):
        for name, measure in found.items():
            prompts[name].append(measure("prompt")["prompt_seconds"])
            print(f"prompt {number + 1}: {name}: {prompts[name][-1]:.2f} s", file=sys.stderr)
    print(f"{needed / 1e9:.2f} GB of bf16 weights a token, {min(reads) / 1e9:.1f} to {max(reads) / 1e9:.1f} GB/s read\n")
    print(f"{'':28}{'tokens/s':>10}{'of the limit':>14}{f'{prompt_tokens(folder)} tokens, s':>18}{'tokens alike':>14}")
    first, rows = next(iter(told.values()))[0]["ids"], {}
    for name, runs in told.items():
        speed, share, prompt = (statistics.median(values) for values in (
            [one["tokens_per_second"] for one in runs], [one["tokens_per_second"] / one["limit"] for one in runs], prompts[name]))
        alike = sum(x == y for x, y in zip(first, runs[0]["ids"]))
        rows[name] = {"tokens_per_second": speed, "of_the_limit": share, "prompt_seconds": prompt, "tokens_alike": alike}
        print(f"{name:28}{speed:>10.2f}{share:>14.2f}{prompt:>18.2f}{alike:>10}/{a.tokens}")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"bytes_a_token": needed, "bytes_per_second": reads, "rows": rows}, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--prompt", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5, help="measurements of tokens a second")
    parser.add_argument("--prompt-runs", type=int, default=1, help="readings of the prompt")
    parser.add_argument("--precision", choices=["f32", "bf16", "f16"], nargs="+", default=["f32", "bf16"])
    parser.add_argument("--storage", choices=["bf16", "q8_0"], nargs="+", default=["bf16"], help="of llama.cpp's weights")
    parser.add_argument("--threads", type=int, default=0, help="0: each one's default")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--luna", type=pathlib.Path, default=ROOT / "target" / "release" / "luna-cli")
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the model here and use it again")
    parser.add_argument("--prepare", action="store_true", help="only write the model to --folder")
    parser.add_argument("--peer", choices=["torch", "llama"], help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=["tokens", "prompt"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        print(json.dumps({"torch": torch_peer, "llama": llama_peer}[a.peer](a.folder, a)))
        return
    if not a.luna.exists():
        raise SystemExit("build it first: cargo build --release -p luna-cli")
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.folder or pathlib.Path(scratch)
        if not (folder / "model" / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder, a)
        for kind in a.storage if importlib.util.find_spec("llama_cpp") else []:
            if not (folder / f"{kind}.gguf").exists():
                write_gguf(folder, a, kind)
        if not a.prepare:
            compare(folder, a)


main()
