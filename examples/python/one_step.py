"""Calls a denoiser once, as a sampler does at each step. It is given as a file or folder."""

import array
import sys

import luna

with luna.open() as session, session.model(sys.argv[1]) as model:
    channels, width = model.info["input_channels"], model.info["context_width"]
    noise = array.array("f", (i % 7 / 3 - 1 for i in range(channels * 16 * 16)))
    x = memoryview(noise).cast("B").cast("f", (1, channels, 16, 16))
    context = memoryview(array.array("f", bytes(4 * 77 * width))).cast("B").cast("f", (1, 77, width))
    prediction = model(x, array.array("f", [model.info["last_timestep"]]), context)
    print(model.info["family"], "prediction", prediction.shape)
