"""Takes a daemon that can be reached, or else opens a session in this process, and says which."""

import sys

import luna

picture = memoryview(bytes(64 * 96 * 3)).cast("B", (1, 64, 96, 3))

with luna.auto(sys.argv[1] if len(sys.argv) > 1 else None) as session, session.vae() as vae:
    latent = vae.encode(picture)
    print(f"latent {latent.shape} made {session.where}")
