//! Prompts, tokens and files that are wrong: a clear error or ComfyUI's own behaviour, never a panic.

use luna_core::{
    Call, CancelToken, ErrorKind, Limits,
    checkpoint::Checkpoint,
    text::{Conditioner, EncoderKind, Prompt, Recipe, TextLoadOptions, TextModel, TextOptions, TokenIds},
};
use luna_tests::text::{CLIP_L, Drawn, RUNTIME, checkpoint, clip, clip_model, fixture, folder, model_as, qwen3, t5};
use proptest::prelude::*;
use std::sync::LazyLock;

static MODEL: LazyLock<TextModel> = LazyLock::new(|| clip_model(&CLIP_L));

#[track_caller]
fn refused(kind: ErrorKind, part: &str, result: luna_core::Result<impl Sized>) {
    let Err(error) = result else { panic!("not refused: {part}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

fn encode(prompt: &str) -> luna_core::Result<luna_core::text::Encoded> {
    Conditioner::new(&[&*MODEL])?.encode(&[prompt.into()], &TextOptions::default())
}

fn load(drawn: &[Drawn], kind: Option<EncoderKind>) -> luna_core::Result<TextModel> {
    let options = TextLoadOptions { kind, ..TextLoadOptions::default() };
    TextModel::load(&checkpoint(&[("", drawn)]), &RUNTIME, &options)
}

#[test]
fn long_and_odd_prompts() {
    refused(ErrorKind::LimitExceeded, "tokens in the prompt", encode(&"cat, ".repeat(200_000)));
    refused(ErrorKind::LimitExceeded, "bytes in the prompt", encode(&"a".repeat((1 << 20) + 1)));
    // One word of a megabyte: its tokens are cut into chunks, if there are not too many.
    refused(ErrorKind::LimitExceeded, "tokens in the prompt", encode(&"ab1".repeat(300_000)));
    for prompt in ["\0", "a\0b", "\u{FFFD}\u{FFFD}", "((((((", "\\", ":", "(:)", "embedding:", "(embedding:\0:1.2)"] {
        let encoded = encode(prompt).unwrap();
        assert!(encoded.first().data().iter().all(|value| value.is_finite()), "{prompt:?}");
    }
    let deep = format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000));
    // 1.1 to the power of 20 000 is not a number that f32 holds.
    refused(ErrorKind::InvalidInput, "weight", encode(&deep));
}

#[test]
fn weights_that_are_no_numbers() {
    for weight in ["1e999", "nan", "-inf", "1e39"] {
        refused(ErrorKind::InvalidInput, "weight", encode(&format!("(cat:{weight})")));
    }
    refused(ErrorKind::NonFinite, "CLIP-L", encode_weighted_over());
    // Text after the colon that is no number is text, as in ComfyUI.
    assert!(encode("(cat:dog)").is_ok());
}

/// Finite weights whose product with the encoding is not finite.
fn encode_weighted_over() -> luna_core::Result<luna_core::text::Encoded> {
    encode("(cat:3.4e38)")
}

#[test]
fn tokens_that_do_not_suit_the_model() {
    let qwen3 = model_as(&qwen3(), None);
    let with = |model: &TextModel, ids: Vec<u32>, mask: Option<Vec<bool>>| {
        Conditioner::new(&[model])?.encode_ids(&[TokenIds { ids, mask }], &TextOptions::default())
    };
    refused(ErrorKind::InvalidInput, "vocabulary", with(&qwen3, vec![420], None));
    refused(ErrorKind::InvalidInput, "no tokens", with(&qwen3, vec![], None));
    refused(ErrorKind::InvalidInput, "mask", with(&qwen3, vec![1, 2], Some(vec![true])));
    refused(ErrorKind::LimitExceeded, "tokens", with(&qwen3, vec![1; 100_000], None));
    refused(ErrorKind::InvalidInput, "too long for CLIP", with(&MODEL, vec![1; 78], None));
    refused(ErrorKind::InvalidInput, "takes no attention mask", with(&MODEL, vec![1], Some(vec![true])));
    let t5 = model_as(&t5(), None);
    refused(ErrorKind::LimitExceeded, "attention biases", with(&t5, vec![3; 60_000], None));
    // Everything hidden is odd, but no reason to fail.
    assert!(with(&t5, vec![3; 5], Some(vec![false; 5])).is_ok());
    assert!(with(&qwen3, vec![3; 5], Some(vec![false, true, false, true, false])).is_ok());
    let none: &[TokenIds] = &[];
    let conditioner = Conditioner::new(&[&qwen3]).unwrap();
    refused(ErrorKind::InvalidInput, "nothing to encode", conditioner.encode_ids(none, &TextOptions::default()));
    let no_prompts: &[Prompt] = &[];
    refused(ErrorKind::InvalidInput, "nothing to encode", conditioner.encode(no_prompts, &TextOptions::default()));
    refused(ErrorKind::NotFound, "tokenizer.json", conditioner.encode(&["a".into()], &TextOptions::default()));
    let two = Conditioner::with_recipe(&[&*MODEL, &t5], Recipe::Flux).unwrap();
    refused(
        ErrorKind::InvalidInput,
        "one text encoder only",
        two.encode_ids(&[TokenIds { ids: vec![1], mask: None }], &TextOptions::default()),
    );
}

#[test]
fn tokenizers_of_other_models() {
    let place = tempfile::tempdir().unwrap();
    let open = || TextModel::open(place.path(), &RUNTIME);
    folder(place.path(), &t5(), "qwen");
    refused(ErrorKind::InvalidInput, "tokenizer", open());
    folder(place.path(), &qwen3(), "t5");
    refused(ErrorKind::InvalidInput, "tokenizer", open());
    let mut big = qwen3();
    let (_, shape, values) = &mut big[0];
    shape[0] = 5000;
    values.resize(5000 * 96, 0.0);
    folder(place.path(), &big, "qwen");
    refused(ErrorKind::InvalidInput, "vocabulary for 5000", open());
    std::fs::write(place.path().join("tokenizer.json"), "{").unwrap();
    refused(ErrorKind::InvalidFile, "tokenizer.json", open());
}

#[test]
fn files_of_other_models() {
    let vae = fixture("../../models/moonlet/moonlet.safetensors");
    refused(ErrorKind::Unsupported, "no text encoder", TextModel::open(vae, &RUNTIME));
    refused(ErrorKind::Unsupported, "another text encoder", load(&t5(), Some(EncoderKind::ClipL)));
    refused(ErrorKind::Unsupported, "another text encoder", load(&clip(&CLIP_L), Some(EncoderKind::T5)));
    let l = checkpoint(&[("text_encoder.", &clip(&CLIP_L)), ("text_encoder_2.", &t5())]);
    let qwen3_wanted = TextLoadOptions { kind: Some(EncoderKind::Qwen3), ..TextLoadOptions::default() };
    refused(ErrorKind::Unsupported, "holds no Qwen3", TextModel::load(&l, &RUNTIME, &qwen3_wanted));
    refused(ErrorKind::InvalidInput, "two CLIP-L", {
        let twin = clip_model(&CLIP_L);
        Conditioner::with_recipe(&[&*MODEL, &twin], Recipe::Sd1).map(drop)
    });
    let qwen3 = model_as(&qwen3(), None);
    refused(ErrorKind::InvalidInput, "together", Conditioner::new(&[&*MODEL, &qwen3]).map(drop));
    refused(ErrorKind::InvalidInput, "missing for sdxl", Conditioner::with_recipe(&[&MODEL], Recipe::Sdxl).map(drop));
    refused(ErrorKind::InvalidInput, "together", Conditioner::new(&[]).map(drop));
    refused(ErrorKind::InvalidInput, "missing for sd3", Conditioner::with_recipe(&[], Recipe::Sd3).map(drop));
}

#[test]
fn incomplete_and_contradictory_files() {
    let without = |drawn: Vec<Drawn>, name: &str| -> Vec<Drawn> {
        let left: Vec<Drawn> = drawn.into_iter().filter(|(known, ..)| known != name).collect();
        left
    };
    let l = || clip(&CLIP_L);
    for name in ["text_model.encoder.layers.1.mlp.fc2.bias", "text_model.final_layer_norm.bias"] {
        // A bias may be missing; then there is none.
        assert!(load(&without(l(), name), None).is_ok(), "{name}");
    }
    let gone = "text_model.encoder.layers.1.mlp.fc2.weight";
    refused(ErrorKind::InvalidFile, gone, load(&without(l(), gone), None));
    let gone = "encoder.final_layer_norm.weight";
    refused(ErrorKind::InvalidFile, gone, load(&without(t5(), gone), None));

    let reshaped = |mut drawn: Vec<Drawn>, name: &str, shape: &[usize]| -> Vec<Drawn> {
        let (_, old, values) = drawn.iter_mut().find(|(known, ..)| known == name).unwrap();
        *old = shape.to_vec();
        values.resize(shape.iter().product(), 0.0);
        drawn
    };
    let positions = "text_model.embeddings.position_embedding.weight";
    refused(ErrorKind::Unsupported, "77", load(&reshaped(l(), positions, &[248, 64]), None));
    refused(ErrorKind::InvalidFile, "width", load(&reshaped(l(), positions, &[77, 32]), None));
    let table = "text_model.embeddings.token_embedding.weight";
    refused(ErrorKind::InvalidFile, "table", load(&reshaped(l(), table, &[64]), None));
    refused(
        ErrorKind::InvalidFile,
        "wrong shape",
        load(&reshaped(l(), "text_model.final_layer_norm.weight", &[63]), None),
    );
    let biases = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    refused(ErrorKind::InvalidFile, "heads", load(&reshaped(t5(), biases, &[32, 7]), None));
    refused(ErrorKind::InvalidFile, "buckets", load(&reshaped(t5(), biases, &[2, 3]), None));
    refused(
        ErrorKind::InvalidFile,
        "heads",
        load(&reshaped(qwen3(), "layers.0.self_attn.q_norm.weight", &[100]), None),
    );

    let mut old_t5 = t5();
    old_t5.push(("encoder.block.0.layer.1.DenseReluDense.wi.weight".into(), vec![1], vec![0.0]));
    refused(ErrorKind::Unsupported, "T5 v1.0", load(&old_t5, None));
    let mut umt5 = t5();
    let other = biases.replace("block.0", "block.1");
    umt5.push((other, vec![32, 3], vec![0.0; 96]));
    refused(ErrorKind::Unsupported, "UMT5", load(&umt5, None));

    let g = model_as(&without(clip(&CLIP_L), "text_projection.weight"), Some(EncoderKind::ClipG));
    let refiner = Conditioner::new(&[&g]).unwrap();
    refused(ErrorKind::InvalidFile, "no text projection", refiner.encode(&["a".into()], &TextOptions::default()));
}

#[test]
fn weights_that_are_not_finite_and_calls_that_are_cancelled() {
    let mut drawn = clip(&CLIP_L);
    let (_, _, values) = drawn.iter_mut().find(|(name, ..)| name.ends_with("layers.0.mlp.fc1.weight")).unwrap();
    values[7] = f32::NAN;
    let model = load(&drawn, None).unwrap();
    let conditioner = Conditioner::new(&[&model]).unwrap();
    refused(ErrorKind::NonFinite, "NaN", conditioner.encode(&["a".into()], &TextOptions::default()));

    let token = CancelToken::new();
    token.cancel();
    let options = TextOptions { call: Call::new().cancelled_by(&token), ..TextOptions::default() };
    let conditioner = Conditioner::new(&[&*MODEL]).unwrap();
    refused(ErrorKind::Cancelled, "cancelled", conditioner.encode(&["a".into()], &options));
    assert!(encode("a").is_ok(), "the model is as good as before");
}

#[test]
fn config_files_that_disagree() {
    let place = tempfile::tempdir().unwrap();
    let bytes = luna_tests::text::file(&[("", &clip(&CLIP_L))], |_| safetensors::Dtype::F32);
    std::fs::write(place.path().join("model.safetensors"), bytes).unwrap();
    for (config, kind, part) in [
        (r#"{"hidden_act": "relu"}"#, ErrorKind::Unsupported, "relu"),
        (r#"{"num_attention_heads": 7}"#, ErrorKind::InvalidFile, "multiple of 7"),
        (r#"{"num_attention_heads": 0}"#, ErrorKind::InvalidFile, "multiple of 0"),
    ] {
        std::fs::write(place.path().join("config.json"), config).unwrap();
        refused(kind, part, TextModel::open(place.path(), &RUNTIME));
    }
    std::fs::write(place.path().join("config.json"), r#"{"hidden_act": "gelu", "num_attention_heads": 2}"#).unwrap();
    let model = TextModel::open(place.path(), &RUNTIME).unwrap();
    let other = Conditioner::new(&[&model]).unwrap().encode(&["a".into()], &TextOptions::default()).unwrap();
    assert_ne!(other.first(), encode("a").unwrap().first());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any text at all, and texts made of what prompts are made of.
    #[test]
    fn no_prompt_panics(any in "\\PC{0,40}", parts in proptest::collection::vec(
        prop_oneof!["[(): \\\\\\[\\]]", "embedding:(dawn|tide|odd|x)", "[a-z]{1,9}", ":[0-9.e+-]{0,6}\\)", "[\\x00-\\x20\u{200b}]"], 0..12)) {
        let folders = luna_core::text::EmbeddingFolders::new([fixture("text/embeddings")]).unwrap();
        let conditioner = Conditioner::new(&[&*MODEL]).unwrap().with_embeddings(&folders);
        for prompt in [any, parts.concat()] {
            match conditioner.encode(&[Prompt::new(prompt)], &TextOptions::default()) {
                Ok(encoded) => prop_assert!(encoded.first().data().iter().all(|value| value.is_finite())),
                Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NonFinite), "{error}"),
            }
        }
    }

    /// A file cut off or with a byte changed is refused or loads; nothing else.
    #[test]
    fn no_file_panics(at in 0.0..1.0f64, byte: u8, cut: bool) {
        static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| luna_tests::text::file(&[("", &t5())], |_| safetensors::Dtype::F32));
        // Changes in the header matter most.
        let mut bytes = BYTES.clone();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let at = (at * header as f64) as usize;
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(checkpoint) = Checkpoint::from_bytes("changed", bytes, &Limits::default()) {
            let _ = TextModel::load(&checkpoint, &RUNTIME, &TextLoadOptions::default());
        }
    }
}
