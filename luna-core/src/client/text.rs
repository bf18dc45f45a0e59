//! Prompts and tokens by a daemon's text encoders.

use super::{Answer, CallOptions, Client};
use crate::{
    Conditioning, PictureSizes, Result,
    protocol::{
        ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, Command, Message, TextEncoded, Tokens,
        ZimageEncode,
    },
};

/// Conditionings in the order of the prompts, and the reply.
pub type TextEncodings = (Vec<Conditioning>, Answer<TextEncoded>);

impl Client {
    /// What the encoders read of a prompt.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::text::Conditioner::tokenize`].
    pub fn clip_tokenize(&self, request: &ClipTokenize, options: &CallOptions) -> Result<Answer<Tokens>> {
        self.call_with(request, &[], options)
    }

    /// Encodes a positive and a negative prompt.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::text::Conditioner::encode`].
    pub fn clip_encode(&self, request: &ClipEncode, options: &CallOptions) -> Result<TextEncodings> {
        self.encode_text(request, options)
    }

    /// As [`Client::clip_encode`], with the sizes that SDXL's denoiser is told.
    ///
    /// # Errors
    /// As [`Client::clip_encode`].
    pub fn clip_encode_sdxl(&self, request: &ClipEncodeSdxl, options: &CallOptions) -> Result<TextEncodings> {
        self.encode_text(request, options)
    }

    /// As [`Client::clip_encode`], by Qwen3 as Z-Image listens to it.
    ///
    /// # Errors
    /// As [`Client::clip_encode`].
    pub fn zimage_encode(&self, request: &ZimageEncode, options: &CallOptions) -> Result<TextEncodings> {
        self.encode_text(request, options)
    }

    /// Encodes token ids.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::text::Conditioner::encode_ids`].
    pub fn clip_encode_from_tokens(
        &self,
        request: &ClipEncodeFromTokens,
        options: &CallOptions,
    ) -> Result<TextEncodings> {
        let answer = self.call_with(request, &[], options)?;
        let sizes = answer.reply.sizes;
        let one = |index: usize| {
            let names = ["cond", "pooled", "mask"].map(|part| format!("{part}_{index}"));
            conditioning(&answer.message, &names.each_ref().map(String::as_str), sizes)
        };
        let conditionings = (0..request.tokens.len()).map(one).collect::<Result<_>>()?;
        Ok((conditionings, answer))
    }

    fn encode_text<C: Command<Reply = TextEncoded>>(
        &self,
        request: &C,
        options: &CallOptions,
    ) -> Result<TextEncodings> {
        let answer = self.call_with(request, &[], options)?;
        let names = [["cond", "pooled", "mask"], ["uncond", "pooled_neg", "mask_neg"]];
        let one = |names: &[&str; 3]| conditioning(&answer.message, names, answer.reply.sizes);
        let conditionings = names.iter().take(answer.reply.prompts.len()).map(one).collect::<Result<_>>()?;
        Ok((conditionings, answer))
    }
}

/// The tensors of one conditioning: encoding, pooled output, mask.
fn conditioning(message: &Message, names: &[&str; 3], sizes: Option<[u32; 6]>) -> Result<Conditioning> {
    let [cond, pooled, mask] = names;
    let optional = |name: &str| message.tensors().find(|tensor| tensor.name() == name);
    let encoding = message.tensor(cond)?;
    let mut made = Conditioning::new(encoding.sides("[batch, tokens, channels]")?, encoding.values()?)?;
    if let Some(pooled) = optional(pooled) {
        made = made.with_pooled(pooled.values()?)?;
    }
    if let Some(mask) = optional(mask) {
        made = made.with_mask(mask.view().bytes.iter().map(|&byte| byte != 0).collect())?;
    }
    let sizes = sizes.map(|[width, height, crop_w, crop_h, target_width, target_height]| PictureSizes {
        width,
        height,
        crop_w,
        crop_h,
        target_width,
        target_height,
    });
    Ok(made.with_sizes(sizes))
}
