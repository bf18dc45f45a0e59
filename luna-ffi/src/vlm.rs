//! Vision-language models. Enters: a path; then pictures and words, or a prepared prompt. Leaves: text, as it comes and
//! whole.

mod answer;
mod question;

use crate::{
    call::{Log, Watch, watched},
    daemon::{Reading, RemoteVlm, VlmAsked, VlmPictures},
    error::Result,
    handle::{Callback, Caller, boundary, c_string, free, object},
    list,
    lora::stack_of,
    options::{LUNA_FALLBACK_WIDENED, luna_report},
    session::{Place, Session, not_empty},
    status::luna_status,
    table::{self, Object},
    types::{luna_list, luna_session, luna_vlm},
};
use answer::GeneratedItem;
pub use answer::*;
use luna_core::{
    Image, Runtime,
    checkpoint::Checkpoint,
    protocol::{SamplingWish, VlmGenerate},
    registry::Lease,
    vlm::{Fallback, GenerateOptions, Generated, Piece, Sampling, VlmFamily, VlmInput, VlmLoadOptions, VlmModel},
};
pub use question::*;
use question::{asked, generate_options};
use std::{
    ffi::{CStr, c_char},
    sync::Arc,
};

crate::handle::records!(luna_vlm_load_options, luna_vlm_info);

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

/// Frees a vision-language model's handle. The model stays in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_vlm_free(vlm: luna_vlm) -> luna_status {
    free::<LoadedVlm>(vlm)
}
