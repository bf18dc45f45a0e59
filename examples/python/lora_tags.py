"""Encodes a prompt whose tags name LoRAs, within ten seconds, and tells what the tags said. The folder that the LoRAs lie in is
given."""

import sys

import luna

with luna.open(lora_folders=[sys.argv[1]]) as session, session.clip() as clip:
    clip.lora_tags = True
    clip.encode("a red fox<lora:ink:0.8:0.6>", "blurry", timeout=10)
    for tag in clip.last_tags:
        # For a denoiser: model.add_lora(name=tag.name, strength=tag.strength).
        print(f"{tag.name}: {tag.strength} and {tag.clip_strength}")
    print(f"{clip.last_report.adapters_applied} adapters applied, {[file.name for file in clip.lora_report]}")
