"""Hears the progress of a call, and ends it half-way by an exception."""

import luna

picture = memoryview(bytes(96 * 64 * 3)).cast("B", (1, 96, 64, 3))


def impatient(done, total):
    if 2 * done > total:
        raise TimeoutError("that takes too long")


with luna.open() as session, session.vae() as vae:
    vae.encode(picture, progress=lambda done, total: print(f"\r{done}/{total}", end=""))
    print()
    try:
        vae.encode(picture, progress=impatient)
    except TimeoutError as error:
        print(f"stopped: {error}")
