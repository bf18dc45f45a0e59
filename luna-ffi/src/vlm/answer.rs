//! What a vision-language model answered. Enters: what was generated, here or there. Leaves: the one item of a list.

use crate::{
    handle::{boundary, c_string},
    list::{self, Item},
    status::luna_status,
    types::luna_list,
};
use luna_core::{
    protocol::VlmGenerated,
    vlm::{FinishReason, Generated},
};
use std::{
    ffi::{CString, c_char},
    ptr,
    time::Duration,
};

crate::handle::records!(luna_generated);

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

/// An answer with its texts.
pub(super) struct GeneratedItem {
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
    /// Of a model in this process.
    pub(super) fn here(generated: Generated) -> Self {
        Self {
            text: c_string(generated.text.as_deref().unwrap_or_default()),
            counts: [generated.prompt_tokens as u64, generated.picture_tokens as u64, generated.cache_bytes],
            finish: finish(generated.finish.name()),
            times: [generated.timings.prompt, generated.timings.tokens],
            ids: generated.ids,
        }
    }

    /// Of a daemon's.
    pub(super) fn there(generated: VlmGenerated) -> Self {
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

/// The answer in such a list, at index 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_list_generated(
    list: luna_list,
    index: usize,
    generated: *mut luna_generated,
) -> luna_status {
    boundary(|caller| list::item::<GeneratedItem>(caller, list, index, generated))
}
