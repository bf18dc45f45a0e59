//! Vision-language models. Enters: a path; then pictures and words. Leaves: text, as it comes and whole.

use crate::{
    call::{Log, Watch},
    error::Result,
    handle::{Callback, Caller, boundary, c_string, free, object},
    list::{self, Item},
    options::{LUNA_FALLBACK_WIDENED, luna_report, precision, yes},
    picture::images,
    session::{Session, not_empty},
    status::luna_status,
    table::{self, Object},
    types::{luna_call, luna_list, luna_session, luna_vlm},
    view::luna_view,
};
use luna_core::{
    registry::Lease,
    vlm::{Fallback, GenerateOptions, Generated, Piece, Question, Sampling, VlmLoadOptions, VlmModel},
};
use std::{
    ffi::{CString, c_char, c_void},
    ptr,
    time::Duration,
};

crate::handle::records!(luna_vlm_load_options, luna_vlm_info, luna_question, luna_generate_options, luna_generated);

/// Hears each token as it comes: its id, and the text that it completes, which may be empty and is valid while the
/// function runs. Called from one of Luna's threads; should return quickly, and must neither throw nor leave by
/// `longjmp`.
pub type luna_piece_function = Option<extern "C-unwind" fn(id: u32, text: *const c_char, user_data: *mut c_void)>;

/// Options of `luna_vlm_load`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vlm_load_options {
    /// `sizeof(luna_vlm_load_options)`.
    pub size: usize,
    /// The `tokenizer.json`; NULL for the one beside the weights. A model that is in memory keeps the one it has.
    pub tokenizer: *const c_char,
}

/// What is known of a vision-language model.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vlm_info {
    /// `sizeof(luna_vlm_info)`, set by the caller.
    pub size: usize,
    /// Its family: `qwen3_vl` or `llava`; valid as long as the handle.
    pub family: *const c_char,
    /// Layers of its language part.
    pub layers: u64,
    /// Layers of its vision part.
    pub vision_layers: u64,
    /// Length of a token's encoding.
    pub channels: u64,
    /// Number of tokens that it knows.
    pub vocabulary: u64,
    /// Tokens that it was trained for.
    pub context: u64,
    /// Whether there is a tokenizer: 0 or 1.
    pub has_tokenizer: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// What a vision-language model is asked.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_question {
    /// `sizeof(luna_question)`.
    pub size: usize,
    /// What is asked.
    pub prompt: *const c_char,
    /// Instructions that stand above the conversation; NULL for none.
    pub system: *const c_char,
    /// Pictures, which stand before the words, each `[batch, height, width, channels]` in 0..1. Copied.
    pub images: *const *const luna_view,
    /// How many there are.
    pub image_count: usize,
}

/// Options of `luna_vlm_generate`. All zeros but `size` is a good choice: greedy, at most 512 tokens.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_generate_options {
    /// `sizeof(luna_generate_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// The most tokens; 0 for 512.
    pub max_tokens: u32,
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: u32,
    /// Only the most likely tokens that together reach this probability; 0 for all.
    pub top_p: f32,
    /// Only tokens at least this times as likely as the most likely; 0 for all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred, prompt included; 0 for 1, which does
    /// nothing.
    pub repetition_penalty: f32,
    /// Whether generation goes on where the model ends its turn: 0 or 1.
    pub ignore_end: u32,
    /// The same seed chooses the same tokens.
    pub seed: u64,
    /// Texts before the first of which generation ends.
    pub stop: *const *const c_char,
    /// How many there are.
    pub stop_count: usize,
    /// Hears each token as it comes; may be NULL.
    pub piece: luna_piece_function,
    /// Handed to `piece`.
    pub user_data: *mut c_void,
    /// Cancellation, heard between tokens, progress in tokens, and log; all zero for none.
    pub call: luna_call,
}

/// Why generation ended.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_finish {
    /// The model ended its turn.
    EndOfTurn = 0,
    /// A stop text was reached.
    StopString = 1,
    /// As many tokens as were asked for.
    MaxTokens = 2,
    /// As many tokens as the model was trained for.
    ContextFull = 3,
}

/// What a vision-language model answered.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_generated {
    /// `sizeof(luna_generated)`, set by the caller.
    pub size: usize,
    /// The text without special tokens and stop texts.
    pub text: *const c_char,
    /// All ids that were generated, the one that ended the turn included.
    pub ids: *const u32,
    /// How many there are.
    pub id_count: usize,
    /// Tokens of the prompt, pictures included.
    pub prompt_tokens: u64,
    /// Tokens of pictures.
    pub picture_tokens: u64,
    /// A `luna_finish`.
    pub finish: i32,
    /// 0.
    pub reserved: u32,
    /// Bytes that remembering the tokens took.
    pub cache_bytes: u64,
    /// Time for pictures and prompt, up to the first token.
    pub prompt_nanoseconds: u64,
    /// Time for all tokens after the first.
    pub token_nanoseconds: u64,
}

/// The object behind `luna_vlm`.
pub(crate) struct LoadedVlm {
    model: Lease<VlmModel>,
    family: CString,
    log: Log,
}

impl Object for LoadedVlm {
    const NAME: &'static str = "luna_vlm";
}

impl LoadedVlm {
    fn load(caller: &Caller, session: &Session, path: &str, options: *const luna_vlm_load_options) -> Result<Self> {
        let options = caller.options(options)?;
        let tokenizer = caller.optional_path("tokenizer", options.tokenizer)?;
        let own = VlmLoadOptions { tokenizer, ..VlmLoadOptions::default() };
        let model = session
            .acquire_file(not_empty("path", path)?, |checkpoint, runtime| VlmModel::load(checkpoint, runtime, &own))?;
        let family = c_string(model.info().family.name());
        Ok(Self { model, family, log: session.log })
    }

    fn info(&self) -> luna_vlm_info {
        let info = self.model.info();
        luna_vlm_info {
            size: 0,
            family: self.family.as_ptr(),
            layers: info.layers as u64,
            vision_layers: info.vision_layers as u64,
            channels: info.channels as u64,
            vocabulary: info.vocabulary as u64,
            context: info.context as u64,
            has_tokenizer: info.has_tokenizer.into(),
            reserved: 0,
            weight_bytes: self.model.weight_bytes(),
        }
    }

    fn generate(
        &self,
        caller: &Caller,
        question: &luna_question,
        options: &luna_generate_options,
    ) -> Result<(Generated, luna_report)> {
        let watch = Watch::new(options.call, self.log)?;
        let own = generate_options(caller, options, &watch)?;
        let asked = Question {
            prompt: caller.text("prompt", question.prompt)?.to_owned(),
            system: caller.optional_text("system", question.system)?.map(str::to_owned),
        };
        let (pictures, copied) = images(caller, question.images, question.image_count)?;
        let piece = Callback::new(options.piece, options.user_data);
        let mut listener = |heard: Piece| {
            if let Some(piece) = &piece {
                (piece.function)(heard.id, c_string(heard.text).as_ptr(), piece.user_data());
            }
        };
        let generated = self.model.describe(&pictures, &asked, &own, &mut listener)?;
        let timings = generated.timings;
        let mut told = luna_report::new(generated.precision, timings.prompt + timings.tokens);
        told.copied_bytes = copied;
        for fallback in &generated.fallbacks {
            watch.warn("vision-language model", fallback);
            let Fallback::Widened { .. } = fallback else { continue };
            told.fallbacks |= LUNA_FALLBACK_WIDENED;
        }
        Ok((generated, told))
    }
}

fn generate_options(caller: &Caller, options: &luna_generate_options, watch: &Watch) -> Result<GenerateOptions> {
    let usual = GenerateOptions::default();
    let or_one = |number: f32| if number == 0.0 { 1.0 } else { number };
    Ok(GenerateOptions {
        max_tokens: if options.max_tokens == 0 { usual.max_tokens } else { options.max_tokens as usize },
        sampling: Sampling {
            temperature: options.temperature,
            top_k: options.top_k as usize,
            top_p: or_one(options.top_p),
            min_p: options.min_p,
            repetition_penalty: or_one(options.repetition_penalty),
            seed: options.seed,
        },
        stop: caller.texts("stop", options.stop, options.stop_count)?.into_iter().map(str::to_owned).collect(),
        stop_at_end: !yes(options.ignore_end),
        precision: precision(options.precision)?,
        call: watch.call.clone(),
        ..usual
    })
}

struct GeneratedItem {
    text: CString,
    generated: Generated,
}

impl Item for GeneratedItem {
    type Record = luna_generated;

    fn record(&self) -> luna_generated {
        use luna_core::vlm::FinishReason;
        let generated = &self.generated;
        let nanoseconds = |time: Duration| time.as_nanos().try_into().unwrap_or(u64::MAX);
        luna_generated {
            size: 0,
            text: self.text.as_ptr(),
            ids: if generated.ids.is_empty() { ptr::null() } else { generated.ids.as_ptr() },
            id_count: generated.ids.len(),
            prompt_tokens: generated.prompt_tokens as u64,
            picture_tokens: generated.picture_tokens as u64,
            finish: match generated.finish {
                FinishReason::StopString => luna_finish::StopString,
                FinishReason::MaxTokens => luna_finish::MaxTokens,
                FinishReason::ContextFull => luna_finish::ContextFull,
                _ => luna_finish::EndOfTurn,
            } as i32,
            reserved: 0,
            cache_bytes: generated.cache_bytes,
            prompt_nanoseconds: nanoseconds(generated.timings.prompt),
            token_nanoseconds: nanoseconds(generated.timings.tokens),
        }
    }
}

/// Loads a vision-language model (Qwen3-VL or LLaVA 1.5), or shares the one in memory. `path` is a file, a
/// `.safetensors.index.json` or a folder. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vlm_load(
    session: luna_session,
    path: *const c_char,
    options: *const luna_vlm_load_options,
    vlm: *mut luna_vlm,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("vlm", vlm)?;
        let session = object::<Session>(session)?;
        place.put(table::insert(LoadedVlm::load(caller, &session, caller.text("path", path)?, options)?));
        Ok(())
    })
}

/// Tells what is known of a vision-language model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vlm_get_info(vlm: luna_vlm, info: *mut luna_vlm_info) -> luna_status {
    boundary(|caller| {
        caller.output("info", info)?;
        let mut place = caller.report(info)?;
        place.put(object::<LoadedVlm>(vlm)?.info());
        Ok(())
    })
}

/// Answers a question about pictures, or without any. `answer` gets a list of one `luna_generated`. `options` and
/// `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vlm_generate(
    vlm: luna_vlm,
    question: *const luna_question,
    options: *const luna_generate_options,
    answer: *mut luna_list,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let (place, mut report) = (caller.output("answer", answer)?, caller.report(report)?);
        caller.value("question", question.cast::<usize>())?;
        let (question, options) = (caller.options(question)?, caller.options(options)?);
        let (generated, told) = object::<LoadedVlm>(vlm)?.generate(caller, &question, &options)?;
        let text = c_string(generated.text.as_deref().unwrap_or_default());
        place.put(list::open(vec![GeneratedItem { text, generated }]));
        report.put(told);
        Ok(())
    })
}

/// The answer in such a list, at index 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_generated(
    list: luna_list,
    index: usize,
    generated: *mut luna_generated,
) -> luna_status {
    boundary(|caller| list::item::<GeneratedItem>(caller, list, index, generated))
}

/// Frees a vision-language model's handle. The model stays in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_vlm_free(vlm: luna_vlm) -> luna_status {
    free::<LoadedVlm>(vlm)
}
