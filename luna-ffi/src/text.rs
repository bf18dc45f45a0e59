//! Text encoders. Enters: paths; then prompts or tokens. Leaves: conditioning.

mod encoders;
mod options;

use crate::{
    call::{Log, Watch, watched},
    daemon::{Reading, RemoteText, TextAsked, not_remote, refuse_folders},
    error::Result,
    handle::{Caller, boundary, c_string, free, is_none, object},
    list::{self, Item},
    lora::{Fitted, Ready, stack_of},
    options::{LUNA_FALLBACK_WIDENED, attention_number, luna_report},
    session::{Place, Session, not_empty},
    status::luna_status,
    table::{self, Object},
    tensor::Tensor,
    tokens::{ProblemItem, TokenItem},
    types::{luna_list, luna_session, luna_tensor, luna_text},
    view::luna_view,
};
use encoders::Encoders;
use luna_core::{
    Conditioning, Limits,
    limits::check_at_most,
    text::{ConditioningCache, EmbeddingFolders, Encoded, EncodedPrompt, Fallback, Prompt, TextModel, TextOptions},
};
pub use options::*;
use options::{Wanted, check_stack, prompts, readings, recipe_of, rows, text_options};
use std::{
    ffi::{CString, c_char},
    sync::Arc,
};

/// The object behind `luna_text`.
pub(crate) struct LoadedText {
    source: Source,
    log: Log,
}

/// Where its weights are.
enum Source {
    Here(Encoders),
    There(RemoteText),
}

/// What a call gave: each prompt's conditioning and what it did without, and how it was done.
type Encodings = (Vec<(Arc<Conditioning>, Vec<ProblemItem>)>, luna_report);

impl Object for LoadedText {
    const NAME: &'static str = "luna_text";
}

impl LoadedText {
    fn load<'a>(
        caller: &'a Caller,
        session: &Session,
        paths: &[&'a str],
        options: *const luna_text_load_options,
    ) -> Result<Self> {
        let options = caller.options(options)?;
        let recipe = caller.optional_text("recipe", options.recipe)?;
        paths.iter().try_for_each(|path| not_empty("a path", path).map(drop))?;
        let readings = readings(caller, paths.len(), &options)?;
        let files: Vec<(&str, Reading)> = paths.iter().copied().zip(readings).collect();
        let source = match session.place() {
            Place::There(daemon) => {
                refuse_folders(options.embedding_folder_count)?;
                recipe.map(recipe_of).transpose()?;
                Source::There(RemoteText::load(daemon, &files, recipe)?)
            }
            Place::Here(embedded) => {
                let (folders, count) = (options.embedding_folders, options.embedding_folder_count);
                let folders = caller.texts("embedding_folders", folders, count)?;
                let folders = if folders.is_empty() { None } else { Some(EmbeddingFolders::new(folders)?) };
                Source::Here(Encoders::load(embedded, &files, recipe, folders, options.cache_bytes)?)
            }
        };
        Ok(Self { source, log: session.log })
    }

    /// Encodes prompts, or token ids.
    fn encode(self: &Arc<Self>, wanted: &Wanted, options: &luna_text_options, watch: &Watch) -> Result<Encodings> {
        let mut own = text_options(options, watch)?;
        let stack = stack_of(options.loras)?;
        match &self.source {
            Source::Here(encoders) => {
                let models: Vec<&TextModel> = encoders.models.iter().map(|model| &**model).collect();
                let fitted = stack.map(|stack| stack.for_text(self, &models, &watch.call)).transpose()?;
                if let Some(Fitted { ready: Ready::Text(patches), .. }) = &fitted {
                    own.patches.clone_from(patches);
                }
                let encoded = encoders.conditioner(|conditioner| match wanted {
                    Wanted::Prompts(prompts) => Ok(conditioner.encode(prompts, &own)?),
                    Wanted::Ids(rows) => Ok(conditioner.encode_ids(rows, &own)?),
                })?;
                let report = told(&encoded, &own, fitted, watch);
                let problems = |prompt: &EncodedPrompt| prompt.problems.iter().map(ProblemItem::new).collect();
                let prompts = encoded.prompts.into_iter();
                Ok((prompts.map(|prompt| (prompt.conditioning.clone(), problems(&prompt))).collect(), report))
            }
            Source::There(remote) => {
                let (loras, strict) = stack.as_ref().map_or(Ok((Vec::new(), false)), |stack| stack.asked_of_text())?;
                let asked = TextAsked { options: &own, loras, strict };
                let mut encoded = match wanted {
                    Wanted::Prompts(prompts) => remote.encode(prompts, &asked, watch)?,
                    Wanted::Ids(rows) => remote.encode_ids(rows, &asked, watch)?,
                };
                if let Some(stack) = stack {
                    stack.told(self, encoded.fates).tell(&mut encoded.report);
                }
                let prompts = encoded.prompts.into_iter();
                Ok((prompts.map(|(made, problems)| (Arc::new(made), problems)).collect(), encoded.report))
            }
        }
    }
}

/// Handles to one prompt's conditioning.
fn open((conditioning, problems): (Arc<Conditioning>, Vec<ProblemItem>)) -> luna_conditioning {
    luna_conditioning {
        tokens: Tensor::Tokens(conditioning.clone()).open(),
        pooled: conditioning.pooled().map_or(luna_tensor::NONE, |_| Tensor::Pooled(conditioning.clone()).open()),
        mask: conditioning.mask().map_or(luna_tensor::NONE, |_| Tensor::Mask(conditioning.clone()).open()),
        problems: if problems.is_empty() { luna_list::NONE } else { list::open(problems) },
    }
}

fn told(encoded: &Encoded, asked: &TextOptions, fitted: Option<Fitted>, watch: &Watch) -> luna_report {
    let mut told = luna_report::new(asked.precision, encoded.elapsed);
    told.attention = attention_number(asked.attention);
    for runs in encoded.patched.values() {
        told.ran(runs);
    }
    told.cached = encoded.prompts.iter().filter(|prompt| prompt.cached).count() as u32;
    told.sequences = encoded.sequences as u32;
    fitted.inspect(|fitted| fitted.fates.tell(&mut told));
    for fallback in &encoded.fallbacks {
        watch.warn("text encoder", fallback);
        if let Fallback::Widened { non_finite, .. } = fallback {
            told.fallbacks |= LUNA_FALLBACK_WIDENED;
            told.non_finite += *non_finite as u64;
        }
    }
    for problem in encoded.prompts.iter().flat_map(|prompt| &prompt.problems) {
        watch.warn("prompt", problem);
    }
    told
}

struct EncoderItem {
    kind: CString,
    /// Layers, channels, vocabulary.
    numbers: [usize; 3],
}

impl Item for EncoderItem {
    type Record = luna_encoder_info;

    fn record(&self) -> luna_encoder_info {
        let [layers, channels, vocabulary] = self.numbers.map(|number| number as u64);
        luna_encoder_info { size: 0, kind: self.kind.as_ptr(), layers, channels, vocabulary }
    }
}

impl LoadedText {
    fn encoders(&self) -> Result<Vec<EncoderItem>> {
        let item = |kind: &str, numbers| EncoderItem { kind: c_string(kind), numbers };
        Ok(match &self.source {
            Source::Here(encoders) => {
                let infos = encoders.models.iter().flat_map(|model| model.encoders());
                infos.map(|info| item(info.kind.name(), [info.layers, info.channels, info.vocabulary])).collect()
            }
            Source::There(remote) => {
                let infos = remote.encoders()?.into_iter();
                infos.map(|info| item(&info.encoder, [info.layers, info.channels, info.vocabulary])).collect()
            }
        })
    }

    /// The cache of conditionings, if there is one.
    fn cache(&self) -> Result<Option<&ConditioningCache>> {
        match &self.source {
            Source::Here(encoders) => Ok(encoders.cache.as_ref()),
            Source::There(_) => Err(not_remote("how its conditioning cache is used").into()),
        }
    }

    fn tokenize(
        &self,
        prompt: &Prompt,
        options: &luna_text_options,
        watch: &Watch,
    ) -> Result<(Vec<TokenItem>, Vec<ProblemItem>)> {
        let own = text_options(options, watch)?;
        match &self.source {
            Source::Here(encoders) => {
                let tokenized = encoders.conditioner(|conditioner| Ok(conditioner.tokenize(prompt, &own)?))?;
                let problems = tokenized.problems.iter().map(ProblemItem::new).collect();
                Ok((tokenized.encoders.iter().flat_map(TokenItem::all).collect(), problems))
            }
            Source::There(remote) => {
                remote.tokenize(prompt, &TextAsked { options: &own, loras: Vec::new(), strict: false }, watch)
            }
        }
    }
}

/// Loads the text encoders of a diffusion model, or shares those in memory. Each path is a file (a text encoder's own,
/// or a checkpoint with some in it), a `.safetensors.index.json`, a folder, or `demo` for the small demonstration model
/// with random weights that the library carries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_text_load(
    session: luna_session,
    paths: *const *const c_char,
    path_count: usize,
    options: *const luna_text_load_options,
    text: *mut luna_text,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("text", text)?;
        let session = object::<Session>(session)?;
        let paths = caller.texts("paths", paths, path_count)?;
        place.put(table::insert(LoadedText::load(caller, &session, &paths, options)?));
        Ok(())
    })
}

/// Tells how the cache is used that `cache_bytes` of `luna_text_load_options` asked for. A daemon has one of its own, and
/// does not tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_text_get_cache_usage(text: luna_text, usage: *mut luna_cache_usage) -> luna_status {
    boundary(|caller| {
        caller.output("usage", usage)?;
        let mut place = caller.report(usage)?;
        let text = object::<LoadedText>(text)?;
        let told = text.cache()?.map(ConditioningCache::usage).unwrap_or_default();
        let [entries, bytes] = [told.entries, told.bytes].map(|number| number as u64);
        place.put(luna_cache_usage { size: 0, entries, bytes, hits: told.hits, misses: told.misses });
        Ok(())
    })
}

/// Forgets the conditionings that are remembered.
#[unsafe(no_mangle)]
pub extern "C" fn luna_text_clear_cache(text: luna_text) -> luna_status {
    boundary(|_| {
        object::<LoadedText>(text)?.cache()?.inspect(|cache| cache.clear());
        Ok(())
    })
}

/// Lists the encoders that were loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_text_list_encoders(text: luna_text, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        place.put(list::open(object::<LoadedText>(text)?.encoders()?));
        Ok(())
    })
}

/// One encoder of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_encoder(list: luna_list, index: usize, info: *mut luna_encoder_info) -> luna_status {
    boundary(|caller| list::item::<EncoderItem>(caller, list, index, info))
}

/// Tokenizes a prompt, with ComfyUI's weights such as `(red:1.3)`, for each encoder; the options' lists of prompts have one
/// each. `list` gets a list of
/// `luna_token`, encoder by encoder and chunk by chunk; `problems`, which may be NULL, a list of `luna_problem`.
/// `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_text_tokenize(
    text: luna_text,
    prompt: *const c_char,
    options: *const luna_text_options,
    list: *mut luna_list,
    problems: *mut luna_list,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        let problems = if problems.is_null() { None } else { Some(caller.output("problems", problems)?) };
        let (text, options) = (object::<LoadedText>(text)?, caller.options(options)?);
        let (prompts, _) = prompts(caller, &[caller.text("prompt", prompt)?], &options)?;
        let (tokens, left_out) = watched(options.call, text.log, |watch| text.tokenize(&prompts[0], &options, watch))?;
        place.put(list::open(tokens));
        if let Some(place) = problems {
            place.put(list::open(left_out));
        }
        Ok(())
    })
}

/// Encodes prompts in one batch. `conditioning` has room for `prompt_count` of them. `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_text_encode(
    text: luna_text,
    prompts: *const *const c_char,
    prompt_count: usize,
    options: *const luna_text_options,
    conditioning: *mut luna_conditioning,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        let prompts = caller.texts("prompts", prompts, prompt_count)?;
        check_at_most("prompts in a batch", prompts.len() as u64, Limits::default().batch as u64)?;
        let places = caller.outputs("conditioning", conditioning, prompt_count)?;
        let mut report = caller.report(report)?;
        let (text, options) = (object::<LoadedText>(text)?, caller.options(options)?);
        let (prompts, tags) = self::prompts(caller, &prompts, &options)?;
        check_stack(&tags, &options)?;
        let wanted = Wanted::Prompts(prompts);
        let (encoded, told) = watched(options.call, text.log, |watch| text.encode(&wanted, &options, watch))?;
        report.put(told);
        places.into_iter().zip(encoded).for_each(|(place, prompt)| place.put(open(prompt)));
        Ok(())
    })
}

/// Encodes token ids in place of prompts, `[tokens]` or `[rows, tokens]` of 32- or 64-bit integers with start, end and
/// padding as the model wants them, where there is one encoder only. `conditioning` has room for one, or for as many as
/// there are rows. `attention_mask` of the options says which ids count. `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_text_encode_ids(
    text: luna_text,
    token_ids: *const luna_view,
    options: *const luna_text_options,
    conditioning: *mut luna_conditioning,
    report: *mut luna_report,
) -> luna_status {
    boundary(|caller| {
        caller.output("conditioning", conditioning)?;
        let mut report = caller.report(report)?;
        let (text, options) = (object::<LoadedText>(text)?, caller.options(options)?);
        let rows = rows(caller, token_ids, &options)?;
        let places = caller.outputs("conditioning", conditioning, rows.len())?;
        let wanted = Wanted::Ids(rows);
        let (encoded, told) = watched(options.call, text.log, |watch| text.encode(&wanted, &options, watch))?;
        report.put(told);
        places.into_iter().zip(encoded).for_each(|(place, row)| place.put(open(row)));
        Ok(())
    })
}

/// Frees all handles of a conditioning; those that are all zero are passed over.
#[unsafe(no_mangle)]
pub extern "C" fn luna_conditioning_free(conditioning: luna_conditioning) -> luna_status {
    boundary(|_| {
        let luna_conditioning { tokens, pooled, mask, problems } = conditioning;
        let tensors = [tokens, pooled, mask].into_iter().filter(|&tensor| !is_none(tensor));
        let freed: Vec<Result<_>> = tensors.map(|tensor| table::remove::<Tensor>(tensor.into()).map(drop)).collect();
        if !is_none(problems) {
            table::remove::<list::List>(problems.into())?;
        }
        freed.into_iter().collect()
    })
}

/// Frees the encoders' handle. The models stay in memory for the next one, as the session's budget allows.
#[unsafe(no_mangle)]
pub extern "C" fn luna_text_free(text: luna_text) -> luna_status {
    free::<LoadedText>(text)
}
