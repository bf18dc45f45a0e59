"""The cases of tests/fixtures/conformance.json through Python: prints [name, answer] for each as JSON.

conformance.py MODELS OUTPUT in this process, conformance.py MODELS OUTPUT ADDRESS of a daemon, without the library."""

import array
import json
import pathlib
import sys

import luna

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
CASES = ROOT / "tests/fixtures/conformance.json"


def values(shape):
    count = 1
    for side in shape:
        count *= side
    numbers = array.array("f", (i * 37 % 101 / 100 for i in range(count)))
    return memoryview(numbers).cast("B").cast("f", tuple(shape))


def answer(tensor):
    total = 0xCBF29CE484222325
    for byte in tensor.view().cast("B"):
        total = (total ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{list(tensor.shape)} {total:016x}"


class Door:
    def __init__(self, session, models):
        self.session, self.models = session, models
        self.vae, self.clip = session.vae(), session.clip()
        self.model = session.model(models / "denoiser.safetensors")
        self.vision, self.vlm = session.vision(models / "vision"), session.vlm(models / "vlm")

    def lora(self, model, case):
        """The model with the case's LoRA, as an object of its own."""
        own = model.clone()
        if "lora" in case:
            name = case["lora"]
            path = ROOT / f"tests/fixtures/lora/sd15_ldm/{name}.safetensors"
            if name in ("ink", "missing"):
                path = self.models / f"{name}.safetensors"
            elif name == "peft":
                path = ROOT / "tests/fixtures/lora/qwen3_vl/peft"
            own.add_lora(path, case.get("strength", 1.0))
            own.lora_mode = case.get("mode", "functional")
        own.dtype = case.get("precision", "f32")
        return own

    def encode(self, case):
        self.vae.dtype = case.get("precision", "f32")
        options = {key: case[key] for key in ("sizes", "seed", "scaled", "tile") if key in case}
        return answer(getattr(self.vae, case["op"])(values(case["shape"]), **options))

    decode = encode

    def text(self, case):
        clip = self.lora(self.clip, case)
        clip.clip_skip, clip.attention = case.get("clip_skip", 0), case.get("attention", "default")
        clip.lora_tags = case.get("lora_tags", False)
        prompt = luna.Prompt(case["prompt"], clip_l=case.get("clip_l"), t5=case.get("t5"))
        return answer(clip.encode(prompt)[0].tokens)

    def ids(self, case):
        return answer(self.clip.encode_ids(case["ids"], case.get("mask"))[0].tokens)

    def tokenize(self, case):
        return str([-1 if token.id is None else token.id for token in self.clip.tokenize(case["prompt"])])

    def load(self, case):
        self.session.vae(case["path"])
        return "loaded"

    def forward(self, case):
        model = self.lora(self.model, case)
        model.attention = case.get("attention", "default")
        arrays = (values(case["shape"]), array.array("f", case["timesteps"]), values(case["context"]))
        options = {"control": {"middle": [values(case["control"])]}} if "control" in case else {}
        if "cache" in case:
            options["cache"] = case["cache"]
            model(*arrays, **options)
        made = answer(model(*arrays, **options))
        return made + (" hit" if model.last_report.cache_hit else "")

    def see(self, case):
        self.vision.dtype = case.get("precision", "f32")
        features = self.vision.encode(values(case["shape"]), part=case.get("part"))
        return f"{answer(features.last_hidden_state)} {answer(features.image_embeds)}"

    def tell(self, case):
        pictures = [values(case["shape"])] if "shape" in case else []
        names = ("max_tokens", "temperature", "top_k", "seed", "system")
        options = {key: case[key] for key in names if key in case}
        told = self.lora(self.vlm, case).generate(case["prompt"], *pictures, **options)
        return f"{list(told.ids)} {told.finish}"

    def chat(self, case):
        messages = []
        for turn in case["turns"]:
            role, text = turn.split(": ", 1)
            shown = [] if messages else [{"type": "image", "image": values(case["shape"])}]
            messages.append({"role": role, "content": [*shown, text]})
        told = self.vlm.chat(messages, max_tokens=case["max_tokens"])
        return f"{list(told.ids)} {told.finish}"

    def prepared(self, case):
        told = self.vlm.generate_prepared(case["ids"], max_tokens=case["max_tokens"])
        return f"{list(told.ids)} {told.finish}"

    def save(self, case):
        job = self.session.save(values(case["shape"]), name=case["file"], format=case["format"])
        job.wait()
        return " ".join(f"{pathlib.Path(picture.path).name} {picture.sha256}" for picture in job.pictures())


def main(models, output, address=None):
    answers = []
    with luna.connect(address) if address else luna.open(output_folder=output, lora_folders=[models]) as session:
        door = Door(session, pathlib.Path(models))
        for case in json.loads(CASES.read_text()):
            work = {"vision": door.see, "vlm": door.tell}.get(case["op"]) or getattr(door, case["op"])
            try:
                answers.append((case["name"], work(case)))
            except luna.LunaError as error:
                answers.append((case["name"], error.kind))
    print(json.dumps(answers))


main(*sys.argv[1:])
