"""Writes `clip_merges.bin`, the vocabulary of every CLIP text encoder, beside this script.

    python clip_merges.py bpe_simple_vocab_16e6.txt

The text file is OpenAI's (https://github.com/openai/CLIP, MIT licence, see `clip_merges.LICENSE.txt`). It is packaged,
among other places, in the crate `instant-clip-tokenizer` 0.1.0 on crates.io, which is where this copy came from.

Line 1 is a version; each further line is a merge "LEFT RIGHT". CLIP uses the first 48,894 of the 262,144. A token is
known by its number: 0..=255 the bytes, 256..=511 the same bytes at the end of a word, 512 + i what merge i makes. So a
merge is two numbers, and the binary file is 48,894 pairs of little-endian u16.
"""

import struct
import sys
from pathlib import Path

MERGES = 49408 - 512 - 2


def byte_symbols():
    """The printable stand-in of each byte, in the order of the byte tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def main():
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")[1 : MERGES + 1]
    symbols = byte_symbols()
    number = {s: i for i, s in enumerate(symbols + [s + "</w>" for s in symbols])}
    out = bytearray()
    for line in lines:
        left, right = line.split()
        out += struct.pack("<HH", number[left], number[right])
        assert left + right not in number
        number[left + right] = len(number)
    Path(__file__).with_suffix(".bin").write_bytes(out)
    print(f"{len(lines)} merges, {len(out)} bytes")


main()
