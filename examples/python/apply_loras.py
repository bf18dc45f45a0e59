"""Encodes a prompt with a LoRA, and tells what became of each of its adapters. The LoRA is given as a file."""

import sys

import luna

with luna.open() as session, session.clip() as clip:
    plain = clip.clone()
    clip.add_lora(sys.argv[1], strength=0.8, clip_strength=0.6)
    print(len(plain.lora_stack), "and", len(clip.lora_stack), "LoRAs")
    clip.encode("a red fox")
    print(clip.last_report.adapters_applied, "adapters applied")
    for file in clip.lora_report:
        for adapter in file.adapters:
            print(file.name, adapter.outcome, adapter.key, *adapter.targets)
