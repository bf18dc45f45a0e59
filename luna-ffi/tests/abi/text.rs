//! Text encoders through the C ABI: a tokenizer that lies elsewhere, an encoder that the file does not tell, the cache,
//! tags of LoRAs, texts for single encoders, rows of token ids with masks.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::misuse::last;
use luna::*;
use luna_core::text::{Conditioner, EncoderKind, Prompt, TextLoadOptions, TextModel, TextOptions, TokenIds};
use luna_tests::{lora::runtime, text};
use safetensors::Dtype;
use std::{
    ffi::{CStr, CString, c_char},
    fs, mem,
    path::Path,
    ptr, slice,
};

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn load(session: luna_session, path: &Path, options: luna_text_load_options) -> Result<luna_text, luna_status> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let options = luna_text_load_options { size: size_of::<luna_text_load_options>(), ..options };
    let mut made = zeroed();
    match unsafe { luna_text_load(session, [path.as_ptr()].as_ptr(), 1, &options, &mut made) } {
        luna_status::Ok => Ok(made),
        status => Err(status),
    }
}

fn encode(text: luna_text) -> Result<Vec<f32>, luna_status> {
    let (prompts, mut made): ([*const c_char; 1], luna_conditioning) = ([c"a fox by a lake".as_ptr()], zeroed());
    match unsafe { luna_text_encode(text, prompts.as_ptr(), 1, ptr::null(), &mut made, ptr::null_mut()) } {
        luna_status::Ok => {}
        status => return Err(status),
    }
    let mut view: luna_view = zeroed();
    assert_eq!(unsafe { luna_tensor_view(made.tokens, &mut view) }, luna_status::Ok);
    let count = view.shape[..view.rank as usize].iter().product::<i64>() as usize;
    let values = unsafe { slice::from_raw_parts(view.data.cast::<f32>(), count) }.to_vec();
    assert_eq!(luna_conditioning_free(made), luna_status::Ok);
    Ok(values)
}

#[test]
fn a_tokenizer_may_lie_elsewhere() {
    let (folder, mut session) = (tempfile::tempdir().unwrap(), zeroed());
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    text::folder(folder.path(), &text::t5(), "t5");
    let (weights, tokenizer) = (folder.path().join("model.safetensors"), elsewhere.join("t5.json"));
    fs::rename(folder.path().join("tokenizer.json"), &tokenizer).unwrap();
    let own = TextLoadOptions { tokenizer: Some(tokenizer.clone()), ..TextLoadOptions::default() };
    let model = TextModel::open_with(&weights, runtime(), &own).unwrap();
    let expected = Conditioner::new(&[&model]).unwrap().encode(&["a fox by a lake".into()], &Default::default());
    let expected = expected.unwrap();

    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    let without = load(session, &weights, zeroed()).unwrap();
    assert_eq!(encode(without).unwrap_err(), luna_status::NotFound, "{}", last());
    let path = CString::new(tokenizer.to_str().unwrap()).unwrap();
    let tokenizers = [path.as_ptr()];
    let with = load(session, &weights, luna_text_load_options { tokenizers: tokenizers.as_ptr(), ..zeroed() }).unwrap();
    assert_eq!(encode(with).unwrap(), expected.first().data());
    assert_eq!(encode(without).unwrap_err(), luna_status::NotFound, "each handle is read in its own way");

    let (mut list, mut encoder) = (zeroed(), luna_encoder_info { size: size_of::<luna_encoder_info>(), ..zeroed() });
    let t5 = [c"t5".as_ptr()];
    let only = load(session, &weights, luna_text_load_options { encoders: t5.as_ptr(), ..zeroed() }).unwrap();
    assert_eq!(unsafe { luna_text_list_encoders(only, &mut list) }, luna_status::Ok);
    assert_eq!(unsafe { luna_list_encoder(list, 0, &mut encoder) }, luna_status::Ok);
    assert_eq!(unsafe { CStr::from_ptr(encoder.kind) }, c"t5");
    for wrong in [c"clip_l", c"clip_x"] {
        let encoders = [wrong.as_ptr()];
        assert!(load(session, &weights, luna_text_load_options { encoders: encoders.as_ptr(), ..zeroed() }).is_err());
    }
    luna_list_free(list);
    for text in [without, with, only] {
        assert_eq!(luna_text_free(text), luna_status::Ok);
    }
    assert_eq!(luna_close(session), luna_status::Ok);
}

#[test]
fn the_cache_tells_how_it_is_used() {
    let mut session = zeroed();
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    let demo = load(session, Path::new("demo"), luna_text_load_options { cache_bytes: 1 << 20, ..zeroed() }).unwrap();
    let usage = || {
        let mut usage = luna_cache_usage { size: size_of::<luna_cache_usage>(), ..zeroed() };
        assert_eq!(unsafe { luna_text_get_cache_usage(demo, &mut usage) }, luna_status::Ok);
        [usage.entries, usage.hits, usage.misses]
    };
    let first = encode(demo).unwrap();
    assert_eq!(usage(), [1, 0, 1]);
    assert_eq!(encode(demo).unwrap(), first);
    assert_eq!(usage(), [1, 1, 1]);
    assert_eq!(luna_text_clear_cache(demo), luna_status::Ok);
    assert_eq!(usage()[0], 0);
    assert_eq!([luna_text_free(demo), luna_close(session)], [luna_status::Ok; 2]);
}

fn open(lora_folder: &Path) -> luna_session {
    let (folder, mut session) = (CString::new(lora_folder.to_str().unwrap()).unwrap(), zeroed());
    let folders = [folder.as_ptr()];
    let size = size_of::<luna_open_options>();
    let options = luna_open_options { size, lora_folders: folders.as_ptr(), lora_folder_count: 1, ..zeroed() };
    assert_eq!(unsafe { luna_open(&options, &mut session) }, luna_status::Ok);
    session
}

/// Values of a conditioning's tokens; it is freed.
fn values(made: luna_conditioning) -> Vec<f32> {
    let mut view: luna_view = zeroed();
    assert_eq!(unsafe { luna_tensor_view(made.tokens, &mut view) }, luna_status::Ok);
    let count = view.shape[..view.rank as usize].iter().product::<i64>() as usize;
    let values = unsafe { slice::from_raw_parts(view.data.cast::<f32>(), count) }.to_vec();
    assert_eq!(luna_conditioning_free(made), luna_status::Ok);
    values
}

/// The tokens' encodings of two prompts, and how they were made.
fn encode_two(
    text: luna_text,
    prompts: [&CStr; 2],
    options: luna_text_options,
) -> Result<(Vec<Vec<f32>>, luna_report), luna_status> {
    let prompts = prompts.map(CStr::as_ptr);
    let options = luna_text_options { size: size_of::<luna_text_options>(), ..options };
    let mut made: [luna_conditioning; 2] = zeroed();
    let mut report = luna_report { size: size_of::<luna_report>(), ..zeroed() };
    match unsafe { luna_text_encode(text, prompts.as_ptr(), 2, &options, made.as_mut_ptr(), &mut report) } {
        luna_status::Ok => Ok((made.map(values).to_vec(), report)),
        status => Err(status),
    }
}

fn stack(session: luna_session, entries: &[luna_lora], prompts: &[&CStr]) -> Result<luna_loras, luna_status> {
    let prompts: Vec<_> = prompts.iter().map(|prompt| prompt.as_ptr()).collect();
    let size = size_of::<luna_loras_options>();
    let options = luna_loras_options { size, prompts: prompts.as_ptr(), prompt_count: prompts.len(), ..zeroed() };
    let mut loras = zeroed();
    match unsafe { luna_loras_new(session, entries.as_ptr(), entries.len(), &options, &mut loras) } {
        luna_status::Ok => Ok(loras),
        status => Err(status),
    }
}

#[test]
fn tags_in_prompts_name_loras() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ink.safetensors"), text::kohya_lora()).unwrap();
    let session = open(folder.path());
    let demo = load(session, Path::new("demo"), zeroed()).unwrap();
    let named = luna_lora { name: c"ink".as_ptr(), model: 0.8, clip: 0.5, ..zeroed() };
    let by_hand = stack(session, &[named], &[]).unwrap();
    let plain = [c"a fox", c"blurry"];
    let (expected, report) = encode_two(demo, plain, luna_text_options { loras: by_hand, ..zeroed() }).unwrap();
    assert_eq!(report.adapters_applied, 1);

    let tagged = [c"a fox<lora:ink:0.8:0.5>", c"blurry<lora:oops:x>"];
    let loras = stack(session, &[], &tagged).unwrap();
    let wanted = luna_text_options { loras, lora_tags: 1, ..zeroed() };
    let (encoded, report) = encode_two(demo, tagged, wanted).unwrap();
    assert_eq!((encoded, report.adapters_applied), (expected.clone(), 1));
    assert_ne!(encode_two(demo, tagged, luna_text_options { loras, ..zeroed() }).unwrap().0, expected, "else words");
    // What was found is told: each tag, and what became of its LoRA.
    let (mut list, mut tag) = (zeroed(), luna_lora_tag { size: size_of::<luna_lora_tag>(), ..zeroed() });
    assert_eq!(unsafe { luna_loras_list_tags(loras, &mut list) }, luna_status::Ok);
    assert_eq!(unsafe { luna_list_lora_tag(list, 0, &mut tag) }, luna_status::Ok);
    assert_eq!((unsafe { CStr::from_ptr(tag.name) }, tag.model, tag.clip, tag.prompt), (c"ink", 0.8, 0.5, 0));
    assert!(tag.malformed.is_null());
    assert_eq!(unsafe { luna_list_lora_tag(list, 1, &mut tag) }, luna_status::Ok);
    assert_eq!((unsafe { CStr::from_ptr(tag.malformed) }, tag.prompt), (c"<lora:oops:x>", 1));
    assert!(tag.name.is_null());
    assert_eq!(unsafe { luna_list_lora_tag(list, 2, &mut tag) }, luna_status::NotFound);
    let (mut files, mut file) = (zeroed(), luna_lora_file { size: size_of::<luna_lora_file>(), ..zeroed() });
    assert_eq!(unsafe { luna_loras_list_files(loras, &mut files) }, luna_status::Ok);
    assert_eq!(unsafe { luna_list_lora_file(files, 0, &mut file) }, luna_status::Ok);
    assert_eq!((unsafe { CStr::from_ptr(file.name) }, file.applied), (c"ink", 1));

    // Entries and tags stand in one stack.
    let both = stack(session, &[named], &tagged).unwrap();
    let (_, report) = encode_two(demo, tagged, luna_text_options { loras: both, lora_tags: 1, ..zeroed() }).unwrap();
    assert_eq!(report.adapters_applied, 2);
    // Nothing is lost in silence.
    let without = luna_text_options { lora_tags: 1, ..zeroed() };
    assert_eq!(encode_two(demo, tagged, without).unwrap_err(), luna_status::InvalidInput);
    assert!(last().contains("found a tag of `ink`"), "{}", last());
    assert!(encode_two(demo, plain, without).is_ok(), "prompts without tags need no stack");
    assert_eq!(stack(session, &[], &[c"<lora:none>"]).unwrap_err(), luna_status::NotFound, "{}", last());
    let options = luna_text_options { size: size_of::<luna_text_options>(), ..without };
    let (mut tokens, mut count) = (zeroed(), [0, 0]);
    for (count, prompt) in count.iter_mut().zip([tagged[0], plain[0]]) {
        let status = unsafe { luna_text_tokenize(demo, prompt.as_ptr(), &options, &mut tokens, ptr::null_mut()) };
        assert_eq!(status, luna_status::Ok);
        let mut token = luna_token { size: size_of::<luna_token>(), ..zeroed() };
        *count = (0..77)
            .map(|at| {
                assert_eq!(unsafe { luna_list_token(tokens, at, &mut token) }, luna_status::Ok);
                token.id
            })
            .sum::<i64>();
        luna_list_free(tokens);
    }
    assert_eq!(count[0], count[1], "tokens do not see tags");
    assert_eq!([list, files].map(|list| luna_list_free(list)), [luna_status::Ok; 2]);
    assert_eq!([loras, both, by_hand].map(|loras| luna_loras_free(loras)), [luna_status::Ok; 3]);
    assert_eq!([luna_text_free(demo), luna_close(session)], [luna_status::Ok; 2]);
}

#[test]
fn each_encoder_may_read_a_text_of_its_own() {
    let (folder, mut session) = (tempfile::tempdir().unwrap(), zeroed());
    let write = |name: &str, shape| {
        let path = folder.path().join(name);
        fs::write(&path, text::file(&[("", &text::clip(shape))], |_| Dtype::F32)).unwrap();
        CString::new(path.to_str().unwrap()).unwrap()
    };
    let files = [write("l.safetensors", &text::CLIP_L), write("g.safetensors", &text::CLIP_G)];
    let (paths, kinds) = (files.each_ref().map(|path| path.as_ptr()), [c"clip_l".as_ptr(), c"clip_g".as_ptr()]);
    let size = size_of::<luna_text_load_options>();
    let options = luna_text_load_options { size, encoders: kinds.as_ptr(), ..zeroed() };
    let mut sdxl = zeroed();
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    let status = unsafe { luna_text_load(session, paths.as_ptr(), 2, &options, &mut sdxl) };
    assert_eq!(status, luna_status::Ok, "{}", last());

    let (l, g) = (text::clip_model(&text::CLIP_L), text::clip_model(&text::CLIP_G));
    let conditioner = Conditioner::new(&[&l, &g]).unwrap();
    let own = Prompt::new("a lighthouse").for_encoder(EncoderKind::ClipL, "a photo");
    let prompts = [own, Prompt::new("blurry").for_encoder(EncoderKind::ClipG, "")];
    let theirs = conditioner.encode(&prompts, &TextOptions::default()).unwrap();
    let (clip_l, clip_g) = ([c"a photo".as_ptr(), ptr::null()], [ptr::null(), c"".as_ptr()]);
    let others = luna_text_options { clip_l_prompts: clip_l.as_ptr(), clip_g_prompts: clip_g.as_ptr(), ..zeroed() };
    let (ours, _) = encode_two(sdxl, [c"a lighthouse", c"blurry"], others).unwrap();
    for (ours, theirs) in ours.iter().zip(&theirs.prompts) {
        assert_eq!(ours, theirs.conditioning.data());
    }
    let plain = encode_two(sdxl, [c"a lighthouse", c"blurry"], zeroed()).unwrap().0;
    assert!(plain[0] != ours[0] && plain[1] != ours[1]);
    let t5 = [c"a photo".as_ptr(), ptr::null()];
    let nobody = luna_text_options { t5_prompts: t5.as_ptr(), ..zeroed() };
    assert_eq!(encode_two(sdxl, [c"a", c"b"], nobody).unwrap_err(), luna_status::InvalidInput);
    assert!(last().contains("found one for t5"), "{}", last());
    assert_eq!([luna_text_free(sdxl), luna_close(session)], [luna_status::Ok; 2]);
}

#[test]
fn rows_of_ids_have_masks() {
    let (folder, mut session) = (tempfile::tempdir().unwrap(), zeroed());
    text::folder(folder.path(), &text::t5(), "t5");
    assert_eq!(unsafe { luna_open(ptr::null(), &mut session) }, luna_status::Ok);
    let t5 = load(session, folder.path(), zeroed()).unwrap();
    let ids: [[i32; 5]; 2] = [[31, 7, 90, 1, 0], [12, 12, 1, 0, 0]];
    let mask: [[u8; 5]; 2] = [[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]];
    let shape = [2, 5, 0, 0, 0, 0, 0, 0];
    let rows = luna_view { data: ids.as_ptr().cast(), dtype: luna_dtype::I32 as i32, rank: 2, shape, ..zeroed() };
    let flags = luna_view { data: mask.as_ptr().cast(), dtype: luna_dtype::U8 as i32, ..rows };
    let encode = |rows: &luna_view, mask: Option<&luna_view>| {
        let attention_mask = mask.map_or(ptr::null(), ptr::from_ref);
        let options = luna_text_options { size: size_of::<luna_text_options>(), attention_mask, ..zeroed() };
        let mut made: [luna_conditioning; 2] = zeroed();
        match unsafe { luna_text_encode_ids(t5, rows, &options, made.as_mut_ptr(), ptr::null_mut()) } {
            luna_status::Ok => Ok(made),
            status => Err(status),
        }
    };
    let model = TextModel::open(folder.path(), runtime()).unwrap();
    let theirs = |masked: bool| {
        let row = |at: usize| TokenIds {
            ids: ids[at].map(|id| id as u32).to_vec(),
            mask: masked.then(|| mask[at].map(|flag| flag == 1).to_vec()),
        };
        Conditioner::new(&[&model]).unwrap().encode_ids(&[row(0), row(1)], &TextOptions::default()).unwrap()
    };
    let [with, without] = [true, false].map(theirs);
    for (expected, mask) in [(&with, Some(&flags)), (&without, None)] {
        let made = encode(&rows, mask).unwrap_or_else(|status| panic!("{status:?}: {}", last()));
        for (ours, theirs) in made.into_iter().zip(&expected.prompts) {
            assert_eq!(values(ours), theirs.conditioning.data());
        }
    }
    assert_ne!(with.prompts[0].conditioning.data(), without.prompts[0].conditioning.data());
    // One row of two dimensions is one row.
    let one = luna_view { shape: [1, 5, 0, 0, 0, 0, 0, 0], ..rows };
    let [first, none] = encode(&one, None).unwrap();
    assert_eq!(none.tokens, luna_tensor::NONE);
    assert_eq!(values(first), without.prompts[0].conditioning.data());

    let other = luna_view { rank: 1, ..flags };
    let many = luna_view { data: ids.as_ptr().cast(), dtype: luna_dtype::I32 as i32, ..flags };
    let deep = luna_view { rank: 3, shape: [1, 2, 5, 0, 0, 0, 0, 0], ..rows };
    for (rows, mask, message) in [
        (&rows, Some(&other), "does not fit the token ids"),
        (&rows, Some(&many), "something else than 0 and 1"),
        (&deep, None, "expected [tokens] or [rows, tokens]"),
        (&luna_view { shape: [0, 5, 0, 0, 0, 0, 0, 0], ..rows }, None, "nothing to encode"),
        (&luna_view { shape: [2, 0, 0, 0, 0, 0, 0, 0], ..rows }, None, "no tokens"),
    ] {
        assert_eq!(encode(rows, mask).unwrap_err(), luna_status::InvalidInput, "{message}");
        assert!(last().contains(message), "{}", last());
    }
    assert_eq!([luna_text_free(t5), luna_close(session)], [luna_status::Ok; 2]);
}
