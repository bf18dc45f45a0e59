"""Vision encoders and vision-language models."""

import array
import asyncio
import os

from common import Embedded, flat, handles, pixels

import luna  # found by common


class TestVision(Embedded):
    def test_pictures_become_features(self):
        vision = self.session.vision(os.environ["LUNA_TEST_VISION"])
        features = vision.encode(pixels(), pixels(30, 64))
        self.assertEqual(features.image_embeds.shape, (2, vision.info["embedding"]))
        part = vision.encode(pixels(), part=(0, 0, 20, 20)).image_embeds
        self.assertNotEqual(flat(part), flat(features.image_embeds)[: vision.info["embedding"]])
        [again] = asyncio.run(self.gather(vision.encode_async(pixels(), pixels(30, 64))))
        self.assertEqual(flat(again.image_embeds), flat(features.image_embeds))

    def test_files_are_read_as_it_is_said(self):
        path = os.environ["LUNA_TEST_VISION"]
        usual = flat(self.session.vision(path).encode(pixels()).image_embeds)
        gelu = self.session.vision(path, activation="gelu")
        self.assertNotEqual(flat(gelu.encode(pixels()).image_embeds), usual)
        self.assertEqual(flat(gelu.clone().encode(pixels()).image_embeds), flat(gelu.encode(pixels()).image_embeds))
        side = gelu.info["image_size"]
        own = luna.Preprocessing("exact", (side, side), "bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.assertNotEqual(flat(self.session.vision(path, preprocessing=own).encode(pixels()).image_embeds), usual)
        for wrong in ({"activation": "relu"}, {"preprocessing": luna.Preprocessing("exact")}):
            with self.assertRaises(luna.InvalidInput):
                self.session.vision(path, **wrong)
        with self.assertRaises(luna.InvalidInput):
            luna.Preprocessing("stretch")

    async def gather(self, *awaitables):
        return await asyncio.gather(*awaitables)


class TestVlm(Embedded):
    def setUp(self):
        super().setUp()
        self.vlm = self.session.vlm(os.environ["LUNA_TEST_VLM"])

    def test_text_comes_piece_by_piece(self):
        pieces = []
        answer = self.vlm.generate("What is it?", pixels(), max_tokens=6, on_text=pieces.append)
        self.assertEqual("".join(pieces), answer.text)
        self.assertEqual(len(answer.ids), 6)
        self.assertGreater(answer.picture_tokens, 0)

    def test_what_a_listener_raises_is_raised(self):
        def stop(_):
            raise KeyError("enough")

        with self.assertRaises(KeyError):
            self.vlm.generate("What is it?", max_tokens=64, on_text=stop)

    def test_loras_change_the_answer_and_are_reported(self):
        path = os.environ["LUNA_TEST_VLM_LORA"]
        plain = self.vlm.generate("What is it?", max_tokens=6)
        changed = self.vlm.clone()
        changed.add_lora(path, 1.0)
        told = changed.generate("What is it?", max_tokens=6)
        self.assertEqual((changed.last_report.adapters_applied, changed.last_report.adapters_missed), (14, 0))
        self.assertEqual(sum(changed.last_report.layers), 16 if told.picture_tokens else sum(changed.last_report.layers))
        self.assertEqual(changed.lora_report[0].model, "qwen3_vl")
        self.assertEqual(self.vlm.generate("What is it?", max_tokens=6).ids, plain.ids)
        other = self.vlm.clone()
        other.add_lora(os.environ["LUNA_TEST_LORA"])
        with self.assertRaises(luna.InvalidInput):
            other.generate("What is it?", max_tokens=2)

    def test_a_projector_is_for_gguf_files(self):
        with self.assertRaises(luna.LunaError):
            self.session.vlm(os.environ["LUNA_TEST_VLM"], projector="no/such/mmproj.gguf")

    def test_conversations_go_on(self):
        picture = {"type": "image", "image": pixels()}
        single = self.vlm.generate("What is it?", pixels(), system="brief", max_tokens=6)
        turn = {"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]}
        chat = self.vlm.chat([{"role": "system", "content": "brief"}, turn], max_tokens=6)
        self.assertEqual((chat.ids, chat.prompt_tokens), (single.ids, single.prompt_tokens))
        heard = []
        more = [turn, {"role": "assistant", "content": "A fox."}, {"role": "user", "content": ["And ", picture, "?"]}]
        longer = self.vlm.chat(more, max_tokens=4, on_text=heard.append)
        self.assertEqual(longer.picture_tokens, 2 * single.picture_tokens)
        self.assertEqual("".join(heard), longer.text)
        for wrong in (
            [], [{"role": "user"}], [{"role": "fox", "content": "a"}], [{"role": "user", "content": [{"type": "image"}]}],
            [{"role": "user", "content": [3]}],
        ):
            with self.assertRaises(luna.InvalidInput):
                self.vlm.chat(wrong)

    def test_prepared_prompts_go_on(self):
        ids = [101, 7, 30, 12]
        told = self.vlm.generate_prepared(ids, max_tokens=5)
        self.assertEqual((told.prompt_tokens, len(told.ids)), (4, 5))
        array_of = memoryview(array.array("q", ids)).cast("B").cast("q", (1, 4))
        self.assertEqual(self.vlm.generate_prepared(array_of, max_tokens=5).ids, told.ids)
        self.assertEqual(self.vlm.generate_prepared([ids], max_tokens=5).ids, told.ids)
        with self.assertRaisesRegex(luna.InvalidInput, "grids, but no pictures"):
            self.vlm.generate_prepared(ids, image_grid_thw=[[1, 2, 2]])
        with self.assertRaisesRegex(luna.InvalidInput, "wrong shape"):
            self.vlm.generate_prepared([ids, ids])
        with self.assertRaises(luna.InvalidInput):
            self.vlm.generate_prepared(ids, pixel_values=pixels(), image_grid_thw=[[1, 2, 2]])

    def test_deadlines_are_heard_between_tokens(self):
        with self.assertRaises(luna.TimedOut):
            self.vlm.generate("What is it?", pixels(), max_tokens=200, timeout=0.001)

    def test_listeners_that_raise_end_the_call_and_leave_nothing_behind(self):
        heard = []

        def stop(text):
            heard.append(text)
            raise KeyboardInterrupt

        before = handles(self.session)
        for _ in range(20):
            heard.clear()
            with self.assertRaises(KeyboardInterrupt):
                self.vlm.generate("What is it?", max_tokens=200, on_text=stop)
            self.assertEqual(len(heard), 1, "it hears no more")
        # Also at the last token, where there is an answer.
        with self.assertRaises(KeyboardInterrupt):
            self.vlm.generate("What is it?", max_tokens=1, on_text=stop)
        self.assertEqual(handles(self.session), before)
        self.assertEqual(len(self.vlm.generate("What is it?", max_tokens=2).ids), 2)
