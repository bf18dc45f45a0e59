//! T5, Qwen3 and the recipes they are part of, against ComfyUI and transformers.

use luna_core::{
    Precision,
    text::{Conditioner, Prompt, Recipe, TextModel, TextOptions, TokenIds},
};
use luna_tests::text::{
    Answers, CLIP_G, CLIP_L, Drawn, RUNTIME, assert_close, clip_model, folder, kept, model_as, prompts, qwen3, t5,
};
use std::num::NonZeroUsize;

fn opened(drawn: &[Drawn], tokenizer: &str) -> TextModel {
    let place = tempfile::tempdir().unwrap();
    folder(place.path(), drawn, tokenizer);
    TextModel::open(place.path(), &RUNTIME).unwrap()
}

fn ids(ids: &[u32], mask: Option<&[bool]>) -> TokenIds {
    TokenIds { ids: ids.to_vec(), mask: mask.map(<[bool]>::to_vec) }
}

#[test]
fn flux_and_sd3_equal_comfyui() {
    let (l, g, t5) = (clip_model(&CLIP_L), clip_model(&CLIP_G), opened(&t5(), "t5"));
    let answers = Answers::open("others.safetensors");
    let flux = Conditioner::new(&[&t5, &l]).unwrap();
    let sd3 = Conditioner::new(&[&t5, &l, &g]).unwrap();
    for (conditioner, name) in [(&flux, "flux"), (&sd3, "sd3")] {
        assert_eq!(conditioner.recipe().name(), name);
        let pair = [0, 1].map(|i| Prompt::new(prompts()[i][0].as_str()));
        let encoded = conditioner.encode(&pair, &TextOptions::default()).unwrap();
        for (i, prompt) in encoded.prompts.iter().enumerate() {
            let (key, ours) = (format!("{i}/0/{name}"), &prompt.conditioning);
            assert_close(&key, &kept(ours), &answers.floats(&format!("{key}.cond")), 5e-5);
            let pooled = ours.pooled().unwrap();
            assert_close(&key, pooled, &answers.floats(&format!("{key}.pooled")), 1e-5);
            assert_eq!(ours.mask(), None);
        }
    }
}

#[test]
fn z_image_equals_comfyui_with_its_mask() {
    let qwen3 = opened(&qwen3(), "qwen");
    let answers = Answers::open("others.safetensors");
    let z_image = Conditioner::new(&[&qwen3]).unwrap();
    assert_eq!(z_image.recipe(), Recipe::ZImage);
    let mut hidden = 0;
    for i in [0, 3] {
        let pair = prompts()[i].each_ref().map(|prompt| Prompt::new(prompt.as_str()));
        let encoded = z_image.encode(&pair, &TextOptions::default()).unwrap();
        for (j, prompt) in encoded.prompts.iter().enumerate() {
            let key = format!("{i}/{j}/z_image");
            let ours = &prompt.conditioning;
            assert_close(&key, &kept(ours), &answers.floats(&format!("{key}.cond")), 5e-5);
            assert_eq!(ours.mask(), Some(&*answers.flags(&format!("{key}.mask"))), "{key}");
            hidden += ours.mask().unwrap().iter().filter(|&&seen| !seen).count();
        }
    }
    assert!(hidden > 0, "no prompt of the fixture hides a token");
}

#[test]
fn t5_equals_transformers_with_and_without_mask_and_in_batches() {
    let model = model_as(&t5(), None);
    let answers = Answers::open("others.safetensors");
    let conditioner = Conditioner::new(&[&model]).unwrap();
    let tokens = answers.integers("t5_ids");
    let mask: Vec<bool> = answers.integers("t5_mask").iter().map(|&seen| seen != 0).collect();
    let inputs = [ids(&tokens, None), ids(&tokens, Some(&mask)), ids(&tokens[..30], None)];
    let encoded = conditioner.encode_ids(&inputs, &TextOptions::default()).unwrap();
    assert_close("plain", &kept(&encoded.prompts[0].conditioning), &answers.floats("t5_plain"), 1e-5);
    let masked = conditioner.encode_ids(&inputs[1..2], &TextOptions::default()).unwrap();
    assert_close("masked", &kept(masked.first()), &answers.floats("t5_masked"), 1e-5);
    assert_eq!(masked.first().mask(), Some(&*mask));
    // What others in the batch are does not matter.
    for (input, prompt) in inputs.iter().zip(&encoded.prompts) {
        let alone = conditioner.encode_ids(std::slice::from_ref(input), &TextOptions::default()).unwrap();
        assert_close("alone", prompt.conditioning.data(), alone.first().data(), 1e-6);
        assert_eq!(prompt.conditioning.mask(), alone.first().mask());
    }
    let half = TextOptions { precision: Precision::Bf16, ..TextOptions::default() };
    let half = conditioner.encode_ids(&inputs[..1], &half).unwrap();
    assert_close("bf16", &kept(half.first()), &answers.floats("t5_plain"), 6e-2);
}

#[test]
fn t5_does_not_look_at_padding_where_it_is_told_so() {
    let t5 = opened(&t5(), "t5");
    let conditioner = Conditioner::new(&[&t5]).unwrap();
    let options =
        |t5_mask, t5_tokens| TextOptions { t5_mask, t5_tokens: NonZeroUsize::new(t5_tokens), ..TextOptions::default() };
    let encode = |options| conditioner.encode(&["the cat".into()], &options).unwrap().first().clone();
    let (short, long) = (encode(options(true, 8)), encode(options(true, 40)));
    let real = short.mask().unwrap().iter().filter(|&&seen| seen).count();
    assert!((2..8).contains(&real));
    assert_eq!(long.shape(), [1, 40, 256]);
    assert_close("padding", &long.data()[..real * 256], &short.data()[..real * 256], 1e-6);
    assert_ne!(encode(options(false, 8)).data()[..256], short.data()[..256]);
}

#[test]
fn qwen3_equals_transformers_at_two_layers_and_in_batches() {
    let model = model_as(&qwen3(), None);
    let answers = Answers::open("others.safetensors");
    let conditioner = Conditioner::new(&[&model]).unwrap();
    let tokens = answers.integers("qwen_ids");
    let inputs = [ids(&tokens, None), ids(&tokens[..20], None)];
    let encoded = conditioner.encode_ids(&inputs, &TextOptions::default()).unwrap();
    assert_close("inner", &kept(&encoded.prompts[0].conditioning), &answers.floats("qwen_minus_2"), 1e-5);
    let alone = conditioner.encode_ids(&inputs[1..], &TextOptions::default()).unwrap();
    assert_close("short", encoded.prompts[1].conditioning.data(), alone.first().data(), 1e-6);
    let last = TextOptions { clip_skip: NonZeroUsize::new(9), ..TextOptions::default() };
    let last = conditioner.encode_ids(&inputs[..1], &last).unwrap();
    assert_close("last", &kept(last.first()), &answers.floats("qwen_last"), 1e-5);
    // Tokens at the end that are hidden change nothing before them.
    let mut mask = vec![true; tokens.len()];
    mask[60..].fill(false);
    let masked = conditioner.encode_ids(&[ids(&tokens, Some(&mask))], &TextOptions::default()).unwrap();
    let before = 60 * 96;
    assert_close("hidden", &masked.first().data()[..before], &encoded.first().data()[..before], 1e-6);
}
