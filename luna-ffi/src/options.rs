//! What options and reports of several calls have in common. Enters: numbers of the header. Leaves: `luna-core`'s.

use crate::error::{Result, wrong};
use luna_core::{AttentionMode, PatchedRuns, Precision};
use std::time::Duration;

crate::handle::records!(luna_report);

/// The precision of activations. Sums are accumulated in f32 whatever it is.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_precision {
    /// 32-bit floats: the default.
    F32 = 0,
    /// bfloat16.
    Bf16 = 1,
    /// IEEE half.
    F16 = 2,
}

/// How attention is computed. All give the same within rounding.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_attention {
    /// As the model was loaded with; at load, `LUNA_ATTENTION_AUTO`.
    Default = 0,
    /// The fastest for the device.
    Auto = 1,
    /// Chunks of queries by chunks of keys with a running softmax.
    Flash = 2,
    /// Chunks of queries by all keys.
    Split = 3,
    /// The whole score matrix at once.
    Pytorch = 4,
}

/// Done in tiles, because memory would not have sufficed for one piece: a bit of `luna_report.fallbacks`.
pub const LUNA_FALLBACK_TILED: u32 = 1;

/// Done again in f32, because half precision gave NaN or infinity: a bit of `luna_report.fallbacks`.
pub const LUNA_FALLBACK_WIDENED: u32 = 2;

/// How a call was done. What does not concern it is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_report {
    /// `sizeof(luna_report)`, set by the caller.
    pub size: usize,
    /// What was done otherwise than asked for: `LUNA_FALLBACK_` bits.
    pub fallbacks: u32,
    /// The precision of the result: a `luna_precision`.
    pub precision: i32,
    /// How attention was computed: a `luna_attention`.
    pub attention: i32,
    /// Side of a tile in latent pixels; 0 for one piece.
    pub tile: u32,
    /// How far tiles overlap at least, in latent pixels.
    pub tile_overlap: u32,
    /// Tiles of each picture.
    pub tiles: u32,
    /// Prompts that were answered from the cache.
    pub cached: u32,
    /// Different sequences that text encoders read.
    pub sequences: u32,
    /// Values that were not finite in half precision.
    pub non_finite: u64,
    /// Bytes that one piece would have needed, where tiles were a fallback.
    pub memory_needed: u64,
    /// Bytes that there were, where tiles were a fallback.
    pub memory_available: u64,
    /// Bytes that were copied to bring the caller's arrays into the form that Luna takes; 0 for aligned, row-major f32.
    pub copied_bytes: u64,
    /// Time from call to result.
    pub nanoseconds: u64,
    /// Adapters of the call's LoRAs that were applied. `luna_loras_list_adapters` tells which.
    pub adapters_applied: u32,
    /// Adapters for this model that could not be applied.
    pub adapters_missed: u32,
    /// How the LoRAs were applied: a `luna_lora_mode`, functional or merged.
    pub lora_mode: i32,
    /// Why `LUNA_LORA_MODE_AUTO` did not merge: a `luna_not_merged`.
    pub not_merged: i32,
    /// Time that the call waited in a daemon's queue.
    pub queue_nanoseconds: u64,
    /// Whether the first-block cache answered for all blocks but the first: 0 or 1.
    pub cache_hit: u32,
    /// Its hits in a row, this one included.
    pub cache_hits: u32,
    /// Whether there was an earlier step to compare with, so that `cache_difference` counts: 0 or 1.
    pub cache_compared: u32,
    /// By how much the first block's addition differed from the last full step's: mean absolute difference over mean
    /// absolute value.
    pub cache_difference: f32,
    /// Layers that ran with the low-rank branch of LoRAs beside the frozen weight. These four are 0 for a daemon's models.
    pub layers_branch: u32,
    /// Layers that ran with a weight that was built just before and dropped just after.
    pub layers_built: u32,
    /// Layers that ran with a weight that was merged before the call.
    pub layers_merged: u32,
    /// Layers that ran with the frozen weight and another bias.
    pub layers_bias: u32,
}

impl luna_report {
    /// A report of which nothing is known yet.
    pub(crate) fn new(precision: Precision, elapsed: Duration) -> Self {
        Self {
            size: 0,
            fallbacks: 0,
            precision: precision_number(precision),
            attention: 0,
            tile: 0,
            tile_overlap: 0,
            tiles: 0,
            cached: 0,
            sequences: 0,
            non_finite: 0,
            memory_needed: 0,
            memory_available: 0,
            copied_bytes: 0,
            nanoseconds: elapsed.as_nanos().try_into().unwrap_or(u64::MAX),
            adapters_applied: 0,
            adapters_missed: 0,
            lora_mode: 0,
            not_merged: 0,
            queue_nanoseconds: 0,
            cache_hit: 0,
            cache_hits: 0,
            cache_compared: 0,
            cache_difference: 0.0,
            layers_branch: 0,
            layers_built: 0,
            layers_merged: 0,
            layers_bias: 0,
        }
    }

    /// Adds how layers ran that LoRAs change.
    pub(crate) fn ran(&mut self, runs: &PatchedRuns) {
        let [branch, built, merged, bias] = runs.counts().map(|count| count as u32);
        self.layers_branch += branch;
        self.layers_built += built;
        self.layers_merged += merged;
        self.layers_bias += bias;
    }

    /// Notes what the first-block cache did.
    pub(crate) fn cached_steps(&mut self, hit: bool, in_a_row: u32, difference: Option<f32>) {
        (self.cache_hit, self.cache_hits) = (hit.into(), in_a_row);
        self.cache_compared = difference.is_some().into();
        self.cache_difference = difference.unwrap_or_default();
    }
}

/// The precision of this number.
pub(crate) fn precision(number: i32) -> Result<Precision> {
    choose("precision", number, &[Precision::F32, Precision::Bf16, Precision::F16])
}

fn precision_number(precision: Precision) -> i32 {
    match precision {
        Precision::Bf16 => luna_precision::Bf16 as i32,
        Precision::F16 => luna_precision::F16 as i32,
        _ => luna_precision::F32 as i32,
    }
}

/// The way of computing attention of this number; none for the default.
pub(crate) fn attention(number: i32) -> Result<Option<AttentionMode>> {
    let [auto, flash, split, pytorch] = AttentionMode::ALL.map(Some);
    choose("way of computing attention", number, &[None, auto, flash, split, pytorch])
}

/// The number of a way of computing attention.
pub(crate) fn attention_number(mode: AttentionMode) -> i32 {
    AttentionMode::ALL.iter().position(|known| *known == mode).map_or(0, |index| index as i32 + 1)
}

/// The number of a way of computing attention that a daemon told of.
pub(crate) fn attention_of(name: &str) -> i32 {
    name.parse().map_or(0, attention_number)
}

/// The one of this number.
pub(crate) fn choose<T: Copy>(what: &str, number: i32, known: &[T]) -> Result<T> {
    let found = usize::try_from(number).ok().and_then(|number| known.get(number));
    found.copied().ok_or_else(|| {
        wrong(format!("there is no such {what}"))
            .expected(format!("0 to {}", known.len() - 1))
            .found(number.to_string())
            .into()
    })
}

/// Whether a number that stands for yes or no is yes.
pub(crate) const fn yes(number: u32) -> bool {
    number != 0
}
