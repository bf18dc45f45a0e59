//! What text encoders are loaded and called with. Enters: structs of the header. Leaves: prompts, token ids and options as
//! the library has them.

use crate::{
    call::Watch,
    daemon::Reading,
    error::{Result, wrong},
    handle::{Caller, is_none},
    options::{attention, choose, precision, yes},
    types::{luna_call, luna_list, luna_loras, luna_tensor},
    view::{flags, ids, luna_view},
};
use luna_core::{
    Limits,
    limits::check_at_most,
    text::{ClipActivation, EncoderKind, Prompt, Recipe, TextOptions, TokenIds},
    tokenizer::{LoraTag, PromptOptions},
};
use std::{ffi::c_char, num::NonZeroUsize, path::Path};

crate::handle::plain!(luna_conditioning);
crate::handle::records!(luna_text_load_options, luna_encoder_info, luna_text_options, luna_cache_usage);

/// Options of `luna_text_load`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_text_load_options {
    /// `sizeof(luna_text_load_options)`.
    pub size: usize,
    /// What the conditioning is for: `sd1`, `sd2`, `sdxl`, `sdxl_refiner`, `sd3`, `flux`, `t5` or `z_image`. NULL for
    /// the diffusion model that listens to just these encoders.
    pub recipe: *const c_char,
    /// Folders that `embedding:name` in a prompt is looked up in.
    pub embedding_folders: *const *const c_char,
    /// How many there are.
    pub embedding_folder_count: usize,
    /// Bytes of conditioning to remember, so that a prompt is encoded once; 0 for none.
    pub cache_bytes: u64,
    /// For each path the `tokenizer.json` of a T5 or Qwen3, NULL for the one beside the weights; NULL for none at all.
    pub tokenizers: *const *const c_char,
    /// For each path the only text encoder that is wanted of it, and which CLIP a file of no known size holds: `clip_l`,
    /// `clip_g`, `clip_h`, `t5` or `qwen3`, NULL for what the file tells; NULL for none at all.
    pub encoders: *const *const c_char,
    /// For each path the activation of a CLIP, a `luna_clip_activation`; NULL for what the files tell.
    pub activations: *const i32,
}

/// The activation between the two layers of a CLIP's feed-forward blocks.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_clip_activation {
    /// What `config.json` states, else what its kind has.
    ByFile = 0,
    /// `x * sigmoid(1.702 x)`: OpenAI's models.
    QuickGelu = 1,
    /// The exact GELU: OpenCLIP's models.
    Gelu = 2,
}

/// What is known of one text encoder.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_encoder_info {
    /// `sizeof(luna_encoder_info)`, set by the caller.
    pub size: usize,
    /// Which one it is: `clip_l`, `clip_g`, `clip_h`, `t5` or `qwen3`.
    pub kind: *const c_char,
    /// Number of layers.
    pub layers: u64,
    /// Length of a token's encoding.
    pub channels: u64,
    /// Number of token embeddings.
    pub vocabulary: u64,
}

/// Options of `luna_text_encode` and `luna_text_tokenize`. All zeros but `size` is a good choice.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_text_options {
    /// `sizeof(luna_text_options)`.
    pub size: usize,
    /// A `luna_precision`.
    pub precision: i32,
    /// Which layer is taken: 1 the last, 2 the one before; 0 for what the diffusion model was taught with.
    pub clip_skip: u32,
    /// Whether the word `BREAK` ends the chunk, as in A1111: 0 or 1.
    pub break_chunks: u32,
    /// Whether `[text]` weighs 1.1 times less, as in A1111: 0 or 1.
    pub square_brackets: u32,
    /// Whether T5 may not look at its padding: 0 or 1.
    pub t5_mask: u32,
    /// The least number of tokens T5 is padded to; 0 for what the recipe has.
    pub t5_tokens: u32,
    /// Cancellation, progress and log; all zero for none.
    pub call: luna_call,
    /// LoRAs for this call; all zero for none. Tokens are the same with and without.
    pub loras: luna_loras,
    /// A `luna_attention`.
    pub attention: i32,
    /// 0.
    pub reserved: u32,
    /// Whether `<lora:name:model:clip>` tags are taken out of the prompts, and of the lists below, before they are read: 0
    /// or 1. `loras` is then the stack that `luna_loras_new` made of these prompts; to encode tags without a stack is
    /// `LUNA_STATUS_INVALID_INPUT`.
    pub lora_tags: u32,
    /// 0.
    pub reserved2: u32,
    /// For each prompt what CLIP-L reads in its place, NULL for the prompt itself; NULL for none at all. As ComfyUI's nodes
    /// with several fields have it: for SDXL the one with fewer chunks gets empty ones.
    pub clip_l_prompts: *const *const c_char,
    /// The same for CLIP-G.
    pub clip_g_prompts: *const *const c_char,
    /// The same for T5.
    pub t5_prompts: *const *const c_char,
    /// For `luna_text_encode_ids` of a T5 or Qwen3 which ids count, of the same shape: bytes, 0 or 1, or integers. NULL for
    /// all up to the end token.
    pub attention_mask: *const luna_view,
}

/// An encoded prompt. Freed by `luna_conditioning_free`. What it does not have is all zero.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_conditioning {
    /// The encoded tokens, `[1, tokens, channels]`.
    pub tokens: luna_tensor,
    /// The pooled output, `[1, width]`, where the recipe has one.
    pub pooled: luna_tensor,
    /// Which tokens a denoiser may look at, `[1, tokens]`, where that is not all of them.
    pub mask: luna_tensor,
    /// Textual inversions that were left out: a list of `luna_problem`, where there are any.
    pub problems: luna_list,
}

/// How text encoders' cache of conditionings is used. All zero without one.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_cache_usage {
    /// `sizeof(luna_cache_usage)`, set by the caller.
    pub size: usize,
    /// Conditionings held.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// How often a conditioning was there.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
}

/// What is to be encoded.
pub(super) enum Wanted {
    Prompts(Vec<Prompt>),
    Ids(Vec<TokenIds>),
}

/// How each of so many files is to be read.
pub(super) fn readings<'a>(
    caller: &'a Caller,
    count: usize,
    options: &luna_text_load_options,
) -> Result<Vec<Reading<'a>>> {
    let tokenizers = caller.optional_texts("tokenizers", options.tokenizers, count)?;
    let encoders = caller.optional_texts("encoders", options.encoders, count)?;
    let activations = match options.activations.is_null() {
        true => vec![0; count],
        false => caller.slice("activations", options.activations, count)?.to_vec(),
    };
    let known = [None, Some(ClipActivation::QuickGelu), Some(ClipActivation::Gelu)];
    let reading = |index: usize| {
        Ok(Reading {
            encoder: encoders[index].map(str::parse).transpose()?,
            tokenizer: tokenizers[index].map(Path::new),
            activation: choose("activation", activations[index], &known)?,
        })
    };
    (0..count).map(reading).collect()
}

/// A recipe by its name.
pub(super) fn recipe_of(name: &str) -> Result<Recipe> {
    Recipe::ALL.into_iter().find(|recipe| recipe.name() == name).ok_or_else(|| {
        let names: Vec<_> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
        wrong("there is no such recipe").expected(names.join(", ")).found(format!("`{name}`")).into()
    })
}

/// What every call says, as the library has it.
pub(super) fn text_options(options: &luna_text_options, watch: &Watch) -> Result<TextOptions> {
    Ok(TextOptions {
        precision: precision(options.precision)?,
        clip_skip: NonZeroUsize::new(options.clip_skip as usize),
        syntax: PromptOptions {
            break_chunks: yes(options.break_chunks),
            square_brackets: yes(options.square_brackets),
        },
        t5_mask: yes(options.t5_mask),
        t5_tokens: NonZeroUsize::new(options.t5_tokens as usize),
        attention: attention(options.attention)?.unwrap_or_default(),
        call: watch.call.clone(),
        ..TextOptions::default()
    })
}

/// Prompts with what belongs to each, and the tags of LoRAs that were taken out of them, where that was asked for.
pub(super) fn prompts(
    caller: &Caller,
    texts: &[&str],
    options: &luna_text_options,
) -> Result<(Vec<Prompt>, Vec<LoraTag>)> {
    let mut prompts: Vec<Prompt> = texts.iter().map(|text| Prompt::new(*text)).collect();
    let others = [
        (EncoderKind::ClipL, "clip_l_prompts", options.clip_l_prompts),
        (EncoderKind::ClipG, "clip_g_prompts", options.clip_g_prompts),
        (EncoderKind::T5, "t5_prompts", options.t5_prompts),
    ];
    for (kind, what, own) in others {
        for (prompt, other) in prompts.iter_mut().zip(caller.optional_texts(what, own, texts.len())?) {
            prompt.others.extend(other.map(|text| (kind, text.to_owned())));
        }
    }
    let mut tags = Vec::new();
    if yes(options.lora_tags) {
        tags.extend(prompts.iter_mut().flat_map(|prompt| prompt.take_lora_tags().tags));
    }
    Ok((prompts, tags))
}

/// Tags that no stack stands for would be lost in silence.
pub(super) fn check_stack(tags: &[LoraTag], options: &luna_text_options) -> Result<()> {
    let Some(tag) = tags.first().filter(|_| is_none(options.loras)) else { return Ok(()) };
    Err(wrong("the prompts name LoRAs, but there is no stack of them")
        .found(format!("a tag of `{}`", tag.name))
        .remedy("make `loras` by luna_loras_new, with these prompts in its options")
        .into())
}

/// Rows of token ids, `[tokens]` or `[rows, tokens]`, with the mask that the options have.
pub(super) fn rows(caller: &Caller, token_ids: *const luna_view, options: &luna_text_options) -> Result<Vec<TokenIds>> {
    let (shape, ids) = ids(caller, "token_ids", token_ids)?;
    let (1 | 2) = shape.len() else {
        let expected = "[tokens] or [rows, tokens]";
        return Err(wrong("token_ids has a wrong shape").expected(expected).found(format!("{shape:?}")).into());
    };
    let (count, tokens) = (if shape.len() == 2 { shape[0] } else { 1 }, shape[shape.len() - 1]);
    check_at_most("rows of token ids", count as u64, Limits::default().batch as u64)?;
    let mask = if options.attention_mask.is_null() { None } else { Some(mask(caller, &shape, options)?) };
    let row = |index: usize| {
        let row = index * tokens..(index + 1) * tokens;
        TokenIds { ids: ids[row.clone()].to_vec(), mask: mask.as_ref().map(|mask| mask[row].to_vec()) }
    };
    Ok((0..count).map(row).collect())
}

fn mask(caller: &Caller, expected: &[usize], options: &luna_text_options) -> Result<Vec<bool>> {
    let (shape, mask) = flags(caller, "attention_mask", options.attention_mask)?;
    if shape == expected {
        return Ok(mask);
    }
    Err(wrong("the attention mask does not fit the token ids")
        .expected(format!("{expected:?}"))
        .found(format!("{shape:?}"))
        .into())
}
