//! How generation goes on and ends, on the Qwen3-VL of the fixtures.

use crate::fixtures::{QWEN, case, generate, picture, prompts};
use luna_core::{
    Call, CancelToken, ErrorKind, Precision,
    vlm::{FinishReason, GenerateOptions, Question, Sampling, VlmInput, VlmModel},
};
use std::sync::{Arc, Mutex};

fn words(text: &str) -> VlmInput {
    QWEN.prompt(&Question::new(text).messages(0), &[]).unwrap()
}

fn sampled(seed: u64) -> GenerateOptions {
    let sampling = Sampling { temperature: 1.5, top_k: 50, top_p: 0.95, min_p: 0.01, seed, ..Sampling::default() };
    GenerateOptions { max_tokens: 20, sampling, stop_at_end: false, ..GenerateOptions::default() }
}

#[test]
fn pieces_joined_are_the_text() {
    let mut pieces = Vec::new();
    let mut ids = Vec::new();
    let photo = picture("photo", [30, 40, 3]);
    let options = GenerateOptions { max_tokens: 40, stop_at_end: false, ..GenerateOptions::default() };
    let generated = QWEN
        .describe(&[photo], &Question::new("what is it?"), &options, &mut |piece| {
            pieces.push(piece.text.to_owned());
            if ids.len() < 40 {
                ids.push(piece.id);
            }
        })
        .unwrap();
    assert_eq!(ids, generated.ids);
    let text = generated.text.unwrap();
    assert!(!text.is_empty());
    assert_eq!(pieces.concat(), text);
    assert_eq!(text, QWEN.tokenizer().unwrap().decode(&generated.ids, true).unwrap());
    assert!(generated.picture_tokens > 0);
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let input = words("a red fox");
    let run = |seed| QWEN.generate(&input, &sampled(seed), &mut |_| ()).unwrap().ids;
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
    let greedy = generate(&QWEN, &input, 20).ids;
    let one = GenerateOptions { sampling: Sampling { top_k: 1, ..sampled(5).sampling }, ..sampled(5) };
    assert_eq!(QWEN.generate(&input, &one, &mut |_| ()).unwrap().ids, greedy);
}

#[test]
fn a_penalty_keeps_tokens_from_coming_again() {
    let input = words("a red fox");
    let sampling = Sampling { repetition_penalty: 1e6, ..Sampling::default() };
    let options = GenerateOptions { max_tokens: 30, sampling, stop_at_end: false, ..GenerateOptions::default() };
    let ids = QWEN.generate(&input, &options, &mut |_| ()).unwrap().ids;
    let mut all: Vec<u32> = ids.iter().chain(&input.ids).copied().collect();
    let before = all.len();
    all.sort();
    all.dedup();
    let prompt: std::collections::BTreeSet<_> = input.ids.iter().collect();
    assert_eq!(all.len(), before - (input.ids.len() - prompt.len()), "{ids:?}");
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let input = words("a red fox");
    let whole = generate(&QWEN, &input, 40);
    let text = whole.text.unwrap();
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let end = text[middle..].char_indices().nth(3).map_or(text.len(), |(at, _)| middle + at);
    let stop = text[middle..end].to_owned();
    let options = GenerateOptions {
        max_tokens: 40,
        stop: vec!["never in there ".repeat(3), stop.clone()],
        stop_at_end: false,
        ..GenerateOptions::default()
    };
    let mut streamed = String::new();
    let generated = QWEN.generate(&input, &options, &mut |piece| streamed += piece.text).unwrap();
    assert_eq!(generated.finish, FinishReason::StopString);
    let expected = &text[..text.find(&stop).unwrap()];
    assert_eq!((generated.text.as_deref(), streamed.as_str()), (Some(expected), expected));
    assert!(generated.ids.len() < whole.ids.len() && whole.ids.starts_with(&generated.ids));
}

#[test]
fn an_end_token_ends_the_turn() {
    // Greedy ids of this prompt hold none, so a token of its own is made an end by the model's file.
    let mut case = case("qwen3_vl");
    let input = words("a red fox");
    let whole = generate(&QWEN, &input, 12).ids;
    let end = whole[6];
    let first = whole.iter().position(|&id| id == end).unwrap();
    case.config.as_mut().unwrap()["text_config"]["eos_token_id"] = serde_json::json!([end]);
    let model = crate::fixtures::load(&case, "F16").unwrap();
    let generated = model.generate(&input, &GenerateOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((generated.finish, &*generated.ids), (FinishReason::EndOfTurn, &whole[..=first]));
}

#[test]
fn generation_ends_where_the_context_does() {
    let input = words(&"fox ".repeat(120));
    let room = QWEN.info().context - input.ids.len();
    let generated = generate(&QWEN, &input, 10_000);
    assert_eq!((generated.finish, generated.ids.len()), (FinishReason::ContextFull, room));
    let none = generate(&QWEN, &input, 0);
    assert_eq!((none.finish, none.ids.len(), none.text.as_deref()), (FinishReason::MaxTokens, 0, Some("")));
}

#[test]
fn cancelling_is_heard_between_tokens() {
    let token = CancelToken::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let call = Call::new().cancelled_by(&token).on_progress(move |progress| heard.lock().unwrap().push(progress.done));
    let options = GenerateOptions { max_tokens: 200, stop_at_end: false, call, ..GenerateOptions::default() };
    let mut count = 0;
    let result = QWEN.generate(&words("a red fox"), &options, &mut |_| {
        count += 1;
        if count == 5 {
            token.cancel();
        }
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(count, 5);
    assert_eq!(*told.lock().unwrap(), [1, 2, 3, 4, 5]);
}

#[test]
fn callers_at_the_same_time_do_not_hear_each_other() {
    let case = case("qwen3_vl");
    let prompts = prompts(&case, &QWEN);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..8)
            .map(|index| {
                let prompt = &prompts[index % prompts.len()];
                (prompt, scope.spawn(|| generate(&QWEN, &prompt.input, 12).ids))
            })
            .collect();
        for (prompt, thread) in running {
            assert_eq!(thread.join().unwrap(), prompt.generated);
        }
    });
}

#[test]
fn leases_share_the_weights_and_not_what_a_generation_remembers() {
    let case = case("qwen3_vl");
    let folder = tempfile::tempdir().unwrap();
    let path = case.write(folder.path());
    std::fs::copy(crate::fixtures::tokenizer(), path.join("tokenizer.json")).unwrap();
    let registry = luna_core::registry::Registry::new(1 << 30);
    let load = |checkpoint: &luna_core::checkpoint::Checkpoint| {
        VlmModel::load(checkpoint, &crate::fixtures::RUNTIME, &Default::default())
    };
    let (first, second) = (registry.acquire(&path, load).unwrap(), registry.acquire(&path, load).unwrap());
    assert!(std::ptr::eq(&*first, &*second));
    let prompts = prompts(&case, &first);
    std::thread::scope(|scope| {
        for (lease, prompt) in [&first, &second].into_iter().cycle().zip(&prompts) {
            scope.spawn(|| assert_eq!(generate(lease, &prompt.input, 12).ids, prompt.generated));
        }
    });
}

#[test]
fn half_precision_that_overflows_goes_on_in_f32() {
    let case = case("qwen3_vl");
    let prompt = &prompts(&case, &QWEN)[0];
    let mut input = prompt.input.clone();
    // Patches far beyond what f16 can hold when they are multiplied.
    input.patches.data.iter_mut().for_each(|value| *value *= 60_000.0);
    let expected = generate(&QWEN, &input, 6).ids;
    let options =
        GenerateOptions { max_tokens: 6, precision: Precision::F16, stop_at_end: false, ..GenerateOptions::default() };
    let generated = QWEN.generate(&input, &options, &mut |_| ()).unwrap();
    assert_eq!(generated.precision, Precision::F32);
    assert_eq!(generated.fallbacks.len(), 1);
    assert_eq!(generated.fallbacks[0].name(), "widened_to_f32");
    assert_eq!(generated.ids, expected);
}
