"""The cases of luna-ffi/tests/abi/conformance.json through Python: prints [name, answer] for each as JSON."""

import array
import json
import pathlib

import luna

CASES = pathlib.Path(__file__).resolve().parent.parent.parent.parent / "luna-ffi/tests/abi/conformance.json"


def values(case):
    count = 1
    for side in case["shape"]:
        count *= side
    numbers = array.array("f", (i * 37 % 101 / 100 for i in range(count)))
    return memoryview(numbers).cast("B").cast("f", tuple(case["shape"]))


def answer(tensor):
    total = 0xCBF29CE484222325
    for byte in tensor.view().cast("B"):
        total = (total ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{list(tensor.shape)} {total:016x}"


def run(session, vae, clip, case):
    vae.dtype = clip.dtype = case.get("precision", "f32")
    clip.clip_skip = case.get("clip_skip", 0)
    options = {key: case[key] for key in ("sizes", "seed", "scaled", "tile") if key in case}
    if case["op"] == "encode":
        return answer(vae.encode(values(case), **options))
    if case["op"] == "decode":
        return answer(vae.decode(values(case), **options))
    if case["op"] == "text":
        return answer(clip.encode(case["prompt"])[0].tokens)
    session.vae(case["path"])
    return "loaded"


def main():
    answers = []
    with luna.open() as session, session.vae() as vae, session.clip() as clip:
        for case in json.loads(CASES.read_text()):
            try:
                answers.append((case["name"], run(session, vae, clip, case)))
            except luna.LunaError as error:
                answers.append((case["name"], error.kind))
    print(json.dumps(answers))


main()
