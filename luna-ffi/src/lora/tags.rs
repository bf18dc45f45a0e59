//! Tags of LoRAs in prompts. Enters: prompts. Leaves: what the tags say, as items of a list.

use super::Loras;
use crate::{
    handle::{boundary, c_string, object},
    list::{self, Item},
    status::luna_status,
    types::{luna_list, luna_loras},
};
use luna_core::tokenizer::{LoraTags, extract_lora_tags};
use std::{
    ffi::{CString, c_char},
    ptr,
};

crate::handle::records!(luna_lora_tag);

/// One `<lora:name:model:clip>` of a prompt.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_lora_tag {
    /// `sizeof(luna_lora_tag)`, set by the caller.
    pub size: usize,
    /// The number of the prompt that it stands in, from 0.
    pub prompt: u64,
    /// The LoRA's name as written; NULL for a tag that could not be read, which names none.
    pub name: *const c_char,
    /// Strength for the denoiser.
    pub model: f64,
    /// Strength for the text encoders.
    pub clip: f64,
    /// The tag that could not be read, as written; NULL for one that could.
    pub malformed: *const c_char,
}

/// What the tags of each prompt say, with the prompt's number; prompts without tags are left out.
pub(super) fn read(prompts: &[&str]) -> Vec<(usize, LoraTags)> {
    let found = prompts.iter().map(|prompt| extract_lora_tags(prompt)).enumerate();
    found.filter(|(_, found)| !found.tags.is_empty() || !found.malformed.is_empty()).collect()
}

struct TagItem {
    prompt: usize,
    /// Name and strengths, or the tag that could not be read.
    said: Result<(CString, [f64; 2]), CString>,
}

impl Item for TagItem {
    type Record = luna_lora_tag;

    fn record(&self) -> luna_lora_tag {
        let (name, [model, clip], malformed) = match &self.said {
            Ok((name, strengths)) => (name.as_ptr(), *strengths, ptr::null()),
            Err(malformed) => (ptr::null(), [0.0; 2], malformed.as_ptr()),
        };
        luna_lora_tag { size: 0, prompt: self.prompt as u64, name, model, clip, malformed }
    }
}

fn items((prompt, found): &(usize, LoraTags)) -> Vec<TagItem> {
    let item = |said| TagItem { prompt: *prompt, said };
    let tags = found.tags.iter().map(|tag| item(Ok((c_string(&tag.name), [tag.model, tag.clip]))));
    tags.chain(found.malformed.iter().map(|tag| item(Err(c_string(tag))))).collect()
}

/// Lists the tags in the prompts that a stack was made with: a list of `luna_lora_tag`, prompt by prompt, those that could
/// not be read behind those that could.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_loras_list_tags(loras: luna_loras, list: *mut luna_list) -> luna_status {
    boundary(|caller| {
        let place = caller.output("list", list)?;
        place.put(list::open(object::<Loras>(loras)?.tags.iter().flat_map(items).collect()));
        Ok(())
    })
}

/// One tag of such a list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_lora_tag(list: luna_list, index: usize, tag: *mut luna_lora_tag) -> luna_status {
    boundary(|caller| list::item::<TagItem>(caller, list, index, tag))
}
