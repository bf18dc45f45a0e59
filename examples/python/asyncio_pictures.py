"""Encodes pictures beside an event loop, which stays free meanwhile."""

import asyncio

import luna


async def main():
    pictures = [memoryview(bytes([shade]) * (64 * 64 * 3)).cast("B", (1, 64, 64, 3)) for shade in (0, 128, 255)]
    with luna.open() as session, session.vae() as vae:
        latents = await asyncio.gather(*[vae.encode_async(picture) for picture in pictures])
        print(len(latents), "latents")


asyncio.run(main())
