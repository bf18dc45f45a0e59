//! Vision encoders and vision-language models: the embedded answer, text as it comes, and an end between tokens.

use super::{Server, picture, until, wire::pool};
use luna_core::{
    CancelToken, ErrorKind, Image,
    client::{CallOptions, chat_turns},
    lora::ResolveOptions,
    protocol::{ChatTurn, EncodeVision, Fault, LoraUse, Reason, RegisterModelByPath, SamplingWish, VlmGenerate},
    tokenizer::{ChatMessage, MessagePart, Role},
    vision::{PictureView, Region, VisionModel, VisionOptions},
    vlm::{GenerateOptions, Question, Sampling, VlmModel},
};
use luna_tests::{lora, lora::runtime, model_case::ModelCase, vlm_gguf, workspace};
use std::{fs, path::Path};

fn write(folder: &Path, path: &str) -> std::path::PathBuf {
    ModelCase::read(&workspace::root().join("tests/fixtures").join(path)).write(folder)
}

/// A vision-language model with its tokenizer that takes small pictures.
fn write_vlm(folder: &Path) -> std::path::PathBuf {
    let path = write(folder, "vlm/qwen3_vl.safetensors");
    let tokenizer = workspace::root().join("tests/fixtures/tokenizer/qwen/tokenizer.json");
    fs::copy(tokenizer, path.join("tokenizer.json")).unwrap();
    let small = r#"{"size": {"shortest_edge": 576, "longest_edge": 4096}}"#;
    fs::write(path.join("preprocessor_config.json"), small).unwrap();
    path
}

#[test]
fn encode_vision_gives_the_embedded_features() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "vision/clip_transformers.safetensors");
    let server = Server::start(&format!("--model clip={}", path.display()));
    let client = server.client();
    let model = VisionModel::open(&path, runtime()).unwrap();
    let (wide, high) = (picture(40, 64), picture(50, 30));
    let request = EncodeVision::default();
    let (ours, answer) = client.encode_vision(&[&wide, &high], &request, &CallOptions::default()).unwrap();
    let views = [&wide, &high].map(PictureView::whole);
    let theirs = model.encode(&views, &VisionOptions::default()).unwrap();
    assert_eq!(ours.last_hidden_state, Some(theirs.last_hidden_state));
    assert_eq!(ours.penultimate, Some(theirs.penultimate));
    assert_eq!((ours.pooler_output, ours.image_embeds), (theirs.pooler_output, theirs.image_embeds));
    assert_eq!((answer.reply.model.name.as_str(), answer.reply.model.kind.as_str()), ("clip", "clip_vision"));

    let request = EncodeVision {
        regions: vec![[1, 2, 20, 16], [0, 0, 9, 9]],
        outputs: vec!["image_embeds".to_owned()],
        ..request
    };
    let (ours, _) = client.encode_vision(&[&wide], &request, &CallOptions::default()).unwrap();
    let part = |top, left, height, width| PictureView::part(&wide, Region { top, left, height, width });
    let theirs = model.encode(&[part(1, 2, 20, 16), part(0, 0, 9, 9)], &VisionOptions::default()).unwrap();
    assert_eq!(ours.image_embeds, theirs.image_embeds);
    assert!(ours.last_hidden_state.is_none() && ours.pooler_output.is_none(), "only what was asked for");
    let wrong = EncodeVision { outputs: vec!["embeds".to_owned()], ..EncodeVision::default() };
    let error = client.encode_vision(&[&wide], &wrong, &CallOptions::default()).map(drop).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("image_embeds"), "{error}");
}

#[test]
fn text_comes_piece_by_piece_and_is_the_embedded_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_vlm(folder.path());
    let server = Server::start(&format!("--model vlm={}", path.display()));
    let client = server.client();
    let model = VlmModel::open(&path, runtime()).unwrap();
    let photo = picture(40, 56);
    let sampling = Sampling { temperature: 0.8, seed: 7, top_k: 50, ..Sampling::default() };
    let options = GenerateOptions { max_tokens: 12, sampling, ..GenerateOptions::default() };
    let question = Question { system: Some("brief".to_owned()), prompt: "What is it?".to_owned() };
    let images: [Image; 1] = [photo.clone()];
    let theirs = model.describe(&images, &question, &options, &mut |_| {}).unwrap();
    let request = VlmGenerate {
        prompt: Some("What is it?".to_owned()),
        system: Some("brief".to_owned()),
        max_tokens: Some(12),
        sampling: Some(SamplingWish { temperature: 0.8, seed: 7, top_k: 50, ..SamplingWish::default() }),
        stream: true,
        ..VlmGenerate::default()
    };
    let (mut ids, mut text) = (Vec::new(), String::new());
    let answer = client
        .vlm_generate(&[&photo], &request, &CallOptions::default(), &mut |piece| {
            ids.push(piece.id);
            text.push_str(piece.text);
        })
        .unwrap();
    assert_eq!((&answer.reply.ids, answer.reply.text.as_ref()), (&theirs.ids, theirs.text.as_ref()));
    assert_eq!(Some(&text), theirs.text.as_ref(), "the pieces are the text");
    assert!(theirs.ids.starts_with(&ids) && ids.len() + 1 >= theirs.ids.len(), "{ids:?} of {:?}", theirs.ids);
    assert_eq!(
        (answer.reply.prompt_tokens, answer.reply.picture_tokens),
        (theirs.prompt_tokens, theirs.picture_tokens)
    );
    assert_eq!((answer.reply.finish.as_str(), answer.reply.model.family.as_str()), (theirs.finish.name(), "qwen3_vl"));

    // Prepared, and without pieces.
    let input = model.prompt(&question.messages(1), &images).unwrap();
    let prepared = VlmGenerate { prompt: None, system: None, ids: Some(input.ids), stream: false, ..request.clone() };
    let mut heard = 0;
    let answer =
        client.vlm_generate_prepared(&input.patches, &prepared, &CallOptions::default(), &mut |_| heard += 1).unwrap();
    assert_eq!((&answer.reply.ids, heard), (&theirs.ids, 0));
    let neither = VlmGenerate { prompt: None, ..request };
    let error = client.vlm_generate(&[], &neither, &CallOptions::default(), &mut |_| {}).map(drop).unwrap_err();
    assert!(error.to_string().contains("`prompt` with `system`, or `messages`, or `ids`"), "{error}");
}

#[test]
fn conversations_go_on_where_the_pictures_stand() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_vlm(folder.path());
    let server = Server::start(&format!("--model vlm={}", path.display()));
    let client = server.client();
    let model = VlmModel::open(&path, runtime()).unwrap();
    let images = [picture(40, 56), picture(48, 48)];
    let words = |text: &str| MessagePart::Text(text.to_owned());
    let messages = [
        ChatMessage { role: Role::System, parts: vec![words("brief")] },
        ChatMessage { role: Role::User, parts: vec![MessagePart::Image, words("What is it?")] },
        ChatMessage { role: Role::Assistant, parts: vec![words("A fox.")] },
        ChatMessage { role: Role::User, parts: vec![words("And "), MessagePart::Image, words("?")] },
    ];
    let options = GenerateOptions { max_tokens: 6, ..GenerateOptions::default() };
    let theirs = model.generate(&model.prompt(&messages, &images).unwrap(), &options, &mut |_| {}).unwrap();
    let request = VlmGenerate { messages: chat_turns(&messages), max_tokens: Some(6), ..VlmGenerate::default() };
    let ask = |images: &[&Image], request: &VlmGenerate| {
        client.vlm_generate(images, request, &CallOptions::default(), &mut |_| {}).map(|answer| answer.reply.ids)
    };
    let both = [&images[0], &images[1]];
    assert_eq!(ask(&both, &request).unwrap(), theirs.ids);
    let nobody = ChatTurn { role: "fox".to_owned(), content: Vec::new() };
    for (wrong, message) in [
        (VlmGenerate { prompt: Some("a".to_owned()), ..request.clone() }, "not clear"),
        (VlmGenerate { system: Some("a".to_owned()), ..request.clone() }, "not clear"),
        (VlmGenerate { ids: Some(vec![1]), ..request.clone() }, "not clear"),
        (VlmGenerate { messages: vec![nobody], ..request.clone() }, "expected system, user, assistant, found `fox`"),
    ] {
        let error = ask(&both, &wrong).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(message), "{error}");
    }
    let error = ask(&both[..1], &request).unwrap_err();
    assert!(error.to_string().contains("places for another number of pictures"), "{error}");
}

#[test]
fn generation_ends_between_two_tokens_when_the_client_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_vlm(folder.path());
    let server = Server::start(&format!("--model vlm={}", path.display()));
    let client = server.client();
    let request = VlmGenerate {
        prompt: Some("Go on.".to_owned()),
        max_tokens: Some(100_000),
        past_the_end: true,
        stream: true,
        ..VlmGenerate::default()
    };
    let token = CancelToken::new();
    let options = CallOptions::default().cancelled_by(&token);
    let mut pieces = 0;
    let outcome = client.vlm_generate(&[], &request, &options, &mut |_| {
        pieces += 1;
        if pieces == 3 {
            token.cancel();
        }
    });
    assert_eq!(outcome.map(drop).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!((3..100_000).contains(&pieces), "{pieces}");
    until("an idle worker", || pool(&client, "vision")["busy_workers"] == 0);
}

#[test]
fn loras_of_a_vision_language_model_come_with_the_request_and_are_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_vlm(folder.path());
    let server = Server::start(&format!("--model vlm={}", path.display()));
    let client = server.client();
    let model = VlmModel::open(&path, runtime()).unwrap();
    let question = Question { system: None, prompt: "What is it?".to_owned() };
    let images = [picture(40, 56)];
    let resolved = lora::stack("qwen3_vl", &[("peft", 1.0)]).resolve_vlm(&model, &ResolveOptions::default()).unwrap();
    let options = GenerateOptions { max_tokens: 12, stop_at_end: false, ..GenerateOptions::default() };
    let plain = model.describe(&images, &question, &options, &mut |_| {}).unwrap();
    let with = GenerateOptions { lora: Some(resolved.patches), ..options };
    let theirs = model.describe(&images, &question, &with, &mut |_| {}).unwrap();
    assert_ne!(plain.ids, theirs.ids, "the LoRA changes something");

    let sent = client.put_lora(&lora::path("qwen3_vl", "peft")).unwrap();
    let ask = |lora: Option<&str>, clip: f64, mode: &str| {
        let request = VlmGenerate {
            prompt: Some(question.prompt.clone()),
            max_tokens: Some(12),
            past_the_end: true,
            // The strength for denoisers does not count here.
            loras: lora.iter().map(|lora| LoraUse { lora: (*lora).to_owned(), model: 0.0, clip }).collect(),
            strict: true,
            lora_mode: Some(mode.to_owned()),
            ..VlmGenerate::default()
        };
        client.vlm_generate(&[&images[0]], &request, &CallOptions::default(), &mut |_| {})
    };
    for mode in ["functional", "merged"] {
        let reply = ask(Some(&sent.lora_id), 1.0, mode).unwrap().reply;
        let loras = reply.loras.unwrap();
        assert_eq!((&reply.ids, loras.mode.as_str()), (&theirs.ids, mode));
        assert!(loras.coverage.is_complete(), "{:?}", loras.coverage);
        assert_eq!(loras.coverage.files[0].applied, resolved.coverage.files[0].applied);
        assert_eq!(ask(Some(&sent.lora_id), 0.0, mode).unwrap().reply.ids, plain.ids, "at strength 0");
    }
    let reply = ask(None, 1.0, "functional").unwrap().reply;
    assert!(reply.ids == plain.ids && reply.loras.is_none(), "nothing is left behind");
    let error = ask(Some("none"), 1.0, "functional").map(drop).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::NeedLora), "{error}");
}

#[test]
fn a_vision_part_of_its_own_is_registered_with_the_language_model() {
    let folder = tempfile::tempdir().unwrap();
    let (models, elsewhere) = (folder.path().join("models"), folder.path().join("elsewhere"));
    [&models, &elsewhere].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    let case = ModelCase::read(&workspace::root().join("tests/fixtures/vlm/qwen3_vl.safetensors"));
    vlm_gguf::write("qwen3_vl", &case.tensors, &models, vlm_gguf::Storage::AsConverted);
    let beside = models.join("mmproj-qwen3_vl-f16.gguf");
    fs::copy(&beside, elsewhere.join("eyes.gguf")).unwrap();
    fs::create_dir(models.join("parts")).unwrap();
    fs::rename(&beside, models.join("parts/eyes.gguf")).unwrap();
    let server = Server::start(&format!("--model-root {}", models.display()));
    let client = server.client();
    let register = |projector: Option<&str>| {
        let request = RegisterModelByPath {
            model_path: "qwen3_vl.gguf".to_owned(),
            name: Some(projector.unwrap_or("blind").to_owned()),
            projector: projector.map(str::to_owned),
            ..RegisterModelByPath::default()
        };
        client.call(&request, &[]).map(|answer| answer.reply)
    };
    let whole = register(Some("parts/eyes.gguf")).unwrap();
    assert!(whole.components.iter().any(|kind| kind == "vision_language"), "{whole:?}");
    let outside = elsewhere.join("eyes.gguf").display().to_string();
    let error = register(Some(&outside)).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::Denied), "{error}");
    // Without its vision part the file is another model.
    if let Ok(blind) = register(None) {
        assert_ne!(blind.model_id, whole.model_id);
        assert!(blind.components.iter().all(|kind| kind != "vision_language"), "{blind:?}");
    }

    let projector = models.join("parts/eyes.gguf");
    let load = luna_core::vlm::VlmLoadOptions { projector: Some(projector.clone()), ..Default::default() };
    let model = VlmModel::open_with(models.join("qwen3_vl.gguf"), runtime(), &load).unwrap();
    let question = Question { system: None, prompt: "fox".to_owned() };
    let options = GenerateOptions { max_tokens: 5, ..GenerateOptions::default() };
    let theirs = model.describe(&[], &question, &options, &mut |_| {}).unwrap();
    let request = VlmGenerate {
        model: Some(whole.model_id.clone()),
        prompt: Some("fox".to_owned()),
        max_tokens: Some(5),
        ..VlmGenerate::default()
    };
    let answer = client.vlm_generate(&[], &request, &CallOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((&answer.reply.ids, &answer.reply.text), (&theirs.ids, &theirs.text));
    assert_eq!(client.put_vlm(&models.join("qwen3_vl.gguf"), &projector).unwrap().model_id, whole.model_id);
}
