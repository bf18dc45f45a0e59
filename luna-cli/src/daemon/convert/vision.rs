//! Vision encoders and vision-language models: pictures, options and reports.

use super::{Defaults, notice, precision};
use luna_core::{
    Call, Error, ErrorKind, Image, Patches as Added, Result,
    protocol::{
        ChatContent, ChatTurn, LoraOutcome, Message, Notice, SamplingWish, VisionModelInfo, VlmGenerate, VlmGenerated,
        VlmModelInfo,
    },
    tokenizer::{ChatMessage, MessagePart, Role},
    vision::{self, PixelValues, Region, VisionModel},
    vlm::{self, GenerateOptions, Generated, Patches, Question, Sampling, VlmModel},
};
use std::sync::Arc;

const PIXEL_VALUES: &str = "pixel_values";

/// The pictures of a request.
pub enum Pictures {
    Images(Vec<Image>),
    /// Preprocessed already.
    Prepared(PixelValues),
}

/// `image_0`, `image_1` and so on.
pub fn pictures(message: &Message) -> Result<Vec<Image>> {
    let images = (0..message.tensors().len()).map(|index| {
        let tensor = message.tensor(&format!("image_{index}"))?;
        Image::new(tensor.sides("[batch, height, width, channels]")?, tensor.values()?)
    });
    images.collect()
}

/// Pictures, or pixel values alone.
pub fn pixel_values(message: &Message) -> Result<Pictures> {
    if !has_pixel_values(message) {
        return Ok(Pictures::Images(pictures(message)?));
    }
    if message.tensors().len() > 1 {
        return Err(Error::new(ErrorKind::InvalidInput, "`pixel_values` go in alone"));
    }
    Ok(Pictures::Prepared(whole(message)?))
}

pub fn has_pixel_values(message: &Message) -> bool {
    message.tensors().any(|tensor| tensor.name() == PIXEL_VALUES)
}

fn whole(message: &Message) -> Result<PixelValues> {
    let tensor = message.tensor(PIXEL_VALUES)?;
    PixelValues::new(tensor.sides("[batch, 3, height, width]")?, tensor.values()?)
}

/// The pictures of a prepared prompt.
pub fn patches(request: &VlmGenerate, message: &Message, model: &VlmModel) -> Result<Patches> {
    if !has_pixel_values(message) {
        return Ok(Patches::none());
    }
    if request.grids.is_empty() {
        return model.cut(&whole(message)?);
    }
    let tensor = message.tensor(PIXEL_VALUES)?;
    let [_, length] = tensor.sides("[patches, length]")?;
    Patches::new(request.grids.clone(), length, tensor.values()?)
}

pub fn region([top, left, height, width]: [usize; 4]) -> Region {
    Region { top, left, height, width }
}

/// The conversation of a request, `pictures` of which it is given: its messages, or the one turn of its prompt.
pub fn conversation(request: &VlmGenerate, pictures: usize) -> Result<Vec<ChatMessage>> {
    match &request.prompt {
        Some(prompt) => {
            let question = Question { system: request.system.clone(), prompt: prompt.clone() };
            Ok(question.messages(pictures))
        }
        None => request.messages.iter().map(turn).collect(),
    }
}

fn turn(turn: &ChatTurn) -> Result<ChatMessage> {
    let role = Role::ALL.into_iter().find(|role| role.name() == turn.role).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "there is no such role")
            .expected(Role::ALL.map(Role::name).join(", "))
            .found(format!("`{}`", turn.role))
    })?;
    let part = |part: &ChatContent| match part {
        ChatContent::Text { text } => MessagePart::Text(text.clone()),
        ChatContent::Image {} => MessagePart::Image,
    };
    Ok(ChatMessage { role, parts: turn.content.iter().map(part).collect() })
}

/// `lora` is what the request's stack adds.
pub fn generate_options(
    request: &VlmGenerate,
    defaults: &Defaults,
    lora: Option<Arc<Added>>,
    call: Call,
) -> Result<GenerateOptions> {
    let usual = GenerateOptions::default();
    let SamplingWish { temperature, top_k, top_p, min_p, repetition_penalty, seed } =
        request.sampling.unwrap_or_default();
    Ok(GenerateOptions {
        max_tokens: request.max_tokens.unwrap_or(usual.max_tokens),
        sampling: Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed },
        stop: request.stop.clone(),
        stop_at_end: !request.past_the_end,
        precision: precision(request.precision.as_deref(), defaults)?,
        lora,
        call,
    })
}

pub fn vision_info(name: &str, model: &VisionModel) -> VisionModelInfo {
    let info = model.info();
    VisionModelInfo {
        name: name.to_owned(),
        kind: info.kind.name().to_owned(),
        image_size: info.image_size,
        patch_size: info.patch_size,
        layers: info.layers,
        channels: info.channels,
    }
}

pub fn vision_notices(fallbacks: &[vision::Fallback]) -> Vec<Notice> {
    fallbacks.iter().map(|fallback| notice(fallback.name(), fallback)).collect()
}

pub fn vlm_notices(fallbacks: &[vlm::Fallback]) -> Vec<Notice> {
    fallbacks.iter().map(|fallback| notice(fallback.name(), fallback)).collect()
}

pub fn vlm_generated(name: &str, model: &VlmModel, generated: Generated, loras: Option<LoraOutcome>) -> VlmGenerated {
    VlmGenerated {
        model: VlmModelInfo { name: name.to_owned(), family: model.info().family.name().to_owned() },
        loras,
        prompt_tokens: generated.prompt_tokens,
        picture_tokens: generated.picture_tokens,
        finish: generated.finish.name().to_owned(),
        precision: generated.precision.name().to_owned(),
        prompt_seconds: generated.timings.prompt.as_secs_f64(),
        generation_seconds: generated.timings.tokens.as_secs_f64(),
        cache_bytes: generated.cache_bytes,
        text: generated.text,
        ids: generated.ids,
    }
}
