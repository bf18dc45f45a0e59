//! What became of LoRAs on a model. Enters: the library's report. Leaves: items of lists, one for each file and one for
//! each adapter.

use crate::{
    handle::{Texts, boundary, c_string},
    list::{self, Item},
    status::luna_status,
    types::luna_list,
};
use luna_core::{
    lora::{ApplyMode, Coverage, NotMerged},
    protocol::LoraOutcome,
};
use std::{
    ffi::{CString, c_char},
    ptr,
    sync::Arc,
};

crate::handle::records!(luna_lora_file, luna_lora_adapter);

/// How LoRAs are applied. The results are the same but for rounding.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_lora_mode {
    /// With each call, layer by layer; nothing is kept and nobody waits.
    Functional = 0,
    /// Merged with a copy of the patched layers by the first call. The copy is kept until the stack is freed; meanwhile
    /// another stack's call in this mode is `LUNA_STATUS_BUSY` on the same model.
    Merged = 1,
    /// Merged if so many calls will follow that it pays, there is room, and nobody has to wait; else functional.
    Auto = 2,
}

/// Why `LUNA_LORA_MODE_AUTO` did not merge.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_not_merged {
    /// It did, or was not asked to.
    None = 0,
    /// Too few calls will follow, or it was not said how many.
    FewForwards = 1,
    /// The copy would be larger than the session's `merged_bytes`.
    NoRoom = 2,
    /// Another stack's copy of this model is in use.
    InUse = 3,
}

/// What became of one adapter of a LoRA file.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_lora_outcome {
    /// It found its layers.
    Applied = 0,
    /// It is for this model, and there is no such layer.
    Unmatched = 1,
    /// Its sizes do not fit its layer.
    WrongShape = 2,
    /// Luna cannot apply it.
    Unsupported = 3,
}

/// What became of one file of a stack on one model.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_lora_file {
    /// `sizeof(luna_lora_file)`, set by the caller.
    pub size: usize,
    /// The file's name.
    pub name: *const c_char,
    /// The model: a denoiser's architecture, such as `Stable Diffusion UNet`, text encoders, such as `clip_l`, or the
    /// family of a vision-language model, such as `qwen3_vl`.
    pub model: *const c_char,
    /// What its names and shapes look made for; NULL where they do not tell.
    pub made_for: *const c_char,
    /// Which entry of the stack it is, from 0.
    pub entry: u64,
    /// The strength it was asked for.
    pub strength: f64,
    /// Adapters that found their layers.
    pub applied: u64,
    /// Adapters for this model that found no layer.
    pub unmatched: u64,
    /// Adapters whose sizes do not fit their layer.
    pub wrong_shape: u64,
    /// Adapters and tensors that Luna cannot apply.
    pub unsupported: u64,
    /// Adapters for another component of the pipeline, such as text encoders when this is a denoiser.
    pub elsewhere: u64,
    /// How they are applied: a `luna_lora_mode`, functional or merged.
    pub mode: i32,
    /// A `luna_not_merged`.
    pub not_merged: i32,
}

/// What became of one adapter of a stack on one model. A text that there is nothing to say for is NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_lora_adapter {
    /// `sizeof(luna_lora_adapter)`, set by the caller.
    pub size: usize,
    /// The file's name.
    pub file: *const c_char,
    /// The model, as in `luna_lora_file`.
    pub model: *const c_char,
    /// Which entry of the stack the file is, from 0.
    pub entry: u64,
    /// A `luna_lora_outcome`.
    pub outcome: i32,
    /// 0.
    pub reserved: u32,
    /// Its name in the file.
    pub key: *const c_char,
    /// Applied: which kind it is, such as `lora` or `loha`.
    pub kind: *const c_char,
    /// Applied: the layers that it changes. Wrong shape: the layer.
    pub targets: *const *const c_char,
    /// How many there are.
    pub target_count: usize,
    /// Unmatched: the layer whose name is nearest.
    pub nearest: *const c_char,
    /// Wrong shape: the shape of the layer's weight.
    pub expected: *const c_char,
    /// Wrong shape: the shape that the adapter comes to.
    pub found: *const c_char,
    /// Unsupported: what it is.
    pub what: *const c_char,
}

/// What became of a stack on one model.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    pub(crate) model: String,
    pub(crate) coverage: Coverage,
    pub(crate) mode: ApplyMode,
    pub(crate) not_merged: Option<NotMerged>,
}

impl Fate {
    pub(crate) fn new(model: &str, coverage: Coverage) -> Self {
        Self { model: model.to_owned(), coverage, mode: ApplyMode::Functional, not_merged: None }
    }

    /// Notes how a part of the model was prepared: merged if any was, and why one was not.
    pub(crate) fn merging(&mut self, mode: ApplyMode, not_merged: Option<NotMerged>) {
        if mode == ApplyMode::Merged {
            self.mode = mode;
        }
        self.not_merged = self.not_merged.or(not_merged);
    }

    /// What a daemon told of a model.
    pub(crate) fn told(model: &str, outcome: LoraOutcome) -> Self {
        let mut fate = Self::new(model, outcome.coverage);
        fate.merging(mode_of(&outcome.mode), outcome.not_merged.as_deref().and_then(not_merged_of));
        fate
    }

    /// Adapters for this model that were not applied.
    pub(crate) fn missed(&self) -> usize {
        let missed = |file: &luna_core::lora::FileCoverage| {
            file.unmatched.len() + file.wrong_shape.len() + file.unsupported.len()
        };
        self.coverage.files.iter().map(missed).sum()
    }
}

/// A mode by the name that the wire has.
fn mode_of(name: &str) -> ApplyMode {
    if name == "merged" { ApplyMode::Merged } else { ApplyMode::Functional }
}

/// Why stacks are not merged, by the name that the wire has.
fn not_merged_of(name: &str) -> Option<NotMerged> {
    match name {
        "no_room" => Some(NotMerged::NoRoom),
        "in_use" => Some(NotMerged::InUse),
        _ => Some(NotMerged::FewForwards),
    }
}

/// A mode by the name that the wire has.
pub(crate) const fn mode_name(mode: ApplyMode) -> &'static str {
    match mode {
        ApplyMode::Merged => "merged",
        ApplyMode::Auto { .. } => "auto",
        _ => "functional",
    }
}

pub(crate) const fn mode_number(mode: ApplyMode) -> i32 {
    match mode {
        ApplyMode::Merged => luna_lora_mode::Merged as i32,
        ApplyMode::Auto { .. } => luna_lora_mode::Auto as i32,
        _ => luna_lora_mode::Functional as i32,
    }
}

pub(crate) const fn not_merged_number(why: Option<NotMerged>) -> i32 {
    match why {
        None => luna_not_merged::None as i32,
        Some(NotMerged::NoRoom) => luna_not_merged::NoRoom as i32,
        Some(NotMerged::InUse) => luna_not_merged::InUse as i32,
        Some(_) => luna_not_merged::FewForwards as i32,
    }
}

struct FileItem {
    name: CString,
    model: CString,
    made_for: Option<CString>,
    strength: f64,
    counts: [u64; 6],
    mode: [i32; 2],
}

impl Item for FileItem {
    type Record = luna_lora_file;

    fn record(&self) -> luna_lora_file {
        let [entry, applied, unmatched, wrong_shape, unsupported, elsewhere] = self.counts;
        let [mode, not_merged] = self.mode;
        luna_lora_file {
            size: 0,
            name: self.name.as_ptr(),
            model: self.model.as_ptr(),
            made_for: pointer(&self.made_for),
            entry,
            strength: self.strength,
            applied,
            unmatched,
            wrong_shape,
            unsupported,
            elsewhere,
            mode,
            not_merged,
        }
    }
}

/// Whose adapter it is.
#[derive(Clone)]
struct Owner {
    file: Arc<CString>,
    model: Arc<CString>,
    entry: u64,
}

struct AdapterItem {
    owner: Owner,
    outcome: luna_lora_outcome,
    key: CString,
    targets: Texts,
    kind: Option<CString>,
    nearest: Option<CString>,
    expected: Option<CString>,
    found: Option<CString>,
    what: Option<CString>,
}

impl AdapterItem {
    fn new(owner: &Owner, outcome: luna_lora_outcome, key: &str, targets: &[String]) -> Self {
        Self {
            owner: owner.clone(),
            outcome,
            key: c_string(key),
            targets: Texts::new(targets.iter().map(|target| c_string(target)).collect()),
            kind: None,
            nearest: None,
            expected: None,
            found: None,
            what: None,
        }
    }
}

impl Item for AdapterItem {
    type Record = luna_lora_adapter;

    fn record(&self) -> luna_lora_adapter {
        luna_lora_adapter {
            size: 0,
            file: self.owner.file.as_ptr(),
            model: self.owner.model.as_ptr(),
            entry: self.owner.entry,
            outcome: self.outcome as i32,
            reserved: 0,
            key: self.key.as_ptr(),
            kind: pointer(&self.kind),
            targets: self.targets.as_ptr(),
            target_count: self.targets.len(),
            nearest: pointer(&self.nearest),
            expected: pointer(&self.expected),
            found: pointer(&self.found),
            what: pointer(&self.what),
        }
    }
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// A list of every file's fate.
pub(crate) fn list_files(fates: &[Arc<[Fate]>]) -> luna_list {
    let items = fates.iter().flat_map(|fates| fates.iter()).flat_map(|fate| {
        fate.coverage.files.iter().enumerate().map(|(entry, file)| FileItem {
            name: c_string(&file.name),
            model: c_string(&fate.model),
            made_for: file.made_for.as_deref().map(c_string),
            strength: file.strength,
            counts: [
                entry,
                file.applied.len(),
                file.unmatched.len(),
                file.wrong_shape.len(),
                file.unsupported.len(),
                file.elsewhere,
            ]
            .map(|count| count as u64),
            mode: [mode_number(fate.mode), not_merged_number(fate.not_merged)],
        })
    });
    list::open(items.collect())
}

/// A list of every adapter's fate.
pub(crate) fn list_adapters(fates: &[Arc<[Fate]>]) -> luna_list {
    let mut items = Vec::new();
    for fate in fates.iter().flat_map(|fates| fates.iter()) {
        let model = Arc::new(c_string(&fate.model));
        for (entry, file) in fate.coverage.files.iter().enumerate() {
            let owner = Owner { file: Arc::new(c_string(&file.name)), model: model.clone(), entry: entry as u64 };
            items.extend(adapters(&owner, file));
        }
    }
    list::open(items)
}

fn adapters(owner: &Owner, file: &luna_core::lora::FileCoverage) -> Vec<AdapterItem> {
    use luna_lora_outcome::{Applied, Unmatched, Unsupported, WrongShape};
    let applied = file.applied.iter().map(|one| AdapterItem {
        kind: Some(c_string(&one.kind)),
        ..AdapterItem::new(owner, Applied, &one.key, &one.targets)
    });
    let unmatched = file.unmatched.iter().map(|one| AdapterItem {
        nearest: one.nearest.as_deref().map(c_string),
        ..AdapterItem::new(owner, Unmatched, &one.key, &[])
    });
    let wrong_shape = file.wrong_shape.iter().map(|one| AdapterItem {
        expected: Some(c_string(&one.expected)),
        found: Some(c_string(&one.found)),
        ..AdapterItem::new(owner, WrongShape, &one.key, std::slice::from_ref(&one.target))
    });
    let unsupported = file.unsupported.iter().map(|one| AdapterItem {
        what: Some(c_string(&one.what)),
        ..AdapterItem::new(owner, Unsupported, &one.key, &[])
    });
    applied.chain(unmatched).chain(wrong_shape).chain(unsupported).collect()
}

/// One file of a list that `luna_loras_list_files` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_lora_file(list: luna_list, index: usize, file: *mut luna_lora_file) -> luna_status {
    boundary(|caller| list::item::<FileItem>(caller, list, index, file))
}

/// One adapter of a list that `luna_loras_list_adapters` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_lora_adapter(
    list: luna_list,
    index: usize,
    adapter: *mut luna_lora_adapter,
) -> luna_status {
    boundary(|caller| list::item::<AdapterItem>(caller, list, index, adapter))
}
