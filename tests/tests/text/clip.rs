//! CLIP-L, CLIP-G, CLIP-H and SDXL's pair against ComfyUI.

use luna_core::{
    Call, LayerTimes, Precision,
    text::{
        Conditioner, EmbeddingFolders, EmbeddingProblem, EncoderKind, Prompt, Recipe, TextLoadOptions, TextModel,
        TextOptions,
    },
};
use luna_tests::text::{
    Answers, CLIP_G, CLIP_H, CLIP_L, RUNTIME, assert_close, checkpoint, clip, clip_model, fixture, kept, open_clip,
    prompts,
};
use std::num::NonZeroUsize;

fn folders() -> EmbeddingFolders {
    EmbeddingFolders::new([fixture("text/embeddings")]).unwrap()
}

fn skipping(clip_skip: usize) -> TextOptions {
    TextOptions { clip_skip: NonZeroUsize::new(clip_skip), ..TextOptions::default() }
}

/// Encodes positive and negative in one call and compares both with the fixture; says how many pairs there were.
fn compare(name: &str, conditioner: &Conditioner, options: &TextOptions, most: f64) -> usize {
    let answers = Answers::open("clip.safetensors");
    let mut compared = 0;
    for (i, pair) in prompts().iter().enumerate() {
        if !answers.has(&format!("{i}/0/{name}.cond")) {
            continue;
        }
        let pair = pair.each_ref().map(|prompt| Prompt::new(prompt.as_str()));
        let encoded = conditioner.encode(&pair, options).unwrap();
        for (j, prompt) in encoded.prompts.iter().enumerate() {
            let key = format!("{i}/{j}/{name}");
            let ours = &prompt.conditioning;
            assert_close(&key, &kept(ours), &answers.floats(&format!("{key}.cond")), most);
            assert_close(&key, ours.pooled().unwrap(), &answers.floats(&format!("{key}.pooled")), most);
        }
        compared += 1;
    }
    compared
}

#[test]
fn sd1_equals_comfyui_at_both_clip_skips() {
    let (l, folders) = (clip_model(&CLIP_L), folders());
    let sd1 = Conditioner::new(&[&l]).unwrap().with_embeddings(&folders);
    assert_eq!(compare("sd1", &sd1, &TextOptions::default(), 1e-5), 6);
    assert_eq!(compare("sd1_skip2", &sd1, &skipping(2), 1e-5), 3);
    // The last layer, and more than there are: ComfyUI takes the last then.
    assert_eq!(compare("sd1", &sd1, &skipping(1), 1e-5), 6);
    assert_eq!(compare("sd1", &sd1, &skipping(12), 1e-5), 6);
}

#[test]
fn sdxl_equals_comfyui_at_both_clip_skips() {
    let (l, g, folders) = (clip_model(&CLIP_L), clip_model(&CLIP_G), folders());
    let sdxl = Conditioner::new(&[&g, &l]).unwrap().with_embeddings(&folders);
    assert_eq!(sdxl.recipe(), Recipe::Sdxl);
    assert_eq!(compare("sdxl", &sdxl, &TextOptions::default(), 1e-5), 6);
    assert_eq!(compare("sdxl", &sdxl, &skipping(2), 1e-5), 6);
    assert_eq!(compare("sdxl_skip1", &sdxl, &skipping(1), 1e-5), 3);
}

#[test]
fn of_a_last_layer_that_is_not_taken_only_the_pooled_token_is_computed() {
    let g = clip_model(&CLIP_G);
    let conditioner = Conditioner::new(&[&g]).unwrap();
    let single_tokens = |clip_skip: usize| {
        let times = LayerTimes::new();
        let options = TextOptions { call: Call::default().timed_by(&times), ..skipping(clip_skip) };
        conditioner.encode(&["a cat".into()], &options).unwrap();
        times
            .layers()
            .iter()
            .filter(|layer| layer.name.ends_with(", 1 over 77 tokens"))
            .map(|layer| layer.calls)
            .sum::<u64>()
    };
    assert_eq!((single_tokens(1), single_tokens(2)), (0, 1));
}

#[test]
fn sd2_and_the_refiner_equal_comfyui() {
    let (h, g, folders) = (clip_model(&CLIP_H), clip_model(&CLIP_G), folders());
    let sd2 = Conditioner::new(&[&h]).unwrap().with_embeddings(&folders);
    assert_eq!(compare("sd2", &sd2, &TextOptions::default(), 1e-5), 2);
    let refiner = Conditioner::new(&[&g]).unwrap().with_embeddings(&folders);
    assert_eq!(refiner.recipe(), Recipe::SdxlRefiner);
    assert_eq!(compare("refiner", &refiner, &TextOptions::default(), 1e-5), 2);
}

#[test]
fn half_precision_stays_near() {
    let (l, g, folders) = (clip_model(&CLIP_L), clip_model(&CLIP_G), folders());
    let sdxl = Conditioner::new(&[&l, &g]).unwrap().with_embeddings(&folders);
    for (precision, most) in [(Precision::Bf16, 2e-2), (Precision::F16, 3e-3)] {
        assert_eq!(compare("sdxl", &sdxl, &TextOptions { precision, ..TextOptions::default() }, most), 6);
    }
}

#[test]
fn sdxls_two_texts_may_have_different_lengths() {
    let (l, g) = (clip_model(&CLIP_L), clip_model(&CLIP_G));
    let sdxl = Conditioner::new(&[&l, &g]).unwrap();
    let all = prompts();
    let prompt = Prompt::new(all[0][0].as_str()).for_encoder(EncoderKind::ClipL, all[4][0].as_str());
    let encoded = sdxl.encode(&[prompt], &TextOptions::default()).unwrap();
    let answers = Answers::open("clip.safetensors");
    assert_close("pair", &kept(encoded.first()), &answers.floats("sdxl_pair.cond"), 1e-5);
}

#[test]
fn every_layout_of_one_model_gives_the_same_bits() {
    let (l, g) = (clip(&CLIP_L), clip(&CLIP_G));
    let prompt = || Prompt::new("a (red:1.3) fox");
    let encode = |models: &[&TextModel]| {
        let encoded = Conditioner::new(models).unwrap().encode(&[prompt()], &TextOptions::default()).unwrap();
        encoded.first().clone()
    };
    let load = |parts: &[(&str, &[_])], kind| {
        let options = TextLoadOptions { kind, ..TextLoadOptions::default() };
        TextModel::load(&checkpoint(parts), &RUNTIME, &options).unwrap()
    };
    let (hf_l, hf_g) = (load(&[("", &l)], None), load(&[("", &g)], Some(EncoderKind::ClipG)));
    let expected = encode(&[&hf_l, &hf_g]);
    let open = open_clip(g.clone());
    let single_file =
        load(&[("conditioner.embedders.0.transformer.", &l), ("conditioner.embedders.1.model.", &open)], None);
    assert_eq!(encode(&[&single_file]), expected);
    let pipeline = load(&[("text_encoder.", &l), ("text_encoder_2.", &g)], None);
    assert_eq!(encode(&[&pipeline]), expected);
    let only_g = load(&[("", &open)], Some(EncoderKind::ClipG));
    assert_eq!(encode(&[&hf_l, &only_g]), expected);
    let sd1 = load(&[("cond_stage_model.transformer.", &l)], None);
    assert_eq!(encode(&[&sd1]), encode(&[&hf_l]));
    let mut bare = l.clone();
    bare.retain(|(name, ..)| name != "text_projection.weight");
    bare.iter_mut().for_each(|(name, ..)| *name = name.replacen("text_model.", "", 1));
    let bare = load(&[("", &bare)], None);
    assert_eq!(encode(&[&bare]), encode(&[&hf_l]), "as transformers 5 names it");
    // One encoder out of a file for two.
    let just_g = load(&[("text_encoder.", &l), ("text_encoder_2.", &g)], Some(EncoderKind::ClipG));
    assert_eq!(encode(&[&hf_l, &just_g]), expected);
    // As ComfyUI's CLIPSave wrote projections long ago.
    let mut old = g;
    old.retain(|(name, ..)| name != "text_projection.weight");
    old.extend(open.into_iter().filter(|(name, ..)| name == "text_projection"));
    let old = load(&[("", &old)], Some(EncoderKind::ClipG));
    assert_eq!(encode(&[&hf_l, &old]), expected);
}

#[test]
fn embeddings_that_are_left_out_are_reported() {
    let (l, g, folders) = (clip_model(&CLIP_L), clip_model(&CLIP_G), folders());
    let sdxl = Conditioner::new(&[&l, &g]).unwrap().with_embeddings(&folders);
    let prompts = ["embedding:dawn embedding:nowhere".into(), "plain".into()];
    let encoded = sdxl.encode(&prompts, &TextOptions::default()).unwrap();
    let problem = |name: &str, encoder| EmbeddingProblem::Missing { name: name.into(), encoder };
    assert_eq!(
        encoded.prompts[0].problems,
        [
            problem("nowhere", EncoderKind::ClipL),
            problem("nowhere", EncoderKind::ClipG),
            EmbeddingProblem::WrongWidth { name: "dawn".into(), encoder: EncoderKind::ClipG, expected: 128, found: 64 },
        ]
    );
    assert!(encoded.prompts[1].problems.is_empty());
    // Without folders every reference is missing, and none is read as text.
    let without = Conditioner::new(&[&l]).unwrap();
    let encoded = without.encode(&["embedding:dawn".into(), "".into()], &TextOptions::default()).unwrap();
    assert_eq!(encoded.prompts[0].problems, [problem("dawn", EncoderKind::ClipL)]);
    assert_eq!(encoded.prompts[0].conditioning, encoded.prompts[1].conditioning);
    assert_eq!(encoded.sequences, 1);
}
