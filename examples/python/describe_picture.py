"""Has a vision-language model describe a picture, and prints the words as they come. The model is given as a folder."""

import sys

import luna

picture = memoryview(bytes(4 * x % 256 for y in range(48) for x in range(64) for c in range(3))).cast("B", (1, 48, 64, 3))

with luna.open() as session, session.vlm(sys.argv[1]) as vlm:
    answer = vlm.generate("Describe this picture.", picture, max_tokens=8, on_text=lambda text: print(text, end=""))
    print(f"\n{len(answer.ids)} tokens, ended by {answer.finish}")
