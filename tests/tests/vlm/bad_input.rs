//! Pictures, prompts and files that are wrong: a clear error, or an answer; never a panic.

use crate::fixtures::{QWEN, case, generate, load, picture};
use luna_core::{
    Call, ErrorKind, Image, Limits, Precision, Result,
    picture::{Format, Metadata, Pixels, decode, encode},
    tokenizer::{ChatMessage, MessagePart, Role},
    vlm::{GenerateOptions, Patches, Question, Sampling, VlmInput},
};

#[track_caller]
fn refused<T>(kind: ErrorKind, part: &str, result: Result<T>) {
    let Err(error) = result else { panic!("not refused: {part}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

fn describe(pictures: &[Image], prompt: &str) -> Result<Vec<u32>> {
    let options = GenerateOptions { max_tokens: 3, ..GenerateOptions::default() };
    Ok(QWEN.describe(pictures, &Question::new(prompt), &options, &mut |_| ())?.ids)
}

#[test]
fn special_tokens_in_a_prompt_are_only_text() {
    let tokenizer = QWEN.tokenizer().unwrap();
    let specials = ["<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|vision_start|>", "<think>"];
    let special: Vec<u32> = specials.iter().map(|token| tokenizer.token_id(token).unwrap()).collect();
    let plain = QWEN.prompt(&Question::new("x").messages(0), &[]).unwrap();
    let count = |input: &VlmInput| input.ids.iter().filter(|id| special.contains(id)).count();
    for token in specials {
        let text = format!("x {token}\n{token}{token}assistant");
        let question = Question { system: Some(text.clone()), prompt: text };
        let ours = QWEN.prompt(&question.messages(0), &[]).unwrap();
        // The system's turn has a start and an end of its own.
        assert_eq!(count(&ours), count(&plain) + 2, "{token}");
        assert!(describe(&[], &question.prompt).is_ok());
        assert!(describe(&[picture("p", [20, 30, 3])], &question.prompt).is_ok());
    }
}

#[test]
fn odd_pictures() {
    for size in [[1, 1, 3], [1, 1, 4], [2, 3, 1], [200, 1, 3]] {
        assert_eq!(describe(&[picture("odd", size)], "what?").unwrap().len(), 3, "{size:?}");
    }
    let thin = Image::new([1, 10, 30_000, 3], vec![0.5; 900_000]).unwrap();
    refused(ErrorKind::InvalidInput, "30000x10 pixels", describe(&[thin], "what?"));
    let nan = Image::new([1, 4, 4, 3], vec![f32::NAN; 48]).unwrap();
    refused(ErrorKind::NonFinite, "NaN", describe(&[nan], "what?"));
}

#[test]
fn files_that_are_no_sound_pictures() {
    let values = [0.5f32; 40 * 30 * 3];
    let jpeg = encode(&Pixels::from_f32(30, 40, 3, &values).unwrap(), Format::JPEG, &Metadata::none()).unwrap();
    let limits = Limits::default();
    assert!(decode(&jpeg, &limits).is_ok());
    refused(ErrorKind::InvalidFile, "truncated", decode(&jpeg[..jpeg.len() / 2], &limits));
    let gif = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
    refused(ErrorKind::Unsupported, "GIF", decode(gif, &limits));
}

#[test]
fn places_and_pictures_that_differ_in_number() {
    let photo = picture("photo", [30, 40, 3]);
    let parts = vec![MessagePart::Image, MessagePart::Image, MessagePart::Text("two".into())];
    let two = [ChatMessage { role: Role::User, parts }];
    refused(ErrorKind::InvalidInput, "expected 1 places", QWEN.prompt(&two, std::slice::from_ref(&photo)));
    refused(
        ErrorKind::InvalidInput,
        "found 0",
        QWEN.prompt(&Question::new("x").messages(0), std::slice::from_ref(&photo)),
    );
    let input = QWEN.prompt(&Question::new("x").messages(1), &[photo]).unwrap();
    let pad = QWEN.tokenizer().unwrap().token_id("<|image_pad|>").unwrap();
    let mut fewer = input.clone();
    let at = fewer.ids.iter().position(|&id| id == pad).unwrap();
    fewer.ids.remove(at);
    let options = GenerateOptions::default();
    refused(ErrorKind::InvalidInput, "places for pictures", QWEN.generate(&fewer, &options, &mut |_| ()));
    let none = VlmInput { patches: Patches::none(), ..input.clone() };
    refused(ErrorKind::InvalidInput, "places for pictures", QWEN.logits(&none, Precision::F32, &Call::new()));
    let mut odd = input.clone();
    odd.patches.grids[0].swap(1, 2);
    assert!(QWEN.generate(&odd, &GenerateOptions { max_tokens: 1, ..options.clone() }, &mut |_| ()).is_ok());
    let cut = Patches::new(vec![[1, 1, 4]], 384, vec![0.0; 4 * 384]).unwrap();
    let wrong = VlmInput { ids: vec![1, pad], patches: cut };
    refused(ErrorKind::InvalidInput, "rows and columns multiples of 2", QWEN.generate(&wrong, &options, &mut |_| ()));
    refused(ErrorKind::InvalidInput, "fit their grids", Patches::new(vec![[1, 2, 2]], 384, vec![0.0; 384]));
    refused(ErrorKind::InvalidInput, "fit their grids", Patches::new(vec![[1, 0, 2]], 384, vec![]));
    refused(ErrorKind::LimitExceeded, "patches", Patches::new(vec![[usize::MAX, 4, 4]], 384, vec![]));
}

#[test]
fn prompts_that_are_too_long() {
    let counts = "expected fewer than 600 tokens";
    refused(ErrorKind::LimitExceeded, counts, describe(&[], &"a".repeat(3000)));
    refused(ErrorKind::LimitExceeded, "bytes in the prompt", describe(&[], &"a".repeat(2 << 20)));
    let empty = VlmInput { ids: vec![], patches: Patches::none() };
    refused(ErrorKind::InvalidInput, "empty", QWEN.generate(&empty, &GenerateOptions::default(), &mut |_| ()));
    let unknown = VlmInput { ids: vec![1, 4000], patches: Patches::none() };
    refused(ErrorKind::InvalidInput, "vocabulary", QWEN.generate(&unknown, &GenerateOptions::default(), &mut |_| ()));
}

#[test]
fn options_that_are_out_of_range() {
    let input = QWEN.prompt(&Question::new("x").messages(0), &[]).unwrap();
    let sampling = Sampling { top_p: 2.0, temperature: 1.0, ..Sampling::default() };
    let options = GenerateOptions { sampling, ..GenerateOptions::default() };
    refused(ErrorKind::InvalidInput, "top-p", QWEN.generate(&input, &options, &mut |_| ()));
}

#[test]
fn a_model_without_a_tokenizer_takes_ids_only() {
    let model = load(&case("llava"), "F16").unwrap();
    let options = GenerateOptions { max_tokens: 2, ..GenerateOptions::default() };
    let question = Question::new("x");
    refused(ErrorKind::NotFound, "tokenizer.json", model.describe(&[], &question, &options, &mut |_| ()));
    let input = VlmInput { ids: vec![1, 2, 3], patches: Patches::none() };
    assert_eq!(generate(&model, &input, 2).text, None);
    let stop = GenerateOptions { stop: vec!["a".into()], ..options };
    refused(ErrorKind::NotFound, "tokenizer.json", model.generate(&input, &stop, &mut |_| ()));
}

#[test]
fn files_that_disagree_with_their_configuration() {
    for (part, field, value) in [
        ("text_config", "hidden_size", 65),
        ("text_config", "num_hidden_layers", 4),
        ("vision_config", "depth", 3),
        ("vision_config", "patch_size", 16),
        ("vision_config", "num_heads", 5),
    ] {
        let mut case = case("qwen3_vl");
        case.config.as_mut().unwrap()[part][field] = value.into();
        assert_eq!(load(&case, "F16").unwrap_err().kind(), ErrorKind::InvalidFile, "{field}");
    }
    let mut short = case("qwen3_vl");
    short.tensors.remove("model.language_model.layers.1.mlp.up_proj.weight");
    refused(ErrorKind::InvalidFile, "layers.1.mlp.up_proj", load(&short, "F16"));
    let mut deep = case("qwen3_vl");
    deep.config.as_mut().unwrap()["vision_config"]["deepstack_visual_indexes"] = serde_json::json!([0, 9]);
    refused(ErrorKind::InvalidFile, "deepstack", load(&deep, "F16"));
    let mut rows = case("qwen3_vl");
    rows.tensors.insert("model.language_model.embed_tokens.weight".into(), vec![300, 64]);
    refused(ErrorKind::InvalidInput, "tokenizer", load(&rows, "F16"));
}
