//! Text encoders through the C ABI: a tokenizer that lies elsewhere, an encoder that the file does not tell, the cache.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use crate::misuse::last;
use luna::*;
use luna_core::text::{Conditioner, TextLoadOptions, TextModel};
use luna_tests::{lora::runtime, text};
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
