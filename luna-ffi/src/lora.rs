//! Stacks of LoRAs. Enters: files with strengths; then models. Leaves: what a call of a model takes along, worked out
//! once for each model, and what became of every adapter.

mod entry;
mod fit;
mod tags;

use crate::{
    coverage::{Fate, list_adapters, list_files, luna_lora_mode, mode_name, mode_number, not_merged_number},
    daemon::not_remote,
    error::{Failure, Result, wrong},
    handle::{Caller, boundary, c_string, free, is_none, object},
    list::{self, Item},
    options::{choose, luna_report, yes},
    session::{Place, Session},
    status::luna_status,
    table::{self, Object},
    types::{luna_list, luna_loras, luna_session},
};
use luna_core::{
    Patches,
    limits::check_at_most,
    lora::{ApplyMode, DoraConvention, LoraStack, MergedCopies, ResolveOptions},
    protocol::{LoraUse, ModelForward, VlmGenerate},
    text::EncoderKind,
    tokenizer::{LoraTag, LoraTags},
};
use std::{
    any::Any,
    collections::BTreeMap,
    ffi::{CString, c_char, c_void},
    num::NonZeroUsize,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
pub use tags::*;

crate::handle::plain!(luna_lora);
crate::handle::records!(luna_loras_options, luna_lora_name);

/// The most LoRAs of one stack.
const MOST_LORAS: u64 = 1024;

/// One LoRA of a stack: a file, or a name, or a file in memory.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_lora {
    /// A `.safetensors` file or a PEFT folder; NULL for a LoRA by name or in memory.
    pub path: *const c_char,
    /// A name that is looked up in the session's `lora_folders`: the path below one of them or its last part, or as much
    /// of it as is clear. With `data` it is what reports call it.
    pub name: *const c_char,
    /// The bytes of a `.safetensors` file in memory; NULL for none. Copied.
    pub data: *const c_void,
    /// How many there are.
    pub data_bytes: usize,
    /// Strength for the denoiser.
    pub model: f64,
    /// Strength for the text encoders, and for a vision-language model.
    pub clip: f64,
}

/// Which convention DoRA's magnitudes follow.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_dora {
    /// The one that the file's names tell.
    ByNames = 0,
    /// ComfyUI's.
    Comfyui = 1,
    /// PEFT's, and LyCORIS' with `wd_on_out`.
    Peft = 2,
}

/// Options of `luna_loras_new`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_loras_options {
    /// `sizeof(luna_loras_options)`.
    pub size: usize,
    /// Whether an adapter for a model that cannot be applied to it is an error: 0 or 1.
    pub strict: u32,
    /// Whether a stack of which nothing applies to a model may be given to it: 0 or 1.
    pub allow_nothing: u32,
    /// A `luna_lora_mode`.
    pub mode: i32,
    /// A `luna_dora`.
    pub dora: i32,
    /// How many calls of a model will follow, for `LUNA_LORA_MODE_AUTO`; 0 where it is not known. A daemon's
    /// vision-language model goes by `max_tokens` instead.
    pub forwards: u64,
    /// Prompts whose `<lora:name:model:clip>` tags name further LoRAs, in the order in which they stand there, by names in
    /// the session's `lora_folders` or the daemon's. `luna_loras_list_tags` tells what was found; encode the prompts with
    /// `lora_tags` of `luna_text_options`, so that the tags are not read as words.
    pub prompts: *const *const c_char,
    /// How many there are.
    pub prompt_count: usize,
}

/// A LoRA in the session's `lora_folders`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_lora_name {
    /// `sizeof(luna_lora_name)`, set by the caller.
    pub size: usize,
    /// Its path below the folder, without the ending.
    pub name: *const c_char,
}

/// The object behind `luna_loras`.
pub(crate) struct Loras {
    place: Where,
    resolve: ResolveOptions,
    mode: ApplyMode,
    /// What tags in prompts said, with the prompt's number.
    tags: Vec<(usize, LoraTags)>,
    /// What was worked out for each model that the stack was used with.
    known: Mutex<Vec<Known>>,
}

/// Where its files are.
enum Where {
    /// In this process, with the copies of layers that are merged there.
    Here(LoraStack, MergedCopies),
    /// In a daemon, by their ids or names.
    There(Vec<LoraUse>),
}

struct Known {
    /// The object behind the model's handle. A weak share keeps its address from being given again.
    model: Weak<dyn Any + Send + Sync>,
    fates: Fates,
    /// `None` where the stack was refused.
    ready: Option<Ready>,
}

/// What calls take along.
#[derive(Clone)]
pub(crate) enum Ready {
    /// Of a denoiser, or of a vision-language model.
    Model(Arc<Patches>),
    Text(BTreeMap<EncoderKind, Arc<Patches>>),
}

impl Ready {
    /// What a model of one part takes along.
    pub(crate) fn model(&self) -> Option<Arc<Patches>> {
        match self {
            Self::Model(patches) => Some(patches.clone()),
            Self::Text(_) => None,
        }
    }
}

impl Object for Loras {
    const NAME: &'static str = "luna_loras";
}

/// A stack as a model's call has it.
pub(crate) struct Fitted {
    pub(crate) ready: Ready,
    pub(crate) fates: Fates,
}

/// What became of a stack on the models of a call.
#[derive(Clone)]
pub(crate) struct Fates(Arc<[Fate]>);

impl Fates {
    /// Tells of it in a call's report.
    pub(crate) fn tell(&self, report: &mut luna_report) {
        for fate in self.0.iter() {
            report.adapters_applied += fate.coverage.applied() as u32;
            report.adapters_missed += fate.missed() as u32;
            // Of several models, what was done to the last that anything applies to.
            if fate.coverage.applied() > 0 {
                report.lora_mode = mode_number(fate.mode);
                report.not_merged = not_merged_number(fate.not_merged);
            }
        }
    }
}

/// The stack of a handle that may be none.
pub(crate) fn stack_of(loras: luna_loras) -> Result<Option<Arc<Loras>>> {
    if is_none(loras) { Ok(None) } else { object(loras).map(Some) }
}

impl Loras {
    fn new(
        caller: &Caller,
        session: &Session,
        entries: &[luna_lora],
        options: *const luna_loras_options,
    ) -> Result<Self> {
        let options = caller.options(options)?;
        let forwards = NonZeroUsize::new(usize::try_from(options.forwards).unwrap_or(usize::MAX));
        let modes = [ApplyMode::Functional, ApplyMode::Merged, ApplyMode::Auto { forwards }];
        let mode = choose("way of applying LoRAs", options.mode, &modes)?;
        if options.forwards != 0 && options.mode != luna_lora_mode::Auto as i32 {
            return Err(wrong("`forwards` is set, but nothing is to be decided by it")
                .remedy("set `mode` to LUNA_LORA_MODE_AUTO, or leave `forwards` at 0")
                .into());
        }
        let conventions = [None, Some(DoraConvention::ComfyUi), Some(DoraConvention::Peft)];
        let resolve = ResolveOptions {
            strict: yes(options.strict),
            allow_nothing: yes(options.allow_nothing),
            dora: choose("DoRA convention", options.dora, &conventions)?,
        };
        let tags = tags::read(&caller.texts("prompts", options.prompts, options.prompt_count)?);
        let tagged: Vec<&LoraTag> = tags.iter().flat_map(|(_, found)| &found.tags).collect();
        check_at_most("LoRAs in a stack", (entries.len() + tagged.len()) as u64, MOST_LORAS)?;
        let place = match session.place() {
            Place::Here(embedded) => {
                let mut stack = LoraStack::new();
                for entry in entries {
                    stack = stack.with(entry::file(caller, embedded, entry)?, entry.model, entry.clip)?;
                }
                for tag in tagged {
                    stack = stack.with(entry::named_file(embedded, &tag.name)?, tag.model, tag.clip)?;
                }
                Where::Here(stack, embedded.merged_copies())
            }
            Place::There(daemon) => {
                if resolve.allow_nothing || resolve.dora.is_some() {
                    return Err(not_remote("`allow_nothing` or `dora`").into());
                }
                let entries = entries.iter().map(|entry| entry::remote(caller, daemon, entry));
                let mut uses = entries.collect::<Result<Vec<_>>>()?;
                let used = |tag: &LoraTag| LoraUse { lora: tag.name.clone(), model: tag.model, clip: tag.clip };
                uses.extend(tagged.into_iter().map(used));
                Where::There(uses)
            }
        };
        Ok(Self { place, resolve, mode, tags, known: Mutex::default() })
    }

    /// The stack in this process.
    fn here(&self) -> Result<(&LoraStack, &MergedCopies)> {
        match &self.place {
            Where::Here(stack, copies) => Ok((stack, copies)),
            Where::There(_) => Err(elsewhere("this process")),
        }
    }

    /// What a request to a daemon says of it.
    fn there(&self) -> Result<Vec<LoraUse>> {
        match &self.place {
            Where::There(uses) => Ok(uses.clone()),
            Where::Here(..) => Err(elsewhere("a daemon")),
        }
    }

    /// What a request of a daemon's denoiser says of it.
    pub(crate) fn asked_of_denoiser(&self) -> Result<ModelForward> {
        let forwards = match self.mode {
            ApplyMode::Auto { forwards } => forwards.map(NonZeroUsize::get),
            _ => None,
        };
        let (loras, lora_mode) = (self.there()?, Some(mode_name(self.mode).to_owned()));
        Ok(ModelForward { loras, strict: self.resolve.strict, lora_mode, forwards, ..ModelForward::default() })
    }

    /// What a request of a daemon's vision-language model says of it.
    pub(crate) fn asked_of_vlm(&self) -> Result<VlmGenerate> {
        let (loras, lora_mode) = (self.there()?, Some(mode_name(self.mode).to_owned()));
        Ok(VlmGenerate { loras, strict: self.resolve.strict, lora_mode, ..VlmGenerate::default() })
    }

    /// What a request of a daemon's text encoders says of it: the stack, and whether it is strict.
    pub(crate) fn asked_of_text(&self) -> Result<(Vec<LoraUse>, bool)> {
        Ok((self.there()?, self.resolve.strict))
    }

    /// Notes what a daemon told of it after a call of `model`.
    pub(crate) fn told<M: Any + Send + Sync>(&self, model: &Arc<M>, fates: Vec<Fate>) -> Fates {
        let model: Arc<dyn Any + Send + Sync> = model.clone();
        let fates = Fates(fates.into());
        let mut known = self.lock();
        known
            .retain(|known| known.model.strong_count() > 0 && !ptr::addr_eq(known.model.as_ptr(), Arc::as_ptr(&model)));
        known.push(Known { model: Arc::downgrade(&model), fates: fates.clone(), ready: None });
        fates
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        // Entries are pushed and removed whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `work` made of this model before, or makes of it now: what became of the stack, and what calls take along.
    fn fitted<M: Any + Send + Sync>(
        &self,
        model: &Arc<M>,
        work: impl FnOnce() -> Result<(Vec<Fate>, Result<Ready>)>,
    ) -> Result<Fitted> {
        let model: Arc<dyn Any + Send + Sync> = model.clone();
        let mut known = self.lock();
        known.retain(|known| known.model.strong_count() > 0);
        let is_same = |known: &Known| ptr::addr_eq(known.model.as_ptr(), Arc::as_ptr(&model));
        if let Some(Known { fates, ready: Some(ready), .. }) = known.iter().find(|known| is_same(known)) {
            return Ok(Fitted { ready: ready.clone(), fates: fates.clone() });
        }
        let (fates, ready) = work()?;
        let fates = Fates(fates.into());
        known.retain(|known| !is_same(known));
        let kept = ready.as_ref().ok().cloned();
        known.push(Known { model: Arc::downgrade(&model), fates: fates.clone(), ready: kept });
        Ok(Fitted { ready: ready?, fates })
    }

    fn fates(&self) -> Vec<Arc<[Fate]>> {
        self.lock().iter().map(|known| known.fates.0.clone()).collect()
    }
}

fn elsewhere(place: &str) -> Failure {
    wrong("the LoRAs and the model are of different sessions")
        .expected(format!("LoRAs of a session in {place}"))
        .remedy("make the stack with the model's own session")
        .into()
}

struct NameItem(CString);

impl Item for NameItem {
    type Record = luna_lora_name;

    fn record(&self) -> luna_lora_name {
        luna_lora_name { size: 0, name: self.0.as_ptr() }
    }
}

/// Makes a stack of LoRAs, to be put into the options of any number of calls, also at once. Their differences add, so
/// the order does not matter beyond rounding. Files are read now, and shared with other stacks; the models are never
/// changed. `options` may be NULL; its prompts name further LoRAs by tags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_loras_new(
    session: luna_session,
    entries: *const luna_lora,
    entry_count: usize,
    options: *const luna_loras_options,
    loras: *mut luna_loras,
) -> luna_status {
    boundary(|caller| {
        let place = caller.output("loras", loras)?;
        let session = object::<Session>(session)?;
        check_at_most("LoRAs in a stack", entry_count as u64, MOST_LORAS)?;
        let entries = caller.slice("entries", entries, entry_count)?;
        place.put(table::insert(Loras::new(caller, &session, entries, options)?));
        Ok(())
    })
}

/// Lists what became of each file on each model that the stack was used with and whose handle is open: a list of
/// `luna_lora_file`. Also where a call refused the stack.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_loras_list_files(loras: luna_loras, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        place.put(list_files(&object::<Loras>(loras)?.fates()));
        Ok(())
    })
}

/// Lists what became of each adapter, as `luna_loras_list_files` does of files: a list of `luna_lora_adapter`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_loras_list_adapters(loras: luna_loras, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        place.put(list_adapters(&object::<Loras>(loras)?.fates()));
        Ok(())
    })
}

/// Frees a stack, and the copies of layers that were merged for it. Calls that run keep what they need.
#[unsafe(no_mangle)]
pub extern "C" fn luna_loras_free(loras: luna_loras) -> luna_status {
    free::<Loras>(loras)
}

/// Lists the LoRAs in the session's `lora_folders`: a list of `luna_lora_name`, sorted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_loras(session: luna_session, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        let names = object::<Session>(session)?.here("a list of LoRAs")?.lora_folders.names();
        place.put(list::open(names.iter().map(|name| NameItem(c_string(name))).collect()));
        Ok(())
    })
}

/// One LoRA of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_lora_name(list: luna_list, index: usize, name: *mut luna_lora_name) -> luna_status {
    boundary(|caller| list::item::<NameItem>(caller, list, index, name))
}
