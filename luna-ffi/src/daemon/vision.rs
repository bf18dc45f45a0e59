//! A daemon's vision encoders and vision-language models.

use super::{Daemon, Reading, not_yet_known, report};
use crate::{call::Watch, coverage::Fate, error::Result, options::luna_report};
use luna_core::{
    Image,
    client::{Answer, VisionFeatures, chat_turns},
    protocol::{EncodeVision, VisionEncoded, VisionModelInfo, VlmGenerate, VlmGenerated, VlmModelInfo},
    tokenizer::ChatMessage,
    vision::PixelValues,
    vlm::{Patches, Piece, Question},
};
use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

/// A vision encoder of a daemon.
pub(crate) struct RemoteVision {
    daemon: Arc<Daemon>,
    name: String,
    info: OnceLock<VisionModelInfo>,
}

impl RemoteVision {
    pub(crate) fn load(daemon: &Arc<Daemon>, path: &str) -> Result<Self> {
        Ok(Self { daemon: daemon.clone(), name: daemon.model(path)?, info: OnceLock::new() })
    }

    /// What the daemon told of it.
    pub(crate) fn info(&self) -> Result<&VisionModelInfo> {
        self.info.get().ok_or_else(|| not_yet_known("vision encoder").into())
    }

    pub(crate) fn encode(
        &self,
        images: &[&Image],
        asked: EncodeVision,
        watch: &Watch,
    ) -> Result<(VisionFeatures, luna_report)> {
        let request = EncodeVision { model: Some(self.name.clone()), ..asked };
        Ok(self.read(self.daemon.client.encode_vision(images, &request, &watch.request())?, watch))
    }

    pub(crate) fn encode_pixels(
        &self,
        pixels: &PixelValues,
        asked: EncodeVision,
        watch: &Watch,
    ) -> Result<(VisionFeatures, luna_report)> {
        let request = EncodeVision { model: Some(self.name.clone()), ..asked };
        Ok(self.read(self.daemon.client.encode_pixel_values(pixels, &request, &watch.request())?, watch))
    }

    fn read(
        &self,
        (features, answer): (VisionFeatures, Answer<VisionEncoded>),
        watch: &Watch,
    ) -> (VisionFeatures, luna_report) {
        let told = report(&answer.head, &answer.reply.precision, answer.reply.seconds, watch);
        let _ = self.info.set(answer.reply.model);
        (features, told)
    }
}

/// What a vision-language model reads, here or there.
pub(crate) enum VlmAsked {
    /// A single turn.
    Question(Question, Vec<Image>),
    Chat(Vec<ChatMessage>, Vec<Image>),
    /// Token ids with places for pictures.
    Prepared(Vec<u32>, VlmPictures),
}

/// Pictures of a prepared prompt.
pub(crate) enum VlmPictures {
    Patches(Patches),
    /// For a model that cuts them itself.
    Whole(PixelValues),
}

/// A vision-language model of a daemon.
pub(crate) struct RemoteVlm {
    daemon: Arc<Daemon>,
    name: String,
    info: OnceLock<VlmModelInfo>,
}

impl RemoteVlm {
    /// `projector` is the vision part of a GGUF file, which only a daemon that may read both can be given.
    pub(crate) fn load(daemon: &Arc<Daemon>, path: &str, reading: Reading, projector: Option<&Path>) -> Result<Self> {
        Ok(Self { daemon: daemon.clone(), name: daemon.vlm(path, reading, projector)?, info: OnceLock::new() })
    }

    /// What the daemon told of it.
    pub(crate) fn info(&self) -> Result<&VlmModelInfo> {
        self.info.get().ok_or_else(|| not_yet_known("vision-language model").into())
    }

    pub(crate) fn generate(
        &self,
        asked: VlmAsked,
        how: VlmGenerate,
        watch: &Watch,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<(VlmGenerated, luna_report, Option<Fate>)> {
        let (client, options) = (&self.daemon.client, watch.request());
        let how = VlmGenerate { model: Some(self.name.clone()), ..how };
        let answer = match asked {
            VlmAsked::Question(Question { prompt, system }, pictures) => {
                let request = VlmGenerate { prompt: Some(prompt), system, ..how };
                client.vlm_generate(&pictures.iter().collect::<Vec<_>>(), &request, &options, listener)?
            }
            VlmAsked::Chat(messages, pictures) => {
                let request = VlmGenerate { messages: chat_turns(&messages), ..how };
                client.vlm_generate(&pictures.iter().collect::<Vec<_>>(), &request, &options, listener)?
            }
            VlmAsked::Prepared(ids, VlmPictures::Patches(patches)) => {
                client.vlm_generate_prepared(&patches, &VlmGenerate { ids: Some(ids), ..how }, &options, listener)?
            }
            VlmAsked::Prepared(ids, VlmPictures::Whole(pixels)) => {
                client.vlm_generate_pixels(&pixels, &VlmGenerate { ids: Some(ids), ..how }, &options, listener)?
            }
        };
        let mut reply = answer.reply;
        let told = report(&answer.head, &reply.precision, reply.prompt_seconds + reply.generation_seconds, watch);
        let fate = reply.loras.take().map(|outcome| Fate::told(&reply.model.family, outcome));
        let _ = self.info.set(reply.model.clone());
        Ok((reply, told, fate))
    }
}
