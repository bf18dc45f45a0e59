//! Pictures by a daemon's vision encoders and vision-language models.

use super::{Answer, CallOptions, Client};
use crate::{
    Image, Result,
    protocol::{
        ChatContent, ChatTurn, EncodeVision, Event, EventKind, Message, TensorRef, VisionEncoded, VlmGenerate,
        VlmGenerated,
    },
    tokenizer::{ChatMessage, MessagePart},
    vision::{Features, PixelValues},
    vlm::{Patches, Piece},
};
use std::sync::Mutex;

/// Pictures of a request, each `[batch, height, width, channels]`.
pub(super) struct Pictures {
    names: Vec<String>,
    shapes: Vec<[usize; 4]>,
}

impl Pictures {
    pub(super) fn new(images: &[&Image]) -> Self {
        Self {
            names: (0..images.len()).map(|index| format!("image_{index}")).collect(),
            shapes: images.iter().map(|image| image.shape()).collect(),
        }
    }

    pub(super) fn tensors<'a>(&'a self, images: &[&'a Image]) -> Vec<TensorRef<'a>> {
        let each = self.names.iter().zip(&self.shapes).zip(images);
        each.map(|((name, shape), image)| TensorRef::f32(name, shape, image.data())).collect()
    }
}

/// What a vision encoder gives, as far as it was asked for; as [`crate::vision::Encoded`] has it.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct VisionFeatures {
    /// `[batch, tokens, channels]`.
    pub last_hidden_state: Option<Features>,
    /// `[batch, tokens, channels]`.
    pub penultimate: Option<Features>,
    /// `[batch, channels]`.
    pub pooler_output: Option<Features>,
    /// `[batch, embedding]`.
    pub image_embeds: Option<Features>,
}

impl Client {
    /// Encodes pictures as [`crate::vision::VisionModel::encode`] does.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::vision::VisionModel::encode`].
    pub fn encode_vision(
        &self,
        images: &[&Image],
        request: &EncodeVision,
        options: &CallOptions,
    ) -> Result<(VisionFeatures, Answer<VisionEncoded>)> {
        let pictures = Pictures::new(images);
        let answer = self.call_with(request, &pictures.tensors(images), options)?;
        Ok((features(&answer.message)?, answer))
    }

    /// Encodes pixel values that were prepared already.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::vision::VisionModel::encode_pixels`].
    pub fn encode_pixel_values(
        &self,
        pixels: &PixelValues,
        request: &EncodeVision,
        options: &CallOptions,
    ) -> Result<(VisionFeatures, Answer<VisionEncoded>)> {
        let shape = pixels.shape();
        let answer = self.call_with(request, &[TensorRef::f32("pixel_values", &shape, pixels.data())], options)?;
        Ok((features(&answer.message)?, answer))
    }

    /// Generates text from pictures and a prompt, and tells `listener` each piece as it comes, where
    /// [`VlmGenerate::stream`] asks for that. A token of `options` cancels between two tokens.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::vlm::VlmModel::describe`].
    pub fn vlm_generate(
        &self,
        images: &[&Image],
        request: &VlmGenerate,
        options: &CallOptions,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer<VlmGenerated>> {
        let pictures = Pictures::new(images);
        self.generate(request, &pictures.tensors(images), options, listener)
    }

    /// As [`Client::vlm_generate`] for a prepared prompt, whose ids the request holds.
    ///
    /// # Errors
    /// As [`Client::vlm_generate`].
    pub fn vlm_generate_prepared(
        &self,
        patches: &Patches,
        request: &VlmGenerate,
        options: &CallOptions,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer<VlmGenerated>> {
        let request = VlmGenerate { grids: patches.grids.clone(), ..request.clone() };
        let shape = [patches.data.len().checked_div(patches.length).unwrap_or(0), patches.length];
        let pixels = TensorRef::f32("pixel_values", &shape, &patches.data);
        let tensors: &[TensorRef] = if patches.data.is_empty() { &[] } else { &[pixels] };
        self.generate(&request, tensors, options, listener)
    }

    /// As [`Client::vlm_generate_prepared`], with whole pictures for a model that cuts them itself.
    ///
    /// # Errors
    /// As [`Client::vlm_generate`].
    pub fn vlm_generate_pixels(
        &self,
        pixels: &PixelValues,
        request: &VlmGenerate,
        options: &CallOptions,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer<VlmGenerated>> {
        let shape = pixels.shape();
        let tensors = [TensorRef::f32("pixel_values", &shape, pixels.data())];
        self.generate(request, &tensors, options, listener)
    }

    fn generate(
        &self,
        request: &VlmGenerate,
        tensors: &[TensorRef],
        options: &CallOptions,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Answer<VlmGenerated>> {
        let listener = Mutex::new(listener);
        let heard = |event: &Event| {
            if let EventKind::Text { token, text } = &event.kind {
                let mut listener = listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                listener(Piece { id: *token, text });
            }
        };
        // What was told once cannot be untold: a request that streams is not asked again by itself.
        self.call_heard(request, tensors, options, &heard, !request.stream)
    }
}

/// A conversation as [`VlmGenerate::messages`] has it.
pub fn chat_turns(messages: &[ChatMessage]) -> Vec<ChatTurn> {
    let content = |part: &MessagePart| match part {
        MessagePart::Text(text) => ChatContent::Text { text: text.clone() },
        MessagePart::Image => ChatContent::Image {},
    };
    let turn = |message: &ChatMessage| ChatTurn {
        role: message.role.name().to_owned(),
        content: message.parts.iter().map(content).collect(),
    };
    messages.iter().map(turn).collect()
}

fn features(message: &Message) -> Result<VisionFeatures> {
    let get = |name: &str| -> Result<Option<Features>> {
        let found = message.tensors().find(|tensor| tensor.name() == name);
        found.map(|tensor| Ok(Features::new(tensor.shape().to_vec(), tensor.values()?))).transpose()
    };
    Ok(VisionFeatures {
        last_hidden_state: get("last_hidden_state")?,
        penultimate: get("penultimate")?,
        pooler_output: get("pooler_output")?,
        image_embeds: get("image_embeds")?,
    })
}
