//! What a vision encoder gives.

use super::Fallback;
use crate::{ArrayView, Precision};
use std::time::Duration;

/// Numbers with a shape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Features {
    pub(crate) fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    /// Adds more items of a batch.
    pub(super) fn append(&mut self, other: Self) {
        match self.shape.first_mut() {
            Some(batch) => *batch += other.shape[0],
            None => self.shape = other.shape,
        }
        self.data.extend(other.data);
    }

    /// The shape, batch first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values of one item of the batch.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn item(&self, index: usize) -> &[f32] {
        let size = self.shape[1..].iter().product::<usize>();
        &self.data[index * size..][..size]
    }

    /// Borrowed with its shape.
    ///
    /// # Panics
    /// Never: the shape fits.
    pub fn view(&self) -> ArrayView<'_> {
        ArrayView::new(&self.shape, &self.data).expect("the shape fits its values")
    }

    pub(super) fn non_finite(&self) -> usize {
        self.data.iter().filter(|value| !value.is_finite()).count()
    }
}

/// What transformers' models of the same weights call by the same names.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// `[batch, tokens, channels]`: after the last block for a CLIP, whose first token is the class token; after the
    /// final norm for a SigLIP.
    pub last_hidden_state: Features,
    /// `[batch, tokens, channels]`: after the last block but one.
    pub penultimate: Features,
    /// `[batch, channels]`: the class token after the final norm, or what SigLIP's head makes of all tokens; `None` for
    /// a SigLIP without a head.
    pub pooler_output: Option<Features>,
    /// `[batch, embedding]`: the pooled output projected to where texts are embedded too; `None` for a SigLIP, which
    /// does not project, and for a file without the projection.
    pub image_embeds: Option<Features>,
    /// The precision that was used in the end.
    pub precision: Precision,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<Fallback>,
    /// Time from call to result.
    pub elapsed: Duration,
}

/// What one pass gives.
#[derive(Default)]
pub(super) struct States {
    pub(super) last: Features,
    pub(super) penultimate: Features,
    pub(super) pooled: Option<Features>,
    pub(super) embeds: Option<Features>,
}

impl States {
    pub(super) fn append(&mut self, other: Self) {
        self.last.append(other.last);
        self.penultimate.append(other.penultimate);
        for (own, other) in [(&mut self.pooled, other.pooled), (&mut self.embeds, other.embeds)] {
            if let Some(other) = other {
                own.get_or_insert_default().append(other);
            }
        }
    }

    pub(super) fn non_finite(&self) -> usize {
        let more = [&self.pooled, &self.embeds];
        let all = [&self.last, &self.penultimate].into_iter().chain(more.into_iter().flatten());
        all.map(Features::non_finite).sum()
    }
}
