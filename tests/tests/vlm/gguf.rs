//! Models as the two GGUF files that llama.cpp makes of them, against the answers of transformers to the same weights.

use crate::fixtures::{RUNTIME, case, generate, load, prompts, tokenizer};
use luna_core::{
    Call, ErrorKind, Limits, Precision, Result,
    checkpoint::{Checkpoint, Dialect, Family},
    tokenizer::{FileTokenizer, SpecialTokens},
    vlm::{Question, VlmLoadOptions, VlmModel},
};
use luna_tests::{
    gguf_file,
    vae::relative_error,
    vlm_gguf::{self, Storage},
    workspace,
};
use std::{fs, path::Path};

fn open(path: &Path) -> Result<VlmModel> {
    VlmModel::open(path, &RUNTIME)
}

#[test]
fn the_files_of_llama_cpp_answer_what_transformers_answers() {
    for (name, family) in [("qwen3_vl", Family::Qwen3Vl), ("llava", Family::Llava)] {
        let case = case(name);
        for (storage, tolerance) in [(Storage::AsConverted, 2e-5), (Storage::Q8_0, 3e-2)] {
            let folder = tempfile::tempdir().unwrap();
            let path = vlm_gguf::write(name, &case.tensors, folder.path(), storage);
            let found = Checkpoint::open(&path, &Limits::default()).unwrap().recognise();
            assert_eq!((found.components.len(), found.unclaimed), (1, 0), "{name}");
            assert_eq!((found.components[0].family, found.components[0].dialect), (family, Dialect::LlamaCpp));
            let model = open(&path).unwrap();
            assert_eq!(model.info().unused, [""; 0], "{name}");
            let picture = case.config.as_ref().unwrap()["image_token_index"].as_u64();
            for (index, mut prompt) in prompts(&case, &model).into_iter().enumerate() {
                // LLaVA's vocabulary in a GGUF file has no such token.
                let places = prompt.input.ids.iter_mut().filter(|id| Some(u64::from(**id)) == picture);
                places.for_each(|id| *id = model.info().picture_id);
                let logits = model.logits(&prompt.input, Precision::F32, &Call::new()).unwrap();
                let error = relative_error(&logits, &prompt.logits);
                assert!(error < tolerance, "{name}/{index}: relative error {error:.2e}");
                if storage == Storage::AsConverted {
                    let generated = generate(&model, &prompt.input, prompt.generated.len());
                    assert_eq!(generated.ids, prompt.generated, "{name}/{index}");
                }
            }
        }
    }
}

#[test]
fn the_file_says_what_config_and_tokenizer_say() {
    let case = case("qwen3_vl");
    let folder = tempfile::tempdir().unwrap();
    let model = open(&vlm_gguf::write("qwen3_vl", &case.tensors, folder.path(), Storage::AsConverted)).unwrap();
    let usual = load(&case, "F16").unwrap();
    assert_eq!(model.info(), usual.info());
    let photo = crate::fixtures::picture("photo", [200, 300, 3]);
    let question = Question { system: Some("be brief".into()), prompt: "what <|im_end|> is it?".into() };
    fs::write(folder.path().join("preprocessor_config.json"), case.said("processor").to_string()).unwrap();
    let model_beside = open(&folder.path().join("qwen3_vl.gguf")).unwrap();
    let messages = question.messages(1);
    let usual = usual.prompt(&messages, std::slice::from_ref(&photo)).unwrap();
    assert_eq!(model_beside.prompt(&messages, std::slice::from_ref(&photo)).unwrap(), usual);
    // Without that file the number of pixels is that of every Qwen3-VL, mean and deviation are the GGUF file's.
    assert_eq!(model.prompt(&messages, &[photo]).unwrap().ids[..8], usual.ids[..8]);
}

#[test]
fn vocabularies_in_files_cut_texts_as_their_own_libraries_do() {
    let case = case("qwen3_vl");
    let [text, _] = vlm_gguf::read("qwen3_vl");
    let file = Checkpoint::from_bytes("a.gguf", text.bytes(&case.tensors, Storage::AsConverted), &Limits::default());
    let ours = FileTokenizer::in_gguf(&file.unwrap()).unwrap().unwrap();
    let theirs = FileTokenizer::from_file(tokenizer(), &Limits::default()).unwrap();
    let texts = workspace::root().join("tests/fixtures/tokenizer/texts.json");
    let texts: serde_json::Value = serde_json::from_slice(&fs::read(texts).unwrap()).unwrap();
    let mut checked = 0;
    each_text(&texts, &mut |text| {
        for special in [SpecialTokens::Literal, SpecialTokens::Parse] {
            let ids = ours.encode(text, special).unwrap();
            assert_eq!(ids, theirs.encode(text, special).unwrap(), "{text:?}");
            assert_eq!(ours.decode(&ids, true).unwrap(), theirs.decode(&ids, true).unwrap());
        }
        checked += 1;
    });
    assert!(checked > 20, "{checked}");

    let spm: serde_json::Value =
        serde_json::from_slice(&fs::read(workspace::root().join("tests/fixtures/vlm/spm.json")).unwrap()).unwrap();
    let metadata = spm["metadata"].as_object().unwrap();
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(key, said)| (key.as_str(), vlm_gguf::value(said[0].as_str().unwrap(), &said[1])))
        .collect();
    let file = Checkpoint::from_bytes("a.gguf", gguf_file::file(&[], &metadata), &Limits::default()).unwrap();
    let ours = FileTokenizer::in_gguf(&file).unwrap().unwrap();
    for told in spm["texts"].as_array().unwrap() {
        let text = told["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(told["ids"].clone()).unwrap();
        assert_eq!(ours.encode(text, SpecialTokens::Literal).unwrap(), expected, "{text:?}");
        assert_eq!(ours.decode(&expected, true).unwrap(), told["decoded"].as_str().unwrap());
    }
}

fn each_text(value: &serde_json::Value, hear: &mut dyn FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => hear(text),
        serde_json::Value::Array(list) => list.iter().for_each(|value| each_text(value, hear)),
        serde_json::Value::Object(map) => map.values().for_each(|value| each_text(value, hear)),
        _ => {}
    }
}

#[test]
fn files_that_do_not_belong_together_are_told_apart() {
    let cases = ["qwen3_vl", "llava"].map(case);
    let folder = tempfile::tempdir().unwrap();
    let [qwen, llava] =
        [0, 1].map(|i| vlm_gguf::write(&cases[i].name, &cases[i].tensors, folder.path(), Storage::AsConverted));
    // Each finds its own among two; a folder of two models is ambiguous.
    assert_eq!(open(&qwen).unwrap().info().family.name(), "qwen3_vl");
    assert_eq!(open(&llava).unwrap().info().family.name(), "llava");
    let refused = |result: Result<VlmModel>, kind: ErrorKind, part: &str| {
        let error = result.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(open(folder.path()), ErrorKind::InvalidInput, "several GGUF models");
    fs::remove_file(&llava).unwrap();
    assert_eq!(open(folder.path()).unwrap().info().family.name(), "qwen3_vl");
    let mmproj = |name: &str| folder.path().join(format!("mmproj-{name}-f16.gguf"));
    let with = |projector: &Path| {
        let options = VlmLoadOptions { projector: Some(projector.to_owned()), ..VlmLoadOptions::default() };
        VlmModel::open_with(&qwen, &RUNTIME, &options)
    };
    refused(with(&mmproj("llava")), ErrorKind::InvalidInput, "does not belong");
    fs::copy(mmproj("qwen3_vl"), mmproj("again")).unwrap();
    refused(open(&qwen), ErrorKind::NotFound, "mmproj-again-f16.gguf, mmproj-qwen3_vl-f16.gguf");
    assert!(with(&mmproj("again")).is_ok());
    ["qwen3_vl", "again"].iter().for_each(|name| fs::remove_file(mmproj(name)).unwrap());
    refused(open(&qwen), ErrorKind::NotFound, "only a language model");
    fs::write(mmproj("qwen3_vl"), b"GGUF cut short").unwrap();
    refused(open(&qwen), ErrorKind::Unsupported, "version");
}

#[test]
fn vocabularies_that_luna_lacks_are_named() {
    let file = |model: &str, types: Vec<i32>| {
        let text = |text: &str| gguf_file::Value::Text(text.into());
        let metadata = [
            ("tokenizer.ggml.model", text(model)),
            ("tokenizer.ggml.tokens", gguf_file::Value::Texts(vec!["a".into(), "b".into()])),
            ("tokenizer.ggml.token_type", gguf_file::Value::I32s(types)),
        ];
        let file = Checkpoint::from_bytes("a.gguf", gguf_file::file(&[], &metadata), &Limits::default()).unwrap();
        FileTokenizer::in_gguf(&file)
    };
    let error = file("bert", vec![1, 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert_eq!(file("llama", vec![1]).unwrap_err().kind(), ErrorKind::InvalidFile);
}
