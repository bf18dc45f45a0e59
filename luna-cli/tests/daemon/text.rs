//! Text commands: bit for bit the embedded answer, whoever's LoRAs come along.

use super::Server;
use luna_core::{
    Conditioning, ErrorKind, Limits, PictureSizes,
    client::{CallOptions, Client},
    lora::{LoraFile, LoraStack, ResolveOptions},
    protocol::{
        ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, Fault, LoraUse, Reason, TextWish, ZimageEncode,
    },
    text::{Conditioner, EncoderKind, Prompt, Recipe, TextModel, TextOptions, TokenIds},
};
use luna_tests::text::{CLIP_G, CLIP_L, Drawn, clip, clip_model, file, fixture, folder, kohya_lora, qwen3};
use safetensors::Dtype;
use std::{fs, num::NonZeroUsize, path::Path};

fn write(path: &Path, drawn: &[Drawn]) {
    fs::write(path, file(&[("", drawn)], |_| Dtype::F32)).unwrap();
}

/// A daemon with CLIP-L and CLIP-G of the fixtures, and their ids.
struct Bench {
    folder: tempfile::TempDir,
    server: Server,
    client: Client,
    clip_l: String,
    clip_g: String,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("l.safetensors"), &clip(&CLIP_L));
        write(&folder.path().join("g.safetensors"), &clip(&CLIP_G));
        fs::create_dir(folder.path().join("loras")).unwrap();
        fs::write(folder.path().join("loras/ink.safetensors"), kohya_lora()).unwrap();
        let server = Server::start(&format!(
            "--model-root {0} --lora-folder {0}/loras --embeddings {1}",
            folder.path().display(),
            fixture("text/embeddings").display()
        ));
        let client = server.client();
        let put = |name: &str, kind| client.put_model(&folder.path().join(name), Some(kind)).unwrap().model_id;
        let (clip_l, clip_g) = (put("l.safetensors", "clip_l"), put("g.safetensors", "clip_g"));
        Self { folder, server, client, clip_l, clip_g }
    }

    fn sd1(&self) -> TextWish {
        TextWish { models: vec![self.clip_l.clone()], ..TextWish::default() }
    }
}

fn prompt(text: &str) -> Prompt {
    Prompt::new(text)
}

fn embedded(models: &[&TextModel], recipe: Recipe, prompts: &[Prompt], options: &TextOptions) -> Vec<Conditioning> {
    let encoded = Conditioner::with_recipe(models, recipe).unwrap().encode(prompts, options).unwrap();
    encoded.prompts.iter().map(|prompt| (*prompt.conditioning).clone()).collect()
}

#[test]
fn clip_encode_and_its_kin_give_the_embedded_answer() {
    let bench = Bench::new();
    let (l, g) = (clip_model(&CLIP_L), clip_model(&CLIP_G));
    let any = CallOptions::default();
    let texts = ["a (red:1.3) fox under the moon", "blurry"];
    let skip = TextWish { clip_skip: Some(2), attention: Some("split".to_owned()), ..bench.sd1() };
    let (positive, negative) = (texts[0].to_owned(), Some(texts[1].to_owned()));
    let request = ClipEncode { positive, negative, with: skip.clone(), ..ClipEncode::default() };
    let (ours, answer) = bench.client.clip_encode(&request, &any).unwrap();
    let options =
        TextOptions { clip_skip: NonZeroUsize::new(2), attention: "split".parse().unwrap(), ..TextOptions::default() };
    assert_eq!(ours, embedded(&[&l], Recipe::Sd1, &texts.map(prompt), &options));
    assert_eq!((answer.reply.recipe.as_str(), answer.reply.attention.as_str()), ("sd1", "split"));
    assert_eq!((answer.reply.encoders[0].encoder.as_str(), answer.reply.encoders[0].layers), ("clip_l", 3));
    assert_eq!(answer.reply.prompts.iter().map(|prompt| prompt.cached).collect::<Vec<_>>(), [false, false]);
    let (again, answer) = bench.client.clip_encode(&request, &any).unwrap();
    assert_eq!(again, ours);
    assert!(answer.reply.prompts.iter().all(|prompt| prompt.cached), "remembered");
    assert!(answer.head.queue_ms >= 0.0 && answer.head.compute_ms > 0.0);

    let sizes = PictureSizes { width: 1152, height: 896, crop_w: 8, crop_h: 0, target_width: 1024, target_height: 768 };
    let request = ClipEncodeSdxl {
        positive: texts[0].to_owned(),
        negative: Some(texts[1].to_owned()),
        positive_l: Some("a photo".to_owned()),
        negative_l: None,
        with: TextWish { models: vec![bench.clip_g.clone(), bench.clip_l.clone()], ..TextWish::default() },
        width: 1152,
        height: 896,
        crop_w: 8,
        crop_h: 0,
        target_width: 1024,
        target_height: 768,
    };
    let (ours, answer) = bench.client.clip_encode_sdxl(&request, &any).unwrap();
    let prompts =
        [prompt(texts[0]).for_encoder(EncoderKind::ClipL, "a photo").sized(sizes), prompt(texts[1]).sized(sizes)];
    assert_eq!(ours, embedded(&[&l, &g], Recipe::Sdxl, &prompts, &TextOptions::default()));
    assert_eq!((ours[0].channels(), ours[0].sizes()), (64 + 128, Some(sizes)));
    assert_eq!(answer.reply.sizes, Some([1152, 896, 8, 0, 1024, 768]));
}

#[test]
fn tokens_are_read_and_stand_in_for_prompts() {
    let bench = Bench::new();
    let any = CallOptions::default();
    let text = "a fox, (an embedding:2) embedding:none";
    let ask = |encoder: &str, with: TextWish| {
        let (text, encoder) = (text.to_owned(), Some(encoder.to_owned()));
        let request = ClipTokenize { text, encoder, with, ..ClipTokenize::default() };
        bench.client.clip_tokenize(&request, &any).unwrap().reply
    };
    let built_in = ask("clip_l", TextWish::default());
    assert_eq!(built_in, ask("clip_l", bench.sd1()), "the built-in vocabulary is the model's");
    let chunk = &built_in.tokens["clip_l"][0];
    assert_eq!((chunk.len(), chunk[0].id, built_in.tokens.len()), (77, Some(49406), 1));
    assert!(chunk.iter().any(|place| place.weight == 2.0));
    assert_eq!((built_in.problems[0].name.as_str(), built_in.problems[0].kind.as_str()), ("none", "missing"));
    assert_ne!(ask("clip_g", TextWish::default()).tokens["clip_g"], built_in.tokens["clip_l"], "another padding");
    let wrong = ClipTokenize { encoder: Some("bert".to_owned()), ..ClipTokenize::default() };
    assert_eq!(bench.client.clip_tokenize(&wrong, &any).unwrap_err().kind(), ErrorKind::InvalidInput);

    let ids: Vec<u32> = (0..77).map(|i| if i == 0 { 49406 } else { 49407 - 300 * (i % 3) }).collect();
    let mask: Vec<bool> = (0..77).map(|i| i < 40).collect();
    let request = ClipEncodeFromTokens {
        tokens: vec![ids.clone(), ids.iter().rev().copied().collect()],
        masks: None,
        with: bench.sd1(),
    };
    let (ours, _) = bench.client.clip_encode_from_tokens(&request, &any).unwrap();
    let l = clip_model(&CLIP_L);
    let rows: Vec<TokenIds> = request.tokens.iter().map(|ids| TokenIds { ids: ids.clone(), mask: None }).collect();
    let theirs = Conditioner::new(&[&l]).unwrap().encode_ids(&rows, &TextOptions::default()).unwrap();
    assert_eq!(ours, theirs.prompts.iter().map(|prompt| (*prompt.conditioning).clone()).collect::<Vec<_>>());
    let masked = ClipEncodeFromTokens { masks: Some(vec![mask.clone(), mask.clone()]), ..request.clone() };
    assert!(bench.client.clip_encode_from_tokens(&masked, &any).unwrap_err().to_string().contains("no attention mask"));
    let wrong = ClipEncodeFromTokens { masks: Some(vec![mask]), ..request };
    assert!(bench.client.clip_encode_from_tokens(&wrong, &any).unwrap_err().to_string().contains("masks"));
}

#[test]
fn zimage_encode_gives_the_embedded_answer_of_qwen3() {
    let place = tempfile::tempdir().unwrap();
    folder(place.path(), &qwen3(), "qwen");
    let server = Server::start(&format!("--model qwen={}", place.path().display()));
    let request = ZimageEncode {
        text: "a lighthouse".to_owned(),
        negative_text: Some("rain".to_owned()),
        with: TextWish::default(),
    };
    let (ours, answer) = server.client().zimage_encode(&request, &CallOptions::default()).unwrap();
    let model = TextModel::open(place.path(), &luna_tests::text::RUNTIME).unwrap();
    let prompts = ["a lighthouse", "rain"].map(prompt);
    assert_eq!(ours, embedded(&[&model], Recipe::ZImage, &prompts, &TextOptions::default()));
    assert_eq!(answer.reply.encoders[0].model, "qwen");
}

#[test]
fn loras_come_by_name_by_path_and_by_id_and_every_adapter_is_accounted_for() {
    let bench = Bench::new();
    let l = clip_model(&CLIP_L);
    let any = CallOptions::default();
    let path = bench.folder.path().join("loras/ink.safetensors");
    let lora = LoraFile::open(&path, &Limits::default()).unwrap();
    let id = lora.digest().to_hex().to_string();
    let stack = LoraStack::new().with(lora.into(), 1.0, 0.75).unwrap();
    let resolved = stack.resolve_text(&l, &ResolveOptions { strict: true, ..ResolveOptions::default() }).unwrap();
    let options = TextOptions { patches: resolved.patches, ..TextOptions::default() };
    let expected = embedded(&[&l], Recipe::Sd1, &[prompt("a fox")], &options);
    let ask = |client: &Client, lora: &str| {
        let loras = vec![LoraUse { lora: lora.to_owned(), model: 1.0, clip: 0.75 }];
        let with = TextWish { loras, strict: true, ..bench.sd1() };
        client.clip_encode(&ClipEncode { positive: "a fox".to_owned(), with, ..ClipEncode::default() }, &any)
    };
    for lora in ["ink", "in", path.to_str().unwrap(), &id] {
        let (ours, answer) = ask(&bench.client, lora).unwrap();
        assert_eq!(ours, expected, "{lora}");
        assert_eq!(answer.reply.loras[0].coverage, resolved.coverage, "{lora}");
    }
    let plain = ClipEncode { positive: "a fox".to_owned(), with: bench.sd1(), ..ClipEncode::default() };
    assert_ne!(bench.client.clip_encode(&plain, &any).unwrap().0, expected, "the LoRA changes something");

    // What is missing is told at once, with a way out.
    let unknown = "0".repeat(64);
    let loras = ["none", unknown.as_str(), "ink"].map(|lora| LoraUse { lora: lora.to_owned(), model: 1.0, clip: 1.0 });
    let with = TextWish { loras: loras.into(), ..bench.sd1() };
    let error = bench.client.clip_encode(&ClipEncode { with, ..plain }, &any).map(drop).unwrap_err();
    let fault = Fault::within(&error).unwrap();
    assert_eq!((fault.reason, fault.kind()), (Some(Reason::NeedLora), ErrorKind::NotFound));
    assert_eq!(fault.missing, ["none", unknown.as_str()]);
    assert!(fault.remedy.as_deref().unwrap().contains("lora_cache_put"), "{fault:?}");
    let error = ask(&bench.client, "/etc/hostname").map(drop).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::NeedLora), "{error}");

    // Another daemon has no folders: the file is sent. Its id is that of its tensors and metadata.
    let other = Server::start(&format!("--model-root {}", bench.folder.path().display()));
    let client = other.client();
    let kind = Some("clip_l");
    client.put_model(&bench.folder.path().join("l.safetensors"), kind).unwrap();
    assert!(!client.lora_cache_check(&id).unwrap().cached);
    let put = client.put_lora(&path).unwrap();
    assert_eq!((put.name.as_str(), put.adapters), ("ink", 1));
    assert_eq!(client.put_lora(&path).unwrap().lora_id, put.lora_id);
    let id = put.lora_id.clone();
    assert_eq!(client.lora_cache_check(&id).unwrap().source.as_deref(), Some("parsed"));
    assert_eq!(ask(&client, &id).unwrap().0, expected);
    assert_eq!(client.lora_cache_get(&id).unwrap().kinds, put.kinds);
    let stats = client.lora_cache_stats().unwrap();
    assert!(stats.parsed == 1 && stats.packed == 1 && stats.hits >= 2, "{stats:?}");
    drop(bench.server);
}

#[test]
fn tags_name_loras_of_the_daemons_folders() {
    let bench = Bench::new();
    let l = clip_model(&CLIP_L);
    let any = CallOptions::default();
    let lora = LoraFile::open(bench.folder.path().join("loras/ink.safetensors"), &Limits::default()).unwrap();
    let stack = LoraStack::new().with(lora.into(), 0.8, 0.5).unwrap();
    let resolved = stack.resolve_text(&l, &ResolveOptions::default()).unwrap();
    let options = TextOptions { patches: resolved.patches, ..TextOptions::default() };
    let expected = embedded(&[&l], Recipe::Sd1, &["a fox", "blurry"].map(prompt), &options);
    let tagged = |lora_tags| ClipEncode {
        positive: "a fox<lora:ink:0.8:0.5>".to_owned(),
        negative: Some("blurry<lora:oops:x>".to_owned()),
        with: TextWish { lora_tags, ..bench.sd1() },
        ..ClipEncode::default()
    };
    let (ours, answer) = bench.client.clip_encode(&tagged(true), &any).unwrap();
    assert_eq!(ours, expected);
    let reply = answer.reply;
    assert_eq!(reply.lora_tags, [LoraUse { lora: "ink".to_owned(), model: 0.8, clip: 0.5 }]);
    assert_eq!(reply.malformed_tags, ["<lora:oops:x>"]);
    assert_eq!(reply.loras[0].coverage, resolved.coverage);
    let (words, answer) = bench.client.clip_encode(&tagged(false), &any).unwrap();
    assert_ne!(words, expected, "else tags are words");
    assert!(answer.reply.lora_tags.is_empty() && answer.reply.loras.is_empty());
    let missing = ClipEncode { positive: "a<lora:none>".to_owned(), ..tagged(true) };
    let error = bench.client.clip_encode(&missing, &any).map(drop).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().missing, ["none"], "{error}");
    let read = |text: &str| {
        let request = ClipTokenize { text: text.to_owned(), with: tagged(true).with, ..ClipTokenize::default() };
        bench.client.clip_tokenize(&request, &any).unwrap().reply.tokens
    };
    assert_eq!(read("a fox<lora:none>"), read("a fox"), "tokens do not see tags");
}

#[test]
fn each_encoder_may_read_a_text_of_its_own() {
    let bench = Bench::new();
    let (l, g) = (clip_model(&CLIP_L), clip_model(&CLIP_G));
    let any = CallOptions::default();
    let with = TextWish { models: vec![bench.clip_l.clone(), bench.clip_g.clone()], ..TextWish::default() };
    let request = ClipEncode {
        positive: "a lighthouse".to_owned(),
        negative: Some("blurry".to_owned()),
        positive_l: Some("a photo".to_owned()),
        negative_g: Some(String::new()),
        with: with.clone(),
        ..ClipEncode::default()
    };
    let (ours, answer) = bench.client.clip_encode(&request, &any).unwrap();
    let prompts = [
        prompt("a lighthouse").for_encoder(EncoderKind::ClipL, "a photo"),
        prompt("blurry").for_encoder(EncoderKind::ClipG, ""),
    ];
    assert_eq!(ours, embedded(&[&l, &g], Recipe::Sdxl, &prompts, &TextOptions::default()));
    assert_eq!(answer.reply.recipe, "sdxl");
    let read = |text: &str, text_l: Option<&str>| {
        let (text, text_l) = (text.to_owned(), text_l.map(str::to_owned));
        let request = ClipTokenize { text, text_l, with: with.clone(), ..ClipTokenize::default() };
        bench.client.clip_tokenize(&request, &any).unwrap().reply.tokens
    };
    let (own, plain) = (read("a lighthouse", Some("a photo")), read("a photo", None));
    assert_eq!(own["clip_l"], plain["clip_l"]);
    assert_ne!(own["clip_g"], plain["clip_g"]);
    let nobody = ClipEncode { positive_t5: Some("a photo".to_owned()), ..request };
    let error = bench.client.clip_encode(&nobody, &any).map(drop).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("one for t5"), "{error}");
}
