"""Makes an embedding of a picture, to compare with those of others. The vision encoder is given as a file or folder."""

import sys

import luna

picture = memoryview(bytes(6 * x for y in range(30) for x in range(40) for c in range(3))).cast("B", (1, 30, 40, 3))

with luna.open() as session, session.vision(sys.argv[1]) as vision:
    features = vision.encode(picture)
    print("embedding", features.image_embeds)
