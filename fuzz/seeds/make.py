"""Writes the first inputs of the fuzz target `checkpoint`: tiny files with the names that mark each family.

    python make.py          (in any folder; needs nothing but Python 3)

What the fuzzer found later is beside them under names of its own.
"""
import json, os, struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoint")


def write(name, tensors, metadata=None, data=None):
    header, end = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for key, (dtype, shape) in tensors.items():
        size = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8}[dtype]
        for side in shape:
            size *= side
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + (bytes(end) if data is None else data))


def gguf(name, tensors, metadata=()):
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    header, data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)), b""
    for key, kind, value in metadata:
        header += text(key) + struct.pack("<I", kind) + value
    for key, (kind, shape, size) in tensors.items():
        header += text(key) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(data))
        data += bytes(size + -size % 32)
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(header + bytes(-len(header) % 32) + data)


def conv(name, outputs, inputs, kernel=3, dtype="F16"):
    return {f"{name}.weight": (dtype, [outputs, inputs, kernel, kernel]), f"{name}.bias": (dtype, [outputs])}


def markers(*names, dtype="F16"):
    return {name: (dtype, [1]) for name in names}


write("empty-header", {})
write("metadata-only", {}, {"format": "pt", "scale_factor": "nan"})
write("every-dtype", {f"t.{dtype}": (dtype, [2]) for dtype in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64")})
write("kl-ldm", markers("decoder.mid.block_1.conv1.weight", "decoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight"))
write("kl-ldm-prefixed", markers(*(f"first_stage_model.decoder.{n}.weight" for n in ("mid.block_1.conv1", "conv_in", "up.0.block.0.conv1"))))
write("kl-diffusers", markers("decoder.mid_block.resnets.0.conv1.weight", "decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"))
write("clip", markers("text_model.encoder.layers.0.self_attn.q_proj.weight", "text_model.embeddings.token_embedding.weight"))
write("openclip", markers("transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight"))
write("t5", markers("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"))
write("qwen3", markers("model.layers.0.self_attn.q_norm.weight", "model.embed_tokens.weight"))
write("unet-ldm", markers(*(f"model.diffusion_model.{n}.weight" for n in ("input_blocks.0.0", "middle_block.0.in_layers.0", "time_embed.0"))))
write("flux", markers("double_blocks.0.img_attn.qkv.weight", "img_in.weight"))
write("z-image", markers("noise_refiner.0.attention.qkv.weight", "context_refiner.0.attention.qkv.weight"))

# Types 0 (F32), 8 (Q8_0) and 12 (Q4_K); a number, a text, a list of texts as metadata.
texts = struct.pack("<IQ", 8, 1) + struct.pack("<Q", 1) + b"a"
gguf("gguf-t5", {"enc.blk.0.attn_rel_b.weight": (0, [4, 1], 16), "enc.blk.0.attn_q.weight": (8, [1, 32], 34), "token_embd.weight": (12, [1, 256], 144)},
     [("general.alignment", 4, struct.pack("<I", 32)), ("general.architecture", 8, struct.pack("<Q", 2) + b"t5"), ("list", 9, texts)])
gguf("gguf-flux", {"double_blocks.0.img_attn.qkv.weight": (12, [3, 256], 432), "img_in.weight": (0, [2, 2], 16)})

# A TAESD and an AutoencoderKL that are whole, as small as they can be.
tiny = conv("encoder.layers.0", 2, 3)
for half, blocks in (("encoder", (1, 3)), ("decoder", (2, 4))):
    for block in blocks:
        for layer in (0, 2, 4):
            tiny |= conv(f"{half}.layers.{block}.conv.{layer}", 2, 2)
tiny |= {"encoder.layers.2.weight": ("F16", [2, 2, 3, 3]), "decoder.layers.6.weight": ("F16", [2, 2, 3, 3])}
tiny |= conv("encoder.layers.4", 4, 2) | conv("decoder.layers.0", 2, 4) | conv("decoder.layers.7", 3, 2)
write("taesd-whole", tiny)


def norm(name, width):
    return {f"{name}.weight": ("F16", [width]), f"{name}.bias": ("F16", [width])}


def block(name):
    return norm(f"{name}.norm1", 32) | conv(f"{name}.conv1", 32, 32, 1) | norm(f"{name}.norm2", 32) | conv(f"{name}.conv2", 32, 32, 1)


kl = conv("decoder.conv_in", 32, 4, 1) | block("decoder.mid.block_1") | block("decoder.mid.block_2")
kl |= block("decoder.up.0.block.0") | norm("decoder.norm_out", 32) | conv("decoder.conv_out", 3, 32, 1)
write("kl-whole-with-small-kernels", kl)
