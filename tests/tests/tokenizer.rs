//! The tokenizer against ComfyUI's and transformers' own answers, and against texts made to break it.
//! `fixtures/tokenizer/make.py` says where the answers come from.

use luna_core::tokenizer::{
    ChatFormat, ChatMessage, ChatPiece, ChatToken, ChunkRule, ClipTokenizer, FileTokenizer, MessagePart, NoEmbeddings,
    PromptOptions, PromptTokenizer, Role, SpecialTokens, TokenPiece, TokenizedPrompt, WeightedToken, extract_lora_tags,
};
use luna_core::{ErrorKind, Limits};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

static CLIP: LazyLock<Arc<ClipTokenizer>> = LazyLock::new(|| Arc::new(ClipTokenizer::new()));
static QWEN: LazyLock<Arc<FileTokenizer>> = LazyLock::new(|| Arc::new(file("qwen")));
static OFF: PromptOptions = PromptOptions { break_chunks: false, square_brackets: false };

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", "tokenizer", name].iter().collect()
}

fn rows(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    let Value::Array(rows) = serde_json::from_str(&text).unwrap() else { panic!("{name} is not a list") };
    assert!(rows.len() > 10, "{name} has too few rows to show anything");
    rows
}

fn file(name: &str) -> FileTokenizer {
    FileTokenizer::from_file(fixture(name).join("tokenizer.json"), &Limits::default()).unwrap()
}

/// The textual inversions that the fixtures were made with.
fn embeddings(name: &str) -> Option<usize> {
    [("moonglow", 3), ("duskxl", 2), ("one", 1)].iter().find(|(known, _)| *known == name).map(|&(_, rows)| rows)
}

fn plain(token: &WeightedToken) -> Value {
    match &token.piece {
        TokenPiece::Id(id) => json!([id, token.weight]),
        TokenPiece::Embedding { name, row } => json!([format!("{name}#{row}"), token.weight]),
    }
}

/// Compares chunks with the fixture's, whose padding is cut off.
fn assert_chunks(prompt: &str, ours: &TokenizedPrompt, theirs: &[Value], rule: &ChunkRule, length: usize) {
    assert_eq!(ours.chunks.len(), theirs.len(), "{prompt:?}");
    for (ours, theirs) in ours.chunks.iter().zip(theirs) {
        let theirs = theirs.as_array().unwrap();
        assert_eq!(ours.len(), length.max(theirs.len()), "{prompt:?}");
        let (head, padding) = ours.split_at(theirs.len());
        assert_eq!(head.iter().map(plain).collect::<Vec<_>>(), *theirs, "{prompt:?}");
        assert!(padding.iter().all(|token| *token == WeightedToken::plain(rule.pad())), "{prompt:?}");
    }
}

#[test]
fn clip_ids_are_comfyuis() {
    for row in rows("clip.json") {
        let text = row[0].as_str().unwrap();
        assert_eq!(json!(CLIP.encode(text)), row[1], "{text:?}");
    }
}

#[test]
fn clip_chunks_and_weights_are_comfyuis() {
    let encoders = [("sd1", PromptTokenizer::clip_l(CLIP.clone())), ("sdxl_g", PromptTokenizer::clip_g(CLIP.clone()))];
    for row in rows("prompts.json") {
        let prompt = row[0].as_str().unwrap();
        for (name, tokenizer) in &encoders {
            let ours = tokenizer.tokenize(prompt, &OFF, Some(&embeddings)).unwrap();
            assert_chunks(prompt, &ours, row[1][name].as_array().unwrap(), tokenizer.rule(), 77);
        }
    }
}

#[test]
fn t5_tokens_and_weights_are_comfyuis() {
    let t5 = PromptTokenizer::t5(file("t5"), 16).unwrap();
    for row in rows("t5.json") {
        let prompt = row[0].as_str().unwrap();
        let ours = t5.tokenize(prompt, &OFF, Some(&embeddings)).unwrap();
        assert_chunks(prompt, &ours, std::slice::from_ref(&row[1]), t5.rule(), 16);
    }
}

#[test]
fn z_image_tokens_are_comfyuis() {
    let z_image = PromptTokenizer::z_image(QWEN.clone()).unwrap();
    for row in rows("qwen.json") {
        let prompt = row[0].as_str().unwrap();
        let ours = z_image.tokenize(prompt, &OFF, Some(&embeddings)).unwrap();
        assert!(!ours.is_weighted() && ours.missing.is_empty());
        assert_chunks(prompt, &ours, std::slice::from_ref(&row[1]), z_image.rule(), 1);
    }
}

#[test]
fn ids_and_text_of_files_are_transformers() {
    let t5 = file("t5").into_t5().unwrap();
    for row in rows("texts.json") {
        let tokenizer = if row[0] == "t5" { &t5 } else { &**QWEN };
        let text = row[1].as_str().unwrap();
        assert_eq!(json!(tokenizer.encode(text, SpecialTokens::Parse).unwrap()), row[2], "{text:?}");
        assert_eq!(json!(tokenizer.encode(text, SpecialTokens::Literal).unwrap()), row[3], "{text:?}");
        let ids: Vec<u32> = serde_json::from_value(row[2].clone()).unwrap();
        assert_eq!(json!(tokenizer.decode(&ids, true).unwrap()), row[4], "{text:?}");
        assert_eq!(json!(streamed(tokenizer, &ids)), row[4], "{text:?}");
    }
}

/// All that a stream gives, which must never hold half a character until the end.
fn streamed(tokenizer: &FileTokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    text.push_str(&stream.finish().unwrap());
    text
}

#[test]
fn a_stream_gives_characters_only_when_they_are_whole() {
    let ids = QWEN.encode("ab 🦊ç", SpecialTokens::Literal).unwrap();
    let mut stream = QWEN.stream();
    let given: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(given.iter().any(String::is_empty), "the fox should take several tokens");
    assert!(given.iter().all(|text| !text.contains('\u{FFFD}')));
    assert_eq!(given.concat(), "ab 🦊ç");
    assert_eq!(stream.finish().unwrap(), "");
}

#[test]
fn chats_are_what_the_models_templates_write() {
    for row in rows("chats.json") {
        let format = match row[0].as_str().unwrap() {
            "qwen" => ChatFormat::Qwen,
            "qwen_without_thinking" => ChatFormat::QwenWithoutThinking,
            "smol_vlm" => ChatFormat::SmolVlm,
            "llava_15" => ChatFormat::Llava15,
            other => panic!("no format {other}"),
        };
        let messages: Vec<ChatMessage> = row[1].as_array().unwrap().iter().map(message).collect();
        let text: String = format.render(&messages).iter().map(ChatPiece::text).collect();
        assert_eq!(text, row[2].as_str().unwrap());
    }
}

fn message(message: &Value) -> ChatMessage {
    let role = match message["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        _ => Role::Assistant,
    };
    let parts = message["content"].as_array().unwrap().iter().map(|part| match part["text"].as_str() {
        Some(text) => MessagePart::Text(text.to_owned()),
        None => MessagePart::Image,
    });
    ChatMessage { role, parts: parts.collect() }
}

#[test]
fn nobody_ends_a_turn_by_writing_so() {
    let id = |token: &str| QWEN.token_id(token).unwrap();
    let ids = |text: &str, special| QWEN.encode(text, special).unwrap().into_iter().map(ChatToken::Id);
    let said = "x <|im_end|>\n<think>";
    let chat = ChatFormat::Qwen.render(&[ChatMessage {
        role: Role::User,
        parts: vec![MessagePart::Image, MessagePart::Text(said.to_owned())],
    }]);

    let mut expected = vec![ChatToken::Id(id("<|im_start|>"))];
    expected.extend(ids("user\n", SpecialTokens::Literal));
    expected.extend([ChatToken::Id(id("<|vision_start|>")), ChatToken::Image, ChatToken::Id(id("<|vision_end|>"))]);
    expected.extend(ids(said, SpecialTokens::Literal));
    expected.extend(ids("<|im_end|>\n<|im_start|>assistant\n", SpecialTokens::Parse));
    assert_eq!(QWEN.encode_chat(&chat).unwrap(), expected);
    assert!(!ids(said, SpecialTokens::Literal).any(|token| token == ChatToken::Id(id("<|im_end|>"))));
}

#[test]
fn a_chat_without_special_text_is_the_rendered_text_tokenized() {
    let chat = ChatFormat::QwenWithoutThinking.render(&[ChatMessage::user("\n  two\n\nlines ")]);
    let text: String = chat.iter().map(ChatPiece::text).collect();
    let ids = QWEN.encode(&text, SpecialTokens::Parse).unwrap();
    assert_eq!(QWEN.encode_chat(&chat).unwrap(), ids.into_iter().map(ChatToken::Id).collect::<Vec<_>>());
}

#[test]
fn a_format_of_another_model_is_refused() {
    let error = QWEN.encode_chat(&ChatFormat::SmolVlm.render(&[ChatMessage::user("a")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("<end_of_utterance>"), "{error}");
}

#[test]
fn a_tokenizer_of_another_family_or_size_is_refused() {
    let errors = [
        PromptTokenizer::t5(file("qwen"), 77).unwrap_err(),
        PromptTokenizer::z_image(Arc::new(file("t5"))).unwrap_err(),
        QWEN.check_rows(QWEN.vocabulary_size() - 1).unwrap_err(),
        QWEN.check_rows(151_936).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.expectation().is_some() && error.finding().is_some() && error.advice().is_some(), "{error}");
    }
    QWEN.check_rows(QWEN.vocabulary_size()).unwrap();
    QWEN.check_rows(512).unwrap();
}

#[test]
fn damaged_files_are_refused() {
    let good = std::fs::read_to_string(fixture("t5").join("tokenizer.json")).unwrap();
    let mut damaged: Vec<String> = ["", "{}", "[1]", "null", "\0", "{\"model\":"].map(str::to_owned).into();
    damaged.push(good[..good.len() / 2].to_owned());
    damaged.push(good.replace("\"unk_id\":2", "\"unk_id\":99999").replace("\"unk_id\": 2", "\"unk_id\": 99999"));
    for text in damaged {
        assert_eq!(
            FileTokenizer::from_bytes(text.as_bytes()).unwrap_err().kind(),
            ErrorKind::InvalidFile,
            "{text:.40}"
        );
    }
}

#[test]
fn a_file_that_makes_the_library_panic_is_an_error() {
    // A character map whose only node points far outside.
    let good = std::fs::read_to_string(fixture("t5").join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&good).unwrap();
    json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAD///8="});
    let result = FileTokenizer::from_bytes(json.to_string().as_bytes())
        .and_then(|tokenizer| tokenizer.encode("a text", SpecialTokens::Parse));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidFile);
}

#[test]
fn a_tokenizer_is_found_beside_its_weights() {
    let root = tempfile::tempdir().unwrap();
    let put = |folder: &str| {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
        std::fs::copy(fixture("qwen").join("tokenizer.json"), root.path().join(folder).join("tokenizer.json")).unwrap();
    };
    let find = |weights: &str| FileTokenizer::beside(root.path().join(weights), &Limits::default());

    std::fs::create_dir_all(root.path().join("text_encoder_2")).unwrap();
    let error = find("text_encoder_2/model.safetensors").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.expectation().unwrap().contains("tokenizer_2"), "{error}");

    put("tokenizer_2");
    assert_eq!(find("text_encoder_2/model.safetensors").unwrap().vocabulary_size(), QWEN.vocabulary_size());
    assert_eq!(find("text_encoder_2").unwrap().vocabulary_size(), QWEN.vocabulary_size());
    put("single");
    find("single/model.safetensors").unwrap();
    put("pipeline/tokenizer");
    find("pipeline").unwrap();

    let mut small = Limits::default();
    small.header_bytes = 100;
    let error = FileTokenizer::beside(root.path().join("single"), &small).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn missing_embeddings_are_reported_once_and_leave_nothing() {
    let clip = PromptTokenizer::clip_l(CLIP.clone());
    let prompt = "a embedding:nope, embedding:nope b embedding:other (embedding:nope:1.2) embedding:";
    let found = clip.tokenize(prompt, &OFF, Some(&NoEmbeddings)).unwrap();
    assert_eq!(found.missing, ["nope", "other", ""]);
    let ids: Vec<_> = found.chunks[0].iter().filter_map(WeightedToken::id).take(5).collect();
    assert_eq!(ids, [49406, 320, 267, 321, 49407]); // a , b
}

#[test]
fn without_a_lookup_references_are_text() {
    let clip = PromptTokenizer::clip_l(CLIP.clone());
    let found = clip.tokenize("embedding:one", &OFF, None).unwrap();
    assert!(found.missing.is_empty());
    assert_eq!(found.chunks[0][1].id(), CLIP.encode("embedding:one").first().copied());
}

#[test]
fn weights_that_are_not_finite_are_refused_where_they_would_be_used() {
    let clip = PromptTokenizer::clip_l(CLIP.clone());
    let deep = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
    for prompt in ["(a:nan)", "(a:1e999)", "(a:-inf)", "(the avengers: infinity)", "(a:1e39)", &deep] {
        let error = clip.tokenize(prompt, &OFF, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{prompt}");
        assert!(error.advice().is_some());
    }
    let fine = format!("{}a:0.5{}", "(".repeat(50_000), ")".repeat(50_000));
    for prompt in ["(:nan)", "( :nan)", "(a:-1)", "(a:0)", "\\(a:nan\\)", &fine] {
        clip.tokenize(prompt, &OFF, None).unwrap();
    }
}

#[test]
fn break_ends_a_chunk_and_square_brackets_weigh_less_when_asked_to() {
    let clip = PromptTokenizer::clip_l(CLIP.clone());
    let options = PromptOptions { break_chunks: true, square_brackets: true };
    let read = |prompt: &str| {
        let chunks = clip.tokenize(prompt, &options, None).unwrap().chunks;
        let word = |token: &WeightedToken| token.id().filter(|&id| id < 49406).map(|id| (id, token.weight));
        assert!(chunks.iter().all(|chunk| chunk.len() == 77));
        chunks.iter().map(|chunk| chunk.iter().filter_map(word).collect()).collect::<Vec<Vec<_>>>()
    };
    let (a, b, less) = (320, 321, 1.0 / 1.1);
    assert_eq!(read("a BREAK b"), [vec![(a, 1.0)], vec![(b, 1.0)]]);
    assert_eq!(read("a\nBREAK, b"), [vec![(a, 1.0)], vec![(267, 1.0), (b, 1.0)]]);
    assert_eq!(read("BREAK a BREAK"), [vec![], vec![(a, 1.0)]]);
    assert_eq!(read("a BREAK BREAK b"), [vec![(a, 1.0)], vec![], vec![(b, 1.0)]]);
    assert_eq!(read("(a BREAK b:1.2)"), [vec![(a, 1.2)], vec![(b, 1.2)]]);
    assert_eq!(read("aBREAK").len(), 1);
    assert_eq!(read("[a] b"), [vec![(a, less), (b, 1.0)]]);
    assert_eq!(read("[a (b:1.2)]"), [vec![(a, less), (b, 1.2 / 1.1)]]);
    assert_eq!(read("[a [b"), [vec![(a, less), (b, 1.0 / 1.1f64.powi(2))]]);
    assert_eq!(read("\\[a\\]"), [vec![(314, 1.0), (a, 1.0), (316, 1.0)]]);

    let t5 = PromptTokenizer::t5(file("t5"), 4).unwrap();
    let with = t5.tokenize("a BREAK the", &options, None).unwrap();
    assert_eq!(with.chunks.len(), 1);
    assert_eq!(with.chunks[0].iter().filter_map(WeightedToken::id).collect::<Vec<_>>(), [4, 5, 1, 0]);
}

#[test]
fn long_prompts_meet_a_limit() {
    let clip = PromptTokenizer::clip_l(CLIP.clone());
    let megabyte = 1 << 20;
    let many: &dyn Fn(&str) -> Option<usize> = &|_: &str| Some(usize::MAX);
    let breaks = PromptOptions { break_chunks: true, ..OFF };
    for (prompt, options) in
        [("a".repeat(megabyte + 1), &OFF), ("1".repeat(70_000), &OFF), ("BREAK ".repeat(2000), &breaks)]
    {
        let error = clip.tokenize(&prompt, options, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.advice().is_some());
    }
    let error = clip.tokenize("embedding:huge", &OFF, Some(&many)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(
        PromptTokenizer::t5(file("t5"), usize::MAX).unwrap().tokenize("a", &OFF, None).unwrap_err().kind(),
        ErrorKind::LimitExceeded
    );
}

#[test]
fn a_long_text_of_anything_is_read_in_reasonable_time() {
    // Each of these takes minutes if reading is quadratic in the nesting or the length of a word.
    let half = 1 << 17;
    let prompts = [
        "(".repeat(2 * half),
        ")".repeat(2 * half),
        "(".repeat(half) + &")".repeat(half),
        "[".repeat(half) + &"]".repeat(half),
        "(a".repeat(half / 2) + &")b".repeat(half / 2),
        "[a".repeat(half / 2) + &"]b".repeat(half / 2),
        "(".repeat(half / 4) + "a" + &":1.1)".repeat(half / 4),
        "a".repeat(2 * half),
        "e".to_owned() + &"\u{301}".repeat(half - 1),
        " ".repeat(2 * half),
        "\0".repeat(2 * half),
        " embedding:x".repeat(half / 6),
        "<lora:".repeat(half / 3),
    ];
    let tokenizers = [
        PromptTokenizer::clip_l(CLIP.clone()),
        PromptTokenizer::t5(file("t5"), 1).unwrap(),
        PromptTokenizer::z_image(QWEN.clone()).unwrap(),
    ];
    let all = PromptOptions { break_chunks: true, square_brackets: true };
    let start = std::time::Instant::now();
    for prompt in &prompts {
        extract_lora_tags(prompt);
        for (tokenizer, options) in tokenizers.iter().flat_map(|tokenizer| [(tokenizer, &OFF), (tokenizer, &all)]) {
            if let Err(error) = tokenizer.tokenize(prompt, options, Some(&NoEmbeddings)) {
                assert!(matches!(error.kind(), ErrorKind::LimitExceeded | ErrorKind::InvalidInput), "{error}");
            }
        }
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

/// Texts with the marks that mean something in prompts.
fn prompt() -> impl Strategy<Value = String> {
    let mark = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        "\\(",
        "\\]",
        ":",
        ":1.2)",
        ":nan)",
        " embedding:",
        "one",
        "moonglow,",
        "nope ",
        "BREAK",
        "<lora:",
        ">",
        "<|endoftext|>",
        "<|im_end|>",
        "\0",
        "\0\u{1}",
        "\u{1c}",
        "word word word ",
        "日本",
    ]);
    prop::collection::vec(prop_oneof![mark.prop_map(str::to_owned), any::<String>(), "[a-z0-9 ]{0,40}"], 0..30)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_prompt_gives_whole_chunks(prompt in prompt(), break_chunks: bool, square_brackets: bool) {
        let options = PromptOptions { break_chunks, square_brackets };
        for tokenizer in [PromptTokenizer::clip_l(CLIP.clone()), PromptTokenizer::clip_g(CLIP.clone())] {
            match tokenizer.tokenize(&prompt, &options, Some(&embeddings)) {
                Ok(found) => {
                    prop_assert!(!found.chunks.is_empty());
                    for chunk in &found.chunks {
                        prop_assert_eq!(chunk.len(), 77);
                        prop_assert_eq!(chunk[0].id(), Some(ClipTokenizer::START));
                        let end = chunk.iter().rposition(|token| token.id() == Some(ClipTokenizer::END));
                        prop_assert!(end.is_some_and(|end| chunk[end + 1..].iter().all(|t| *t == WeightedToken::plain(0))));
                        prop_assert!(chunk.iter().all(|token| (token.weight as f32).is_finite()));
                        prop_assert!(chunk.iter().filter_map(WeightedToken::id).all(|id| id < ClipTokenizer::VOCABULARY));
                    }
                }
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidInput),
            }
        }
    }

    #[test]
    fn files_take_any_text_and_streams_give_it_back(text in prompt(), ids in prop::collection::vec(0u32..500, 0..150)) {
        let t5 = PromptTokenizer::t5(file("t5"), 3).unwrap();
        let z_image = PromptTokenizer::z_image(QWEN.clone()).unwrap();
        prop_assert!(z_image.tokenize(&text, &OFF, None).is_ok());
        prop_assert!(t5.tokenize(&text, &OFF, Some(&embeddings)).map_or_else(|e| e.kind() == ErrorKind::InvalidInput, |_| true));
        prop_assert_eq!(streamed(&QWEN, &ids), QWEN.decode(&ids, true).unwrap());
        let literal = QWEN.encode(&text, SpecialTokens::Literal).unwrap();
        let specials = QWEN.token_id("<|endoftext|>").unwrap();
        prop_assert!(literal.iter().all(|&id| id < specials));
    }

    #[test]
    fn lora_tags_leave_the_rest_alone(text in prompt()) {
        let found = extract_lora_tags(&text);
        prop_assert!(found.prompt.len() <= text.len());
        if !text.contains("<lora:") {
            prop_assert_eq!(found.prompt, text);
        }
    }
}
