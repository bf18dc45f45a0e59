//! Results. Enters: values of `luna-core`. Leaves: views of their memory, which stays where it is.

use crate::{
    error::Result,
    handle::{boundary, free, object},
    status::luna_status,
    table::{self, Object},
    types::luna_tensor,
    view::{luna_dtype, luna_view},
};
use luna_core::{Conditioning, Image, Latent, Prediction, diffusion::Pooled, vision::Features};
use std::sync::Arc;

/// The object behind `luna_tensor`: a share in what was computed.
#[derive(Clone)]
pub(crate) enum Tensor {
    Image(Arc<Image>),
    Latent(Arc<Latent>),
    Prediction(Arc<Prediction>),
    Tokens(Arc<Conditioning>),
    Pooled(Arc<Conditioning>),
    Mask(Arc<Conditioning>),
    Features(Arc<Features>),
    Vectors(Arc<Pooled>),
}

impl Object for Tensor {
    const NAME: &'static str = "luna_tensor";
}

impl Tensor {
    /// Its values.
    pub(crate) fn view(&self) -> luna_view {
        match self {
            Self::Image(image) => floats(image.data(), &image.shape()),
            Self::Latent(latent) => floats(latent.data(), &latent.shape()),
            Self::Prediction(prediction) => floats(prediction.data(), &prediction.shape()),
            Self::Features(features) => floats(features.data(), features.shape()),
            Self::Vectors(vectors) => floats(vectors.view().data(), vectors.view().shape()),
            Self::Tokens(conditioning) => floats(conditioning.data(), &conditioning.shape()),
            Self::Pooled(conditioning) => {
                let width = conditioning.pooled_channels().unwrap_or_default();
                floats(conditioning.pooled().unwrap_or_default(), &[conditioning.batch(), width])
            }
            Self::Mask(conditioning) => {
                let mask = conditioning.mask().unwrap_or_default();
                let shape = [conditioning.batch(), mask.len() / conditioning.batch()];
                luna_view::of(mask.as_ptr().cast(), luna_dtype::Bool, &shape)
            }
        }
    }

    /// Gives a handle to it.
    pub(crate) fn open(self) -> luna_tensor {
        table::insert(self).into()
    }
}

fn floats(values: &[f32], shape: &[usize]) -> luna_view {
    luna_view::of(values.as_ptr().cast(), luna_dtype::F32, shape)
}

/// Where a tensor's values lie. They stay there, unchanged, until `luna_tensor_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn luna_tensor_view(tensor: luna_tensor, view: *mut luna_view) -> luna_status {
    boundary(|caller| -> Result<()> {
        let place = caller.output("view", view)?;
        place.put(object::<Tensor>(tensor)?.view());
        Ok(())
    })
}

/// Frees a tensor. Views of it end; what was lent through DLPack stays until its deleter is called.
#[unsafe(no_mangle)]
pub extern "C" fn luna_tensor_free(tensor: luna_tensor) -> luna_status {
    free::<Tensor>(tensor)
}
