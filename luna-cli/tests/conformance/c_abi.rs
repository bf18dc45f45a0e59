//! The cases through the C ABI, on a session in this process or on a daemon's.

#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here leads to what the header says")]

use luna::*;
use luna_tests::conformance::{Answers, Case, Files, answer, cases, values};
use std::{
    ffi::{CStr, CString},
    mem,
    path::Path,
    ptr, slice,
};

const PRECISIONS: [&str; 3] = ["f32", "bf16", "f16"];
const ATTENTION: [&str; 5] = ["default", "auto", "flash", "split", "pytorch"];

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn path(path: &Path) -> CString {
    text(path.to_str().unwrap())
}

/// The name of a kind, as errors have it.
fn name(status: luna_status) -> String {
    unsafe { CStr::from_ptr(luna_status_name(status as i32)) }.to_str().unwrap().to_owned()
}

fn ok(status: luna_status) -> Result<(), luna_status> {
    if status == luna_status::Ok { Ok(()) } else { Err(status) }
}

/// What a tensor holds; it is freed.
fn read(tensor: luna_tensor) -> String {
    let mut view: luna_view = zeroed();
    assert_eq!(unsafe { luna_tensor_view(tensor, &mut view) }, luna_status::Ok);
    let shape: Vec<_> = view.shape[..view.rank as usize].iter().map(|&side| side as usize).collect();
    let values = unsafe { slice::from_raw_parts(view.data.cast::<f32>(), shape.iter().product()) };
    let answer = answer(&shape, values);
    assert_eq!(luna_tensor_free(tensor), luna_status::Ok);
    answer
}

/// A view of these numbers.
fn view(shape: &[usize], values: &[f32]) -> luna_view {
    let mut view: luna_view = zeroed();
    (view.data, view.rank) = (values.as_ptr().cast(), shape.len() as u32);
    shape.iter().enumerate().for_each(|(axis, &side)| view.shape[axis] = side as i64);
    view
}

/// A view of these whole numbers.
fn integers(numbers: &[i64]) -> luna_view {
    let shape = [numbers.len() as i64, 0, 0, 0, 0, 0, 0, 0];
    luna_view { data: numbers.as_ptr().cast(), dtype: luna_dtype::I64 as i32, rank: 1, shape, ..zeroed() }
}

/// A session with its models.
pub struct Door<'a> {
    files: &'a Files,
    session: luna_session,
    vae: luna_vae,
    text: luna_text,
    model: luna_model,
    vision: luna_vision,
    vlm: luna_vlm,
}

impl<'a> Door<'a> {
    /// In this process.
    pub fn open(files: &'a Files, output: &str) -> Self {
        let (mut session, output, folder) = (zeroed(), path(&files.output(output)), path(files.folder()));
        let folders = [folder.as_ptr()];
        let options = luna_open_options {
            size: size_of::<luna_open_options>(),
            output_folder: output.as_ptr(),
            lora_folders: folders.as_ptr(),
            lora_folder_count: 1,
            ..zeroed()
        };
        assert_eq!(unsafe { luna_open(&options, &mut session) }, luna_status::Ok);
        Self::load(files, session)
    }

    /// A daemon's.
    pub fn connect(files: &'a Files, address: &str) -> Self {
        let (mut session, address) = (zeroed(), text(address));
        assert_eq!(unsafe { luna_connect(address.as_ptr(), ptr::null(), &mut session) }, luna_status::Ok);
        Self::load(files, session)
    }

    fn load(files: &'a Files, session: luna_session) -> Self {
        let (mut vae, mut text, mut model, mut vision, mut vlm) = (zeroed(), zeroed(), zeroed(), zeroed(), zeroed());
        let [own, seeing, telling] = ["denoiser", "vision", "vlm"].map(|name| path(&files.model(name)));
        let demo = [c"demo".as_ptr()];
        unsafe {
            assert_eq!(luna_vae_load(session, c"moonlet".as_ptr(), &mut vae), luna_status::Ok);
            assert_eq!(luna_text_load(session, demo.as_ptr(), 1, ptr::null(), &mut text), luna_status::Ok);
            assert_eq!(luna_model_load(session, own.as_ptr(), ptr::null(), &mut model), luna_status::Ok);
            assert_eq!(luna_vision_load(session, seeing.as_ptr(), &mut vision), luna_status::Ok);
            assert_eq!(luna_vlm_load(session, telling.as_ptr(), ptr::null(), &mut vlm), luna_status::Ok);
        }
        Self { files, session, vae, text, model, vision, vlm }
    }

    /// What it answers.
    pub fn answers(&self) -> Answers {
        cases().iter().map(|case| (case.text("name").to_owned(), self.run(case).unwrap_or_else(name))).collect()
    }

    fn run(&self, case: &Case) -> Result<String, luna_status> {
        match case.text("op") {
            "encode" | "decode" => self.code(case),
            "text" => self.encode_text(case),
            "ids" => self.encode_ids(case),
            "tokenize" => self.tokenize(case),
            "load" => {
                let path = text(case.text("path"));
                ok(unsafe { luna_vae_load(self.session, path.as_ptr(), &mut zeroed()) }).map(|()| "loaded".to_owned())
            }
            "forward" => self.forward(case),
            "vision" => self.see(case),
            "vlm" | "chat" | "prepared" => self.tell(case),
            "save" => self.save(case),
            other => panic!("what is {other}?"),
        }
    }

    fn code(&self, case: &Case) -> Result<String, luna_status> {
        let (shape, none) = (case.list("shape"), ptr::null_mut());
        let values = values(&shape);
        let (view, mut tensor) = (view(&shape, &values), zeroed());
        let precision = case.choice("precision", &PRECISIONS) as i32;
        let (tile, scaled) = (case.whole("tile") as u32, case.says("scaled").into());
        let tiling = if tile == 0 { 0 } else { luna_tiling::Always as i32 };
        ok(if case.text("op") == "encode" {
            let options = luna_encode_options {
                size: size_of::<luna_encode_options>(),
                sizes: case.choice("sizes", &["crop", "pad", "refuse"]) as i32,
                sample: case.number("seed").is_some().into(),
                seed: case.whole("seed"),
                ..luna_encode_options { precision, scaled, tile, tiling, ..zeroed() }
            };
            unsafe { luna_vae_encode(self.vae, &view, &options, &mut tensor, none) }
        } else {
            let size = size_of::<luna_decode_options>();
            let options = luna_decode_options { size, precision, scaled, tile, tiling, ..zeroed() };
            unsafe { luna_vae_decode(self.vae, &view, &options, &mut tensor, none) }
        })?;
        Ok(read(tensor))
    }

    /// Runs `call` with the stack of a case, which is freed behind it.
    fn with_loras<T>(
        &self,
        case: &Case,
        call: impl FnOnce(luna_loras) -> Result<T, luna_status>,
    ) -> Result<T, luna_status> {
        let (file, tagged) = (self.files.lora(case), case.says("lora_tags"));
        if file.is_none() && !tagged {
            return call(luna_loras::NONE);
        }
        let (count, strength) = (usize::from(file.is_some()), case.number("strength").unwrap_or(1.0));
        let (file, prompt) = (path(&file.unwrap_or_default()), text(case.text("prompt")));
        let entry = luna_lora { path: file.as_ptr(), model: strength, clip: strength, ..zeroed() };
        let prompts = [prompt.as_ptr()];
        let options = luna_loras_options {
            size: size_of::<luna_loras_options>(),
            mode: case.choice("mode", &["functional", "merged", "auto"]) as i32,
            prompts: prompts.as_ptr(),
            prompt_count: tagged.into(),
            ..zeroed()
        };
        let mut loras = zeroed();
        ok(unsafe { luna_loras_new(self.session, &entry, count, &options, &mut loras) })?;
        let answer = call(loras);
        assert_eq!(luna_loras_free(loras), luna_status::Ok);
        answer
    }

    fn encode_text(&self, case: &Case) -> Result<String, luna_status> {
        let prompt = text(case.text("prompt"));
        let prompts = [prompt.as_ptr()];
        let others = ["clip_l", "t5"].map(|key| case.0[key].as_str().map(text));
        let [clip_l, t5] = others.each_ref().map(|other| [other.as_ref().map_or(ptr::null(), |text| text.as_ptr())]);
        self.with_loras(case, |loras| {
            let options = luna_text_options {
                size: size_of::<luna_text_options>(),
                precision: case.choice("precision", &PRECISIONS) as i32,
                clip_skip: case.whole("clip_skip") as u32,
                attention: case.choice("attention", &ATTENTION) as i32,
                lora_tags: case.says("lora_tags").into(),
                clip_l_prompts: clip_l.as_ptr(),
                t5_prompts: t5.as_ptr(),
                loras,
                ..zeroed()
            };
            let mut made: luna_conditioning = zeroed();
            ok(unsafe { luna_text_encode(self.text, prompts.as_ptr(), 1, &options, &mut made, ptr::null_mut()) })?;
            let answer = read(made.tokens);
            made.tokens = luna_tensor::NONE;
            assert_eq!(luna_conditioning_free(made), luna_status::Ok);
            Ok(answer)
        })
    }

    fn encode_ids(&self, case: &Case) -> Result<String, luna_status> {
        let numbers =
            ["ids", "mask"].map(|key| case.list(key).into_iter().map(|number| number as i64).collect::<Vec<_>>());
        let [ids, mask] = numbers.each_ref().map(|numbers| integers(numbers));
        let attention_mask = if mask.shape[0] == 0 { ptr::null() } else { &raw const mask };
        let options = luna_text_options { size: size_of::<luna_text_options>(), attention_mask, ..zeroed() };
        let mut made: luna_conditioning = zeroed();
        ok(unsafe { luna_text_encode_ids(self.text, &ids, &options, &mut made, ptr::null_mut()) })?;
        let answer = read(made.tokens);
        made.tokens = luna_tensor::NONE;
        assert_eq!(luna_conditioning_free(made), luna_status::Ok);
        Ok(answer)
    }

    fn tokenize(&self, case: &Case) -> Result<String, luna_status> {
        let (prompt, mut list, mut count) = (text(case.text("prompt")), zeroed(), 0);
        unsafe {
            ok(luna_text_tokenize(self.text, prompt.as_ptr(), ptr::null(), &mut list, ptr::null_mut()))?;
            ok(luna_list_count(list, &mut count))?;
        }
        let ids: Vec<i64> = (0..count)
            .map(|index| {
                let mut token = luna_token { size: size_of::<luna_token>(), ..zeroed() };
                assert_eq!(unsafe { luna_list_token(list, index, &mut token) }, luna_status::Ok);
                token.id
            })
            .collect();
        assert_eq!(luna_list_free(list), luna_status::Ok);
        Ok(format!("{ids:?}"))
    }

    fn forward(&self, case: &Case) -> Result<String, luna_status> {
        let [shape, context, control] = ["shape", "context", "control"].map(|key| case.list(key));
        let [x, tokens, middle] = [&shape, &context, &control].map(|shape| values(shape));
        let timesteps = case.timesteps();
        let (x, tokens, middle) = (view(&shape, &x), view(&context, &tokens), view(&control, &middle));
        let (timesteps, middles) = (view(&[timesteps.len()], &timesteps), [&raw const middle]);
        let input = luna_forward_input {
            size: size_of::<luna_forward_input>(),
            x: &x,
            timesteps: &timesteps,
            context: &tokens,
            control_middle: middles.as_ptr(),
            control_middle_count: usize::from(!control.is_empty()),
            ..zeroed()
        };
        let sequence = text(case.text("cache"));
        let cached = !case.text("cache").is_empty();
        self.with_loras(case, |loras| {
            let options = luna_forward_options {
                size: size_of::<luna_forward_options>(),
                precision: case.choice("precision", &PRECISIONS) as i32,
                attention: case.choice("attention", &ATTENTION) as i32,
                cache_sequence: if cached { sequence.as_ptr() } else { ptr::null() },
                loras,
                ..zeroed()
            };
            let mut report = luna_report { size: size_of::<luna_report>(), ..zeroed() };
            let mut step = || {
                let mut prediction = zeroed();
                ok(unsafe { luna_model_forward(self.model, &input, &options, &mut prediction, &mut report) })?;
                Ok(read(prediction))
            };
            if cached {
                step()?;
            }
            let answer = step()?;
            Ok(answer + if report.cache_hit == 1 { " hit" } else { "" })
        })
    }

    fn see(&self, case: &Case) -> Result<String, luna_status> {
        let shape = case.list("shape");
        let values = values(&shape);
        let image = view(&shape, &values);
        let images = [&raw const image];
        let precision = case.choice("precision", &PRECISIONS) as i32;
        let mut options = luna_vision_options { size: size_of::<luna_vision_options>(), precision, ..zeroed() };
        if let [top, left, height, width] = case.list("part")[..] {
            let [top, left, height, width] = [top, left, height, width].map(|side| side as u32);
            options = luna_vision_options { part: 1, top, left, height, width, ..options };
        }
        let mut features: luna_features = zeroed();
        let none = ptr::null_mut();
        ok(unsafe { luna_vision_encode(self.vision, images.as_ptr(), 1, &options, &mut features, none) })?;
        let answer = format!("{} {}", read(features.last_hidden_state), read(features.image_embeds));
        features.last_hidden_state = luna_tensor::NONE;
        features.image_embeds = luna_tensor::NONE;
        assert_eq!(luna_features_free(features), luna_status::Ok);
        Ok(answer)
    }

    fn tell(&self, case: &Case) -> Result<String, luna_status> {
        let shape = case.list("shape");
        let values = values(&shape);
        let image = view(&shape, &values);
        match case.text("op") {
            "chat" => self.chat(case, &image),
            "prepared" => {
                let ids: Vec<i64> = case.list("ids").into_iter().map(|id| id as i64).collect();
                let input_ids = integers(&ids);
                self.answer(case, luna_question { input_ids: &input_ids, ..zeroed() })
            }
            _ => {
                let [prompt, system] = ["prompt", "system"].map(|key| text(case.text(key)));
                let images = [&raw const image];
                let question = luna_question {
                    prompt: prompt.as_ptr(),
                    system: if system.is_empty() { ptr::null() } else { system.as_ptr() },
                    images: images.as_ptr(),
                    image_count: usize::from(!shape.is_empty()),
                    ..zeroed()
                };
                self.answer(case, question)
            }
        }
    }

    /// A conversation, whose picture stands before the words of its first turn.
    fn chat(&self, case: &Case, image: &luna_view) -> Result<String, luna_status> {
        let turns = case.turns();
        let words: Vec<_> = turns.iter().map(|(_, words)| text(words)).collect();
        let shown = luna_message_part { text: ptr::null(), image };
        let said = |words: &CString| luna_message_part { text: words.as_ptr(), image: ptr::null() };
        let parts = words.iter().enumerate().map(|(at, words)| [&[shown][at.min(1)..], &[said(words)]].concat());
        let parts: Vec<Vec<luna_message_part>> = parts.collect();
        let turn = |((role, _), parts): (&(&str, &str), &Vec<luna_message_part>)| luna_message {
            role: ["user", "assistant", "system"].iter().position(|known| known == role).unwrap() as i32,
            reserved: 0,
            parts: parts.as_ptr(),
            part_count: parts.len(),
        };
        let turns: Vec<_> = turns.iter().zip(&parts).map(turn).collect();
        self.answer(case, luna_question { messages: turns.as_ptr(), message_count: turns.len(), ..zeroed() })
    }

    fn answer(&self, case: &Case, question: luna_question) -> Result<String, luna_status> {
        let question = luna_question { size: size_of::<luna_question>(), ..question };
        self.with_loras(case, |loras| {
            let options = luna_generate_options {
                size: size_of::<luna_generate_options>(),
                max_tokens: case.whole("max_tokens") as u32,
                temperature: case.number("temperature").unwrap_or(0.0) as f32,
                top_k: case.whole("top_k") as u32,
                seed: case.whole("seed"),
                loras,
                ..zeroed()
            };
            let mut list = zeroed();
            ok(unsafe { luna_vlm_generate(self.vlm, &question, &options, &mut list, ptr::null_mut()) })?;
            let mut told = luna_generated { size: size_of::<luna_generated>(), ..zeroed() };
            assert_eq!(unsafe { luna_list_generated(list, 0, &mut told) }, luna_status::Ok);
            let ids = unsafe { slice::from_raw_parts(told.ids, told.id_count) };
            let finish = ["end_of_turn", "stop_string", "max_tokens", "context_full"][told.finish as usize];
            let answer = format!("{ids:?} {finish}");
            assert_eq!(luna_list_free(list), luna_status::Ok);
            Ok(answer)
        })
    }

    fn save(&self, case: &Case) -> Result<String, luna_status> {
        let (shape, file) = (case.list("shape"), text(case.text("file")));
        let values = values(&shape);
        let pixels = view(&shape, &values);
        let formats = [luna_format::Png, luna_format::WebpLossless, luna_format::Jpeg];
        let format = formats[case.choice("format", &["png", "webp-lossless", "jpeg"])] as i32;
        let image = luna_save_image { pixels: &pixels, format, ..zeroed() };
        let size = size_of::<luna_save_job>();
        let job = luna_save_job { size, images: &image, image_count: 1, name: file.as_ptr(), ..zeroed() };
        let (mut id, mut list, mut count) = (0, zeroed(), 0);
        unsafe {
            ok(luna_save_submit(self.session, &job, &mut id))?;
            ok(luna_save_wait(self.session, id, -1, ptr::null_mut()))?;
            ok(luna_save_list_pictures(self.session, id, &mut list))?;
            ok(luna_list_count(list, &mut count))?;
        }
        let told = (0..count).map(|index| {
            let mut picture = luna_save_picture { size: size_of::<luna_save_picture>(), ..zeroed() };
            assert_eq!(unsafe { luna_list_picture(list, index, &mut picture) }, luna_status::Ok);
            let [path, sum] =
                [picture.path, picture.sha256].map(|text| unsafe { CStr::from_ptr(text) }.to_str().unwrap());
            format!("{} {sum}", path.rsplit(['/', '\\']).next().unwrap())
        });
        let told = told.collect::<Vec<_>>().join(" ");
        assert_eq!(luna_list_free(list), luna_status::Ok);
        Ok(told)
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        let freed = [
            luna_vae_free(self.vae),
            luna_text_free(self.text),
            luna_model_free(self.model),
            luna_vision_free(self.vision),
            luna_vlm_free(self.vlm),
            luna_close(self.session),
        ];
        assert_eq!(freed, [luna_status::Ok; 6]);
    }
}
