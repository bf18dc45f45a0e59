//! LoRAs on text encoders: the encoding must be that of a model whose weights were changed in its file, by plain
//! arithmetic written here.

use luna_core::{
    ErrorKind, Limits,
    lora::{LoraFile, LoraStack, ResolveOptions},
    text::{Conditioner, ConditioningCache, EncoderKind, TextModel, TextOptions, TokenIds},
};
use luna_tests::text::{
    CLIP_G, CLIP_H, CLIP_L, Drawn, checkpoint, clip, clip_model, draw, file, model_as, open_clip, qwen3, t5,
};
use safetensors::Dtype;
use std::sync::Arc;

const RANK: usize = 3;
const ALPHA: f32 = 2.0;

/// Down and up for one layer of `[outputs, inputs]`.
fn factors(layer: &str, outputs: usize, inputs: usize) -> [Vec<f32>; 2] {
    let down = draw(&format!("{layer}.down"), RANK * inputs, 0.0, 0.125);
    [down, draw(&format!("{layer}.up"), outputs * RANK, 0.0, 0.5)]
}

/// The model's tensors with `strength · alpha/rank · up·down` added to these layers.
fn changed(mut drawn: Vec<Drawn>, layers: &[String], strength: f64) -> Vec<Drawn> {
    for layer in layers {
        let name = format!("{layer}.weight");
        let (_, shape, values) = drawn.iter_mut().find(|(own, ..)| *own == name).unwrap_or_else(|| panic!("no {name}"));
        let (outputs, inputs) = (shape[0], shape[1]);
        let [down, up] = factors(layer, outputs, inputs);
        for (at, value) in values.iter_mut().enumerate() {
            let (output, input) = (at / inputs, at % inputs);
            let sum: f64 = (0..RANK)
                .map(|rank| f64::from(up[output * RANK + rank]) * f64::from(down[rank * inputs + input]))
                .sum();
            *value = (f64::from(*value) + strength * f64::from(ALPHA) / RANK as f64 * sum) as f32;
        }
    }
    drawn
}

/// A file with the factors for these layers of a model, under the names that `named` gives.
fn lora(drawn: &[Drawn], layers: &[String], named: impl Fn(&str) -> [String; 3]) -> Vec<Drawn> {
    layers
        .iter()
        .flat_map(|layer| {
            let (_, shape, _) = drawn.iter().find(|(own, ..)| *own == format!("{layer}.weight")).unwrap();
            let [down, up] = factors(layer, shape[0], shape[1]);
            let [down_name, up_name, alpha] = named(layer);
            [(down_name, vec![RANK, shape[1]], down), (up_name, vec![shape[0], RANK], up), (alpha, vec![], vec![ALPHA])]
        })
        .collect()
}

fn kohya(prefix: &str) -> impl Fn(&str) -> [String; 3] {
    move |layer: &str| {
        let key = format!("{prefix}{}", layer.replace('.', "_"));
        [format!("{key}.lora_down.weight"), format!("{key}.lora_up.weight"), format!("{key}.alpha")]
    }
}

fn peft(prefix: &str) -> impl Fn(&str) -> [String; 3] {
    move |layer: &str| {
        let key = format!("{prefix}{layer}");
        [format!("{key}.lora_A.weight"), format!("{key}.lora_B.weight"), format!("{key}.alpha")]
    }
}

fn stack(tensors: &[Drawn], strength: f64) -> LoraStack {
    let bytes = file(&[("", tensors)], |_| Dtype::F32);
    let lora = LoraFile::from_bytes("drawn", bytes, &Limits::default()).unwrap();
    LoraStack::new().with(Arc::new(lora), 0.0, strength).unwrap()
}

fn strict() -> ResolveOptions {
    ResolveOptions { strict: true, ..ResolveOptions::default() }
}

fn with(stack: &LoraStack, models: &[&TextModel]) -> TextOptions {
    let mut options = TextOptions::default();
    for model in models {
        options.patches.extend(stack.resolve_text(model, &strict()).unwrap().patches);
    }
    options
}

fn assert_near(what: &str, ours: &[f32], theirs: &[f32]) {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let error = norm(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / norm(&mut theirs.iter().copied());
    assert!(ours.len() == theirs.len() && error < 1e-5, "{what}: relative error {error:.2e}");
}

fn clip_layers() -> Vec<String> {
    let layers = ["0.self_attn.q_proj", "1.self_attn.out_proj", "2.mlp.fc1", "2.mlp.fc2", "0.self_attn.v_proj"];
    layers.map(|layer| format!("text_model.encoder.layers.{layer}")).into()
}

/// Encodes two prompts at once and compares both with the changed models'.
fn compare(what: &str, ours: &[&TextModel], options: &TextOptions, theirs: &[&TextModel]) {
    let prompts = ["a (lighthouse:1.3) at dusk".into(), "blurry".into()];
    let [ours, plain] = [options, &TextOptions::default()]
        .map(|options| Conditioner::new(ours).unwrap().encode(&prompts, options).unwrap().prompts);
    let theirs = Conditioner::new(theirs).unwrap().encode(&prompts, &TextOptions::default()).unwrap().prompts;
    for ((ours, theirs), plain) in ours.iter().zip(&theirs).zip(&plain) {
        assert_near(what, ours.conditioning.data(), theirs.conditioning.data());
        assert_near(what, ours.conditioning.pooled().unwrap(), theirs.conditioning.pooled().unwrap());
        assert_ne!(ours.conditioning, plain.conditioning, "{what}");
    }
}

#[test]
fn clips_are_changed_under_every_name() {
    let layers = clip_layers();
    for (shape, prefixes) in [
        (
            &CLIP_L,
            &["lora_te_", "lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer.", "base_model.model."][..],
        ),
        (&CLIP_G, &["lora_te2_", "lora_te_", "text_encoder_2.", "clip_g."][..]),
        (&CLIP_H, &["lora_te_", "lora_te1_"][..]),
    ] {
        let base = clip(shape);
        let model = clip_model(shape);
        let reference = model_as(&changed(base.clone(), &layers, -0.7), Some(shape.kind));
        for prefix in prefixes {
            let tensors = match prefix.ends_with('_') {
                true => lora(&base, &layers, kohya(prefix)),
                false => lora(&base, &layers, peft(prefix)),
            };
            let options = with(&stack(&tensors, -0.7), &[&model]);
            compare(&format!("{} {prefix}", shape.kind), &[&model], &options, &[&reference]);
        }
    }
}

/// A file names layers apart that the checkpoint holds as one, and the projection, which is stored turned.
#[test]
fn open_clip_checkpoints_take_the_same_files() {
    let mut layers = clip_layers();
    layers.push("text_projection".into());
    let base = clip(&CLIP_G);
    let model = model_as(&open_clip(base.clone()), Some(EncoderKind::ClipG));
    let reference = model_as(&changed(base.clone(), &layers, 1.0), Some(EncoderKind::ClipG));
    let options = with(&stack(&lora(&base, &layers, kohya("lora_te2_")), 1.0), &[&model]);
    compare("OpenCLIP", &[&model], &options, &[&reference]);
}

#[test]
fn both_encoders_of_sdxl_take_their_own() {
    let layers = clip_layers();
    let (l, g) = (clip(&CLIP_L), clip(&CLIP_G));
    let mut tensors = lora(&l, &layers[..3], kohya("lora_te1_"));
    tensors.extend(lora(&g, &layers[1..], kohya("lora_te2_")));
    let stack = stack(&tensors, 0.8);
    let reference_l = model_as(&changed(l.clone(), &layers[..3], 0.8), Some(EncoderKind::ClipL));
    let reference_g = model_as(&changed(g.clone(), &layers[1..], 0.8), Some(EncoderKind::ClipG));
    let (model_l, model_g) = (clip_model(&CLIP_L), clip_model(&CLIP_G));
    // Two files: each model says how many adapters are for the other.
    let of_l = stack.resolve_text(&model_l, &strict()).unwrap().coverage;
    assert_eq!((of_l.applied(), of_l.files[0].elsewhere), (3, 4));
    compare("two files", &[&model_l, &model_g], &with(&stack, &[&model_l, &model_g]), &[&reference_l, &reference_g]);
    // One file.
    let parts: [(&str, &[Drawn]); 2] =
        [("conditioner.embedders.0.transformer.", &l), ("conditioner.embedders.1.model.", &open_clip(g))];
    let both = TextModel::load(&checkpoint(&parts), &luna_tests::text::RUNTIME, &Default::default()).unwrap();
    let resolved = stack.resolve_text(&both, &strict()).unwrap();
    assert_eq!((resolved.coverage.applied(), resolved.coverage.files[0].elsewhere), (7, 0));
    compare("one file", &[&both], &with(&stack, &[&both]), &[&reference_l, &reference_g]);
}

#[test]
fn language_models_are_changed() {
    let t5_layers = ["encoder.block.0.layer.0.SelfAttention.q", "encoder.block.2.layer.1.DenseReluDense.wi_1"];
    let qwen_layers = ["layers.0.self_attn.q_proj", "layers.1.self_attn.o_proj", "layers.2.mlp.down_proj"];
    let ids = [TokenIds { ids: vec![5, 9, 23, 77, 130, 1], mask: None }, TokenIds { ids: vec![8, 1], mask: None }];
    for (base, kind, layers, prefixes) in [
        (t5(), EncoderKind::T5, &t5_layers[..], &["lora_te3_", "lora_te2_", "text_encoder_2.", "t5."][..]),
        (
            qwen3(),
            EncoderKind::Qwen3,
            &qwen_layers,
            &["lora_te_", "text_encoder.", "lora_te1_model_", "base_model.model.model."][..],
        ),
    ] {
        let layers: Vec<String> = layers.iter().map(|layer| (*layer).to_owned()).collect();
        let model = model_as(&base, Some(kind));
        let reference = model_as(&changed(base.clone(), &layers, 0.6), Some(kind));
        let encode = |model: &TextModel, options: &TextOptions| {
            Conditioner::new(&[model]).unwrap().encode_ids(&ids, options).unwrap().prompts
        };
        let expected = encode(&reference, &TextOptions::default());
        for prefix in prefixes {
            let tensors = match prefix.ends_with('_') {
                true => lora(&base, &layers, kohya(prefix)),
                false => lora(&base, &layers, peft(prefix)),
            };
            let ours = encode(&model, &with(&stack(&tensors, 0.6), &[&model]));
            for (ours, theirs) in ours.iter().zip(&expected) {
                assert_near(&format!("{kind} {prefix}"), ours.conditioning.data(), theirs.conditioning.data());
            }
        }
    }
}

/// A conditioning made with one stack is never given for another, and is given again for the same.
#[test]
fn the_cache_follows_the_stack() {
    let (base, model) = (clip(&CLIP_L), clip_model(&CLIP_L));
    let cache = ConditioningCache::new(1 << 22);
    let conditioner = Conditioner::new(&[&model]).unwrap().with_cache(&cache);
    let cached = |options: &TextOptions| conditioner.encode(&["a cat".into()], options).unwrap().prompts[0].cached;
    let tensors = lora(&base, &clip_layers(), kohya("lora_te_"));
    let other = lora(&base, &clip_layers()[1..], kohya("lora_te_"));
    let with = |tensors: &[Drawn], strength| with(&stack(tensors, strength), &[&model]);
    assert!(!cached(&TextOptions::default()));
    for options in [with(&tensors, 0.7), with(&tensors, 0.8), with(&other, 0.7)] {
        assert_eq!([cached(&options), cached(&options)], [false, true]);
    }
    assert!(cached(&with(&tensors, 0.7)));
    // Strength 0 is no stack at all.
    assert!(cached(&with(&tensors, 0.0)));
}

#[test]
fn a_lora_for_the_denoiser_changes_no_encoder_and_says_so() {
    let model = clip_model(&CLIP_L);
    let key = "lora_unet_mid_block_attentions_0_proj_in";
    let tensors = [
        (format!("{key}.lora_down.weight"), vec![2, 8], vec![0.5; 16]),
        (format!("{key}.lora_up.weight"), vec![8, 2], vec![0.5; 16]),
    ];
    let error = stack(&tensors, 1.0).resolve_text(&model, &ResolveOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("1 for other components"), "{error}");
}
