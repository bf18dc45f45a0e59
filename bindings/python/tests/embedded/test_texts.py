"""Text encoders and LoRAs on them."""

import array
import os
import pathlib
import tempfile
import unittest

from common import Embedded, flat

import luna  # found by common


class TestClip(Embedded):
    def test_prompts_are_tokenized_and_encoded(self):
        clip = self.session.clip()
        tokens = clip.tokenize("a (red:1.3) fox")
        self.assertEqual((tokens[2].encoder, tokens[2].id), ("clip_l", 736))
        self.assertAlmostEqual(tokens[2].weight, 1.3)
        positive, negative = clip.encode("a (red:1.3) fox", "blurry")
        self.assertEqual((positive.tokens.shape, negative.pooled.shape), ((1, 77, 64), (1, 64)))
        self.assertIsNone(positive.mask)
        self.assertEqual(positive.problems, ())
        self.assertEqual(flat(clip.encode("blurry")[0].tokens), flat(negative.tokens))

    def test_a_missing_textual_inversion_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            clip = self.session.clip("demo", embedding_folders=[folder])
            [encoded] = clip.encode("embedding:sun over a lake")
        self.assertIn("sun", encoded.problems[0])

    def test_the_cache_answers_the_second_time(self):
        clip = self.session.clip(cache_bytes=1 << 20)
        clip.encode("a fox")
        self.assertEqual(clip.last_report.cached, 0)
        clip.encode("a fox")
        self.assertEqual(clip.last_report.cached, 1)
        usage = clip.cache_usage()
        self.assertEqual((usage["entries"], usage["hits"], usage["misses"]), (1, 1, 1))
        clip.clear_cache()
        self.assertEqual((clip.cache_usage()["entries"], clip.cache_usage()["bytes"]), (0, 0))
        self.assertEqual(self.session.clip().cache_usage()["entries"], 0)

    def test_what_is_wanted_of_a_file_is_said_for_each(self):
        with self.assertRaisesRegex(luna.InvalidInput, "for each path"):
            self.session.clip("demo", encoders=["clip_l", "clip_g"])
        with self.assertRaisesRegex(luna.InvalidInput, "in one way only"):
            self.session.clip("demo", encoders=["clip_l"])
        with self.assertRaises(luna.InvalidInput):
            self.session.clip("some.safetensors", encoders=["clip_x"])

    def test_attention_is_the_objects_own(self):
        clip = self.session.clip()
        clip.attention = "pytorch"
        clip.encode("a fox")
        self.assertEqual(clip.last_report.attention, "pytorch")
        with self.assertRaises(luna.InvalidInput):
            clip.attention = "magic"

    def test_habits_of_others_are_the_objects_own(self):
        clip = self.session.clip()
        usual = clip.tokenize("a [red] fox BREAK a lake")
        clip.break_chunks = clip.square_brackets = True
        other = clip.clone().tokenize("a [red] fox BREAK a lake")
        self.assertEqual((usual[-1].chunk, other[-1].chunk), (0, 1))
        self.assertAlmostEqual(min(token.weight for token in other), 1 / 1.1)
        self.assertEqual({token.weight for token in usual}, {1.0})

    def test_an_encoder_may_read_a_text_of_its_own(self):
        clip = self.session.clip()
        own, plain = clip.encode(luna.Prompt("a lighthouse", clip_l="a fox"), "a fox")
        self.assertEqual(flat(own.tokens), flat(plain.tokens))
        self.assertEqual(clip.tokenize(luna.Prompt("a lighthouse", clip_l="a fox")), clip.tokenize("a fox"))
        with self.assertRaisesRegex(luna.InvalidInput, "takes no part"):
            clip.encode(luna.Prompt("a fox", t5="a fox"))

    def test_ids_stand_in_for_prompts(self):
        clip = self.session.clip()
        ids = [token.id for token in clip.tokenize("a fox")]
        expected = [flat(one.tokens) for one in clip.encode("a fox", "")]
        self.assertEqual(flat(clip.encode_ids(ids)[0].tokens), expected[0])
        rows = [ids, [token.id for token in clip.tokenize("")]]
        self.assertEqual([flat(one.tokens) for one in clip.encode_ids(rows)], expected)
        self.assertEqual(flat(clip.encode_ids(array.array("i", ids))[0].tokens), expected[0])
        with self.assertRaisesRegex(luna.InvalidInput, "CLIP takes no attention mask"):
            clip.encode_ids(ids, [1] * len(ids))
        for wrong in ([], [[1, 2], [3]], ["a"], [[]], [1.5], [[1.5]]):
            with self.assertRaises(luna.InvalidInput):
                clip.encode_ids(wrong)
        with self.assertRaisesRegex(luna.InvalidInput, "does not fit"):
            clip.encode_ids(ids, [1])


class TestLoras(Embedded):
    def test_the_stack_is_the_objects_own(self):
        plain, path = self.session.clip(), os.environ["LUNA_TEST_LORA"]
        expected = flat(plain.encode("a fox")[0].tokens)
        changed = plain.clone()
        changed.add_lora(path, 0.8)
        self.assertNotEqual(flat(changed.encode("a fox")[0].tokens), expected)
        self.assertEqual((changed.last_report.adapters_applied, changed.last_report.adapters_missed), (1, 0))
        self.assertGreater(sum(changed.last_report.layers), 0)
        [file] = changed.lora_report
        self.assertEqual((file.name, file.model, file.strength, file.is_complete), ("ink", "clip_l", 0.8, True))
        self.assertEqual(flat(plain.encode("a fox")[0].tokens), expected)
        self.assertEqual((len(plain.lora_stack), len(changed.lora_stack)), (0, 1))
        twin = changed.clone()
        twin.clear_loras()
        self.assertEqual(flat(twin.encode("a fox")[0].tokens), expected)
        self.assertEqual(len(changed.lora_stack), 1)

    def test_bytes_and_names_serve_as_well(self):
        path = pathlib.Path(os.environ["LUNA_TEST_LORA"])
        clip, named = self.session.clip(), None
        clip.add_lora(data=path.read_bytes(), name="from memory")
        encoded = flat(clip.encode("a fox")[0].tokens)
        self.assertEqual(clip.lora_report[0].name, "from memory")
        with luna.open(lora_folders=[path.parent]) as session:
            self.assertIn(path.stem, session.loras())
            named = session.clip()
            named.add_lora(name=path.stem)
            self.assertEqual(flat(named.encode("a fox")[0].tokens), encoded)

    def test_what_does_not_apply_is_an_error_with_words(self):
        model = self.session.model(os.environ["LUNA_TEST_DENOISER"])
        width = model.info["context_width"]
        context = memoryview(array.array("f", bytes(28 * width))).cast("B").cast("f", (1, 7, width))
        noise = memoryview(array.array("f", bytes(4 * 4 * 64))).cast("B").cast("f", (1, 4, 8, 8))
        model.add_lora(os.environ["LUNA_TEST_LORA"])
        with self.assertRaisesRegex(luna.InvalidInput, "nothing of the LoRA stack applies"):
            model(noise, array.array("f", [1.0]), context)
        with self.assertRaises(luna.InvalidInput):
            model.add_lora()


class TestTags(unittest.TestCase):
    def setUp(self):
        self.path = pathlib.Path(os.environ["LUNA_TEST_LORA"])
        self.session = luna.open(lora_folders=[self.path.parent])
        self.addCleanup(self.session.close)
        self.clip = self.session.clip()
        self.clip.lora_tags = True

    def test_tags_name_loras_and_are_no_words(self):
        plain = self.session.clip()
        plain.add_lora(self.path, 1.0, 0.5)
        expected = [flat(one.tokens) for one in plain.encode("a fox", "blurry")]
        made = self.clip.encode("a fox<lora:ink:1:0.5>", "blurry<lora:oops:x>")
        self.assertEqual([flat(one.tokens) for one in made], expected)
        self.assertEqual(self.clip.last_tags, (luna.LoraTag("ink", 1.0, 0.5),))
        self.assertEqual(self.clip.malformed_tags, ("<lora:oops:x>",))
        self.assertEqual(self.clip.last_report.adapters_applied, 1)
        [file] = self.clip.lora_report
        self.assertEqual((file.name, file.is_complete), ("ink", True))
        self.assertEqual(self.clip.tokenize("a fox<lora:ink>"), self.clip.tokenize("a fox"))

    def test_tags_add_to_the_objects_own_stack(self):
        self.clip.add_lora(self.path, 0.25)
        self.clip.encode("a fox<lora:ink:0.75>")
        both = self.clip.last_report.adapters_applied
        self.clip.encode("a fox")
        self.assertEqual((both, self.clip.last_report.adapters_applied, self.clip.last_tags), (2, 1, ()))
        self.assertTrue(self.clip.clone().lora_tags)

    def test_one_stack_after_the_other_may_be_merged(self):
        self.clip.add_lora(self.path, 0.25)
        self.clip.lora_mode = "merged"
        for prompt, applied in (("a fox", 1), ("a fox<lora:ink>", 2), ("a fox<lora:ink:0.5>", 2), ("a fox", 1)):
            self.clip.encode(prompt)
            self.assertEqual((self.clip.last_report.adapters_applied, self.clip.last_report.lora_mode), (applied, "merged"))

    def test_what_a_tag_names_must_be_there(self):
        with self.assertRaises(luna.NotFound):
            self.clip.encode("a fox<lora:none>")
        self.clip.lora_tags = False
        self.assertEqual(len(self.clip.encode("a fox<lora:none>")), 1, "else they are words")
