//! Vision-language models. Enters: a path; then pictures and words, or a prepared prompt. Leaves: text, as it comes and
//! whole.

mod question;

use crate::{
    call::{Log, Watch, watched},
    daemon::{Reading, RemoteVlm, VlmAsked, VlmPictures},
    error::Result,
    handle::{Callback, Caller, boundary, c_string, free, object},
    list::{self, Item},
    lora::stack_of,
    options::{LUNA_FALLBACK_WIDENED, luna_report},
    session::{Place, Session, not_empty},
    status::luna_status,
    table::{self, Object},
    types::{luna_list, luna_session, luna_vlm},
};
use luna_core::{
    Image, Runtime,
    checkpoint::Checkpoint,
    protocol::{SamplingWish, VlmGenerate, VlmGenerated},
    registry::Lease,
    vlm::{
        Fallback, FinishReason, GenerateOptions, Generated, Piece, Sampling, VlmFamily, VlmInput, VlmLoadOptions,
        VlmModel,
    },
};
pub use question::*;
use question::{asked, generate_options};
use std::{
    ffi::{CStr, CString, c_char},
    ptr,
    sync::Arc,
    time::Duration,
};

crate::handle::records!(luna_vlm_load_options, luna_vlm_info, luna_generated);

/// Options of `luna_vlm_load`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vlm_load_options {
    /// `sizeof(luna_vlm_load_options)`.
    pub size: usize,
    /// The `tokenizer.json`; NULL for the one beside the weights. With another one it is another model.
    pub tokenizer: *const c_char,
    /// The vision part of a GGUF language model, `mmproj-*.gguf`; NULL for the one beside it that fits. With another one
    /// it is another model.
    pub projector: *const c_char,
}

/// What is known of a vision-language model. Of a daemon's, only the family.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_vlm_info {
    /// `sizeof(luna_vlm_info)`, set by the caller.
    pub size: usize,
    /// Its family: `qwen3_vl` or `llava`; valid for ever.
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
    source: Source,
    log: Log,
}

/// Where its weights are.
enum Source {
    Here(Lease<VlmModel>),
    There(RemoteVlm),
}

/// A family's name, which is valid for ever.
fn family_name(name: &str) -> &'static CStr {
    if name == VlmFamily::Llava.name() { c"llava" } else { c"qwen3_vl" }
}

impl Object for LoadedVlm {
    const NAME: &'static str = "luna_vlm";
}

impl LoadedVlm {
    fn load(caller: &Caller, session: &Session, path: &str, options: *const luna_vlm_load_options) -> Result<Self> {
        let options = caller.options(options)?;
        let tokenizer = caller.optional_path("tokenizer", options.tokenizer)?;
        let projector = caller.optional_path("projector", options.projector)?;
        let path = not_empty("path", path)?;
        let source = match session.place() {
            Place::Here(embedded) => {
                let own = VlmLoadOptions { tokenizer, projector, ..VlmLoadOptions::default() };
                let load = |checkpoint: &Checkpoint, runtime: &Runtime| VlmModel::load(checkpoint, runtime, &own);
                Source::Here(match &own.projector {
                    None if own.tokenizer.is_none() => embedded.acquire_file(path, load)?,
                    None => embedded.acquire_read(path, &own.tokenizer, load)?,
                    Some(projector) => {
                        let both = Checkpoint::open_with_projector(path, projector, &own.limits)?;
                        embedded.adopt(path, &both, &own.tokenizer, load)?
                    }
                })
            }
            Place::There(daemon) => {
                let reading = Reading { tokenizer: tokenizer.as_deref(), ..Reading::default() };
                Source::There(RemoteVlm::load(daemon, path, reading, projector.as_deref())?)
            }
        };
        Ok(Self { source, log: session.log })
    }

    fn info(&self) -> Result<luna_vlm_info> {
        Ok(match &self.source {
            Source::Here(model) => {
                let info = model.info();
                luna_vlm_info {
                    size: 0,
                    family: family_name(info.family.name()).as_ptr(),
                    layers: info.layers as u64,
                    vision_layers: info.vision_layers as u64,
                    channels: info.channels as u64,
                    vocabulary: info.vocabulary as u64,
                    context: info.context as u64,
                    has_tokenizer: info.has_tokenizer.into(),
                    reserved: 0,
                    weight_bytes: model.weight_bytes(),
                }
            }
            Source::There(remote) => luna_vlm_info {
                size: 0,
                family: family_name(&remote.info()?.family).as_ptr(),
                layers: 0,
                vision_layers: 0,
                channels: 0,
                vocabulary: 0,
                context: 0,
                has_tokenizer: 0,
                reserved: 0,
                weight_bytes: 0,
            },
        })
    }

    fn generate(
        self: &Arc<Self>,
        caller: &Caller,
        question: &luna_question,
        options: &luna_generate_options,
        watch: &Watch,
    ) -> Result<(GeneratedItem, luna_report)> {
        let mut own = generate_options(caller, options, watch)?;
        let stack = stack_of(options.loras)?;
        let (asked, copied) = asked(caller, question)?;
        let piece = Callback::new(options.piece, options.user_data);
        let mut listener = |heard: Piece| {
            if let Some(piece) = &piece {
                (piece.function)(heard.id, c_string(heard.text).as_ptr(), piece.user_data());
            }
        };
        let (item, told) = match &self.source {
            Source::Here(model) => {
                let fitted = stack.map(|stack| stack.for_vlm(self, model, &watch.call)).transpose()?;
                own.lora = fitted.as_ref().and_then(|fitted| fitted.ready.model());
                let generated = model.generate(&input(model, asked)?, &own, &mut listener)?;
                let mut told = told(&generated, watch);
                fitted.inspect(|fitted| fitted.fates.tell(&mut told));
                (GeneratedItem::here(generated), told)
            }
            Source::There(remote) => {
                let base = stack.as_ref().map_or_else(|| Ok(VlmGenerate::default()), |stack| stack.asked_of_vlm())?;
                let request = wish(base, &own, piece.is_some());
                let (generated, mut told, fate) = remote.generate(asked, request, watch, &mut listener)?;
                if let (Some(stack), Some(fate)) = (stack, fate) {
                    stack.told(self, vec![fate]).tell(&mut told);
                }
                (GeneratedItem::there(generated), told)
            }
        };
        Ok((item, luna_report { copied_bytes: copied, ..told }))
    }
}

/// What a model in this process reads.
fn input(model: &VlmModel, asked: VlmAsked) -> Result<VlmInput> {
    Ok(match asked {
        VlmAsked::Question(question, pictures) => {
            model.prompt(&question.messages(pictures.iter().map(Image::batch).sum()), &pictures)?
        }
        VlmAsked::Chat(messages, pictures) => model.prompt(&messages, &pictures)?,
        VlmAsked::Prepared(ids, VlmPictures::Patches(patches)) => VlmInput { ids, patches },
        VlmAsked::Prepared(ids, VlmPictures::Whole(pixels)) => VlmInput { ids, patches: model.cut(&pixels)? },
    })
}

fn told(generated: &Generated, watch: &Watch) -> luna_report {
    let timings = generated.timings;
    let mut told = luna_report::new(generated.precision, timings.prompt + timings.tokens);
    for fallback in &generated.fallbacks {
        watch.warn("vision-language model", fallback);
        let Fallback::Widened { .. } = fallback else { continue };
        told.fallbacks |= LUNA_FALLBACK_WIDENED;
    }
    told.ran(&generated.patched);
    told
}

/// How a daemon is to answer; `base` says with which LoRAs.
fn wish(base: VlmGenerate, options: &GenerateOptions, stream: bool) -> VlmGenerate {
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed } = options.sampling;
    VlmGenerate {
        max_tokens: Some(options.max_tokens),
        sampling: Some(SamplingWish { temperature, top_k, top_p, min_p, repetition_penalty, seed }),
        stop: options.stop.clone(),
        past_the_end: !options.stop_at_end,
        precision: Some(options.precision.name().to_owned()),
        stream,
        ..base
    }
}

struct GeneratedItem {
    text: CString,
    ids: Vec<u32>,
    /// Tokens of the prompt, tokens of pictures, bytes of the cache.
    counts: [u64; 3],
    finish: luna_finish,
    /// For the prompt, and for all tokens after the first.
    times: [Duration; 2],
}

fn finish(name: &str) -> luna_finish {
    let known = [
        (FinishReason::StopString, luna_finish::StopString),
        (FinishReason::MaxTokens, luna_finish::MaxTokens),
        (FinishReason::ContextFull, luna_finish::ContextFull),
    ];
    known.into_iter().find(|(reason, _)| reason.name() == name).map_or(luna_finish::EndOfTurn, |(_, finish)| finish)
}

impl GeneratedItem {
    fn here(generated: Generated) -> Self {
        Self {
            text: c_string(generated.text.as_deref().unwrap_or_default()),
            counts: [generated.prompt_tokens as u64, generated.picture_tokens as u64, generated.cache_bytes],
            finish: finish(generated.finish.name()),
            times: [generated.timings.prompt, generated.timings.tokens],
            ids: generated.ids,
        }
    }

    fn there(generated: VlmGenerated) -> Self {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self {
            text: c_string(generated.text.as_deref().unwrap_or_default()),
            counts: [generated.prompt_tokens as u64, generated.picture_tokens as u64, generated.cache_bytes],
            finish: finish(&generated.finish),
            times: [seconds(generated.prompt_seconds), seconds(generated.generation_seconds)],
            ids: generated.ids,
        }
    }
}

impl Item for GeneratedItem {
    type Record = luna_generated;

    fn record(&self) -> luna_generated {
        let [prompt_tokens, picture_tokens, cache_bytes] = self.counts;
        let [prompt, tokens] = self.times.map(|time| time.as_nanos().try_into().unwrap_or(u64::MAX));
        luna_generated {
            size: 0,
            text: self.text.as_ptr(),
            ids: if self.ids.is_empty() { ptr::null() } else { self.ids.as_ptr() },
            id_count: self.ids.len(),
            prompt_tokens,
            picture_tokens,
            finish: self.finish as i32,
            reserved: 0,
            cache_bytes,
            prompt_nanoseconds: prompt,
            token_nanoseconds: tokens,
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

/// Tells what is known of a vision-language model. A daemon's tells with its first call, and is `LUNA_STATUS_UNSUPPORTED`
/// before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_vlm_get_info(vlm: luna_vlm, info: *mut luna_vlm_info) -> luna_status {
    boundary(|caller| {
        caller.output("info", info)?;
        let mut place = caller.report(info)?;
        place.put(object::<LoadedVlm>(vlm)?.info()?);
        Ok(())
    })
}

/// Answers a question about pictures, or without any, or goes on with a conversation or a prepared prompt. `answer` gets a list of one `luna_generated`. `options` and
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
        let vlm = object::<LoadedVlm>(vlm)?;
        let (generated, told) =
            watched(options.call, vlm.log, |watch| vlm.generate(caller, &question, &options, watch))?;
        place.put(list::open(vec![generated]));
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
