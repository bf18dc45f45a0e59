//! What a vision-language model is asked, and how it is to answer. Enters: structs of the header. Leaves: conversations
//! with their pictures, or prepared prompts, and options as the library has them.

use crate::{
    call::Watch,
    daemon::{VlmAsked, VlmPictures},
    error::{Result, wrong},
    handle::Caller,
    options::{choose, precision, yes},
    picture::{image, images},
    types::{luna_call, luna_loras},
    view::{Floats, Meaning, floats, ids, luna_view},
};
use luna_core::{
    Limits,
    limits::check_at_most,
    tokenizer::{ChatMessage, MessagePart, Role},
    vision::PixelValues,
    vlm::{GenerateOptions, Patches, Question, Sampling},
};
use std::ffi::{c_char, c_void};

crate::handle::plain!(luna_message, luna_message_part);
crate::handle::records!(luna_question, luna_generate_options);

/// The most messages of a conversation, and parts of a message.
const MOST_TURNS: u64 = 4096;

/// Hears each token as it comes: its id, and the text that it completes, which may be empty and is valid while the
/// function runs. Called from one of Luna's threads; should return quickly, and must neither throw nor leave by
/// `longjmp`.
pub type luna_piece_function = Option<extern "C-unwind" fn(id: u32, text: *const c_char, user_data: *mut c_void)>;

/// Who speaks.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_role {
    /// The caller.
    User = 0,
    /// The model.
    Assistant = 1,
    /// Instructions that stand above the conversation.
    System = 2,
}

/// A part of a message: words, or pictures.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_message_part {
    /// Words; NULL for pictures.
    pub text: *const c_char,
    /// Pictures, `[batch, height, width, channels]` in 0..1, which stand here one after the other; NULL for words. Copied.
    pub image: *const luna_view,
}

/// One turn of a conversation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_message {
    /// Who speaks: a `luna_role`.
    pub role: i32,
    /// 0.
    pub reserved: u32,
    /// What is said and shown, in order.
    pub parts: *const luna_message_part,
    /// How many there are.
    pub part_count: usize,
}

/// What a vision-language model is asked: one of `prompt`, `messages` and `input_ids`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_question {
    /// `sizeof(luna_question)`.
    pub size: usize,
    /// What is asked, in a single turn; NULL for a conversation or a prepared prompt.
    pub prompt: *const c_char,
    /// Instructions that stand above the single turn; NULL for none.
    pub system: *const c_char,
    /// Pictures of the single turn, which stand before its words, each `[batch, height, width, channels]` in 0..1. Copied.
    pub images: *const *const luna_view,
    /// How many there are.
    pub image_count: usize,
    /// A conversation, which the model's own template writes out and the model goes on with as the assistant; NULL for none.
    pub messages: *const luna_message,
    /// How many turns it has.
    pub message_count: usize,
    /// A prepared prompt, as transformers' processors make it: `[ids]` or `[1, ids]` of 32- or 64-bit integers, with the
    /// picture's id for each token that a picture becomes; NULL for none.
    pub input_ids: *const luna_view,
    /// Its pictures: patches `[patches, length]` with `image_grid_thw`, or without it whole pictures `[pictures, 3, height,
    /// width]`, resized and normalised; NULL for none. Copied.
    pub pixel_values: *const luna_view,
    /// Patches of each picture, `[pictures, 3]` of integers: frames, rows, columns; NULL for none.
    pub image_grid_thw: *const luna_view,
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
    /// LoRAs for this call; all zero for none. Their strength is that for text encoders.
    pub loras: luna_loras,
}

/// What a question asks, and the bytes that were copied of its pictures.
pub(super) fn asked(caller: &Caller, question: &luna_question) -> Result<(VlmAsked, u64)> {
    let forms = [question.prompt.is_null(), question.messages.is_null(), question.input_ids.is_null()];
    let single = !question.system.is_null() || question.image_count != 0;
    let pixels = !question.pixel_values.is_null() || !question.image_grid_thw.is_null();
    match forms {
        [false, true, true] if !pixels => {
            let own = Question {
                prompt: caller.text("prompt", question.prompt)?.to_owned(),
                system: caller.optional_text("system", question.system)?.map(str::to_owned),
            };
            let (pictures, copied) = images(caller, question.images, question.image_count)?;
            Ok((VlmAsked::Question(own, pictures), copied))
        }
        [true, false, true] if !single && !pixels => conversation(caller, question),
        [true, true, false] if !single => prepared(caller, question),
        _ => Err(wrong("it is not clear what the model shall read")
            .expected(
                "`prompt` with `system` and `images`, or `messages`, or `input_ids` with `pixel_values` and \
                 `image_grid_thw`",
            )
            .into()),
    }
}

fn conversation(caller: &Caller, question: &luna_question) -> Result<(VlmAsked, u64)> {
    check_at_most("messages", question.message_count as u64, MOST_TURNS)?;
    let (mut pictures, mut copied) = (Vec::new(), 0);
    let mut turn = |message: &luna_message| -> Result<ChatMessage> {
        let role = choose("role", message.role, &[Role::User, Role::Assistant, Role::System])?;
        check_at_most("parts of a message", message.part_count as u64, MOST_TURNS)?;
        let mut parts = Vec::new();
        for part in caller.slice("parts", message.parts, message.part_count)? {
            match (caller.optional_text("text", part.text)?, part.image.is_null()) {
                (Some(text), true) => parts.push(MessagePart::Text(text.to_owned())),
                (None, false) => {
                    let (shown, bytes) = image(caller, "a message's image", part.image)?;
                    parts.extend(std::iter::repeat_n(MessagePart::Image, shown.batch()));
                    copied += bytes;
                    pictures.push(shown);
                    check_at_most("pictures", pictures.len() as u64, Limits::default().batch as u64)?;
                }
                _ => return Err(wrong("a part of a message is not clear").expected("`text` or `image`").into()),
            }
        }
        Ok(ChatMessage { role, parts })
    };
    let turns = caller.slice("messages", question.messages, question.message_count)?;
    let messages: Vec<_> = turns.iter().map(&mut turn).collect::<Result<_>>()?;
    if messages.is_empty() {
        return Err(wrong("the conversation has no messages").into());
    }
    Ok((VlmAsked::Chat(messages, pictures), copied))
}

fn prepared(caller: &Caller, question: &luna_question) -> Result<(VlmAsked, u64)> {
    let (shape, ids) = ids(caller, "input_ids", question.input_ids)?;
    if !matches!(shape[..], [_] | [1, _]) {
        let expected = "[ids] or [1, ids]";
        return Err(wrong("input_ids has a wrong shape").expected(expected).found(format!("{shape:?}")).into());
    }
    if question.pixel_values.is_null() {
        if !question.image_grid_thw.is_null() {
            return Err(wrong("there are grids, but no pictures").remedy("set `pixel_values`, too").into());
        }
        return Ok((VlmAsked::Prepared(ids, VlmPictures::Patches(Patches::none())), 0));
    }
    let Floats { shape, values, .. } = floats(caller, "pixel_values", question.pixel_values, Meaning::Numbers)?;
    let copied = values.len() as u64 * 4;
    let misshapen =
        |expected: &str| wrong("pixel_values has a wrong shape").expected(expected).found(format!("{shape:?}"));
    let pictures = if question.image_grid_thw.is_null() {
        let sides = <[usize; 4]>::try_from(&shape[..]);
        let sides = sides.map_err(|_| misshapen("[pictures, 3, height, width], or patches with `image_grid_thw`"))?;
        VlmPictures::Whole(PixelValues::new(sides, values.into_owned())?)
    } else {
        let &[_, length] = &shape[..] else { return Err(misshapen("[patches, length]").into()) };
        VlmPictures::Patches(Patches::new(grids(caller, question.image_grid_thw)?, length, values.into_owned())?)
    };
    Ok((VlmAsked::Prepared(ids, pictures), copied))
}

fn grids(caller: &Caller, view: *const luna_view) -> Result<Vec<[usize; 3]>> {
    let (shape, sides) = ids(caller, "image_grid_thw", view)?;
    let &[_, 3] = &shape[..] else {
        let expected = "[pictures, 3]";
        return Err(wrong("image_grid_thw has a wrong shape").expected(expected).found(format!("{shape:?}")).into());
    };
    Ok(sides.as_chunks().0.iter().map(|grid: &[u32; 3]| grid.map(|side| side as usize)).collect())
}

/// How the model is to answer.
pub(super) fn generate_options(
    caller: &Caller,
    options: &luna_generate_options,
    watch: &Watch,
) -> Result<GenerateOptions> {
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
