"""Encodes a picture with the VAE that the library carries, and decodes the latent again. Needs no NumPy."""

import array

import luna

HEIGHT, WIDTH = 48, 64
values = array.array("f", (x / WIDTH for y in range(HEIGHT) for x in range(WIDTH) for channel in range(3)))
picture = memoryview(values).cast("B").cast("f", (1, HEIGHT, WIDTH, 3))

with luna.open() as session, session.vae() as vae:
    latent = vae.encode(picture)
    print(f"latent {latent.shape}, {vae.last_report.copied_bytes} bytes copied")
    decoded = vae.decode(latent).view().cast("B").cast("f")
    print("mean squared error", sum((a - b) ** 2 for a, b in zip(decoded, values)) / len(values))
