"""Saves a picture in the background, below the folder that is given, and tells where it went."""

import sys

import luna

pixels = memoryview(bytes(8 * x % 256 for y in range(24) for x in range(32) for c in range(3))).cast("B", (1, 24, 32, 3))

with luna.open(output_folder=sys.argv[1]) as session:
    job = session.save(pixels, name="gradient_%counter:3%", metadata={"parameters": "a gradient"})
    job.wait()
    for picture in job.pictures():
        print(picture.state, picture.path, picture.error)
