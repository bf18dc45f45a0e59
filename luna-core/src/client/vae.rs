//! Pictures and latents by a daemon's VAE.

use super::{Answer, CallOptions, Client};
use crate::{
    Image, Latent, LatentScale, Result,
    protocol::{TensorRef, VaeDecode, VaeDecoded, VaeEncode, VaeEncoded},
};

impl Client {
    /// Encodes pictures as [`crate::vae::Vae::encode`] does.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::vae::Vae::encode`].
    pub fn vae_encode(
        &self,
        image: &Image,
        request: &VaeEncode,
        options: &CallOptions,
    ) -> Result<(Latent, Answer<VaeEncoded>)> {
        let shape = image.shape();
        let answer = self.call_with(request, &[TensorRef::f32("pixels", &shape, image.data())], options)?;
        let latents = answer.message.tensor("latents")?;
        let latent = Latent::new(latents.sides("[batch, channels, height, width]")?, latents.values()?)?;
        let vae = &answer.reply.vae;
        let scale = vae.scale_factor.map(|scale| LatentScale { scale, shift: vae.shift_factor.unwrap_or(0.0) });
        Ok((latent.with_scale(scale, false), answer))
    }

    /// Decodes latents as [`crate::vae::Vae::decode`] does. Whether they are scaled, and by which factors, they know.
    ///
    /// # Errors
    /// As [`Client::call`], with the kinds of [`crate::vae::Vae::decode`].
    pub fn vae_decode(
        &self,
        latent: &Latent,
        request: &VaeDecode,
        options: &CallOptions,
    ) -> Result<(Image, Answer<VaeDecoded>)> {
        let shape = latent.shape();
        let request = VaeDecode {
            scaled: latent.is_scaled(),
            scale_factor: latent.scale().map(|factors| factors.scale),
            shift_factor: latent.scale().map(|factors| factors.shift),
            ..request.clone()
        };
        let answer = self.call_with(&request, &[TensorRef::f32("latents", &shape, latent.data())], options)?;
        let pixels = answer.message.tensor("pixels")?;
        let image = Image::new(pixels.sides("[batch, height, width, channels]")?, pixels.values()?)?;
        Ok((image, answer))
    }
}
