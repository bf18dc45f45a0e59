//! What is wanted of a text encoder besides its input, and what it takes and gives. It must not know prompts.

use crate::nn::Tensor;

/// Which layer's output is the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Layer {
    /// The last one's, after the final norm.
    Last,
    /// The last one's but `n − 1`: 1 is the last layer, 2 the one before.
    FromEnd(usize),
}

/// What becomes of the token that stands for the whole prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pooling {
    /// Not needed.
    None,
    /// As the final norm gives it.
    Normed,
    /// Through the text projection.
    Projected,
}

/// What is wanted of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) layer: Layer,
    /// Whether the final norm is applied to an inner layer's output.
    pub(super) norm_inner: bool,
    pub(super) pooling: Pooling,
}

impl Wish {
    /// How many of `layers` layers are run, and after how many the output of an inner layer is kept.
    pub(super) fn layers(self, layers: usize) -> (usize, Option<usize>) {
        let kept = match self.layer {
            // ComfyUI takes the last layer where there are not as many as are to be left out.
            Layer::FromEnd(n) if n <= layers => Some(layers + 1 - n.max(1)),
            _ => None,
        };
        (kept.filter(|_| self.pooling == Pooling::None).unwrap_or(layers), kept)
    }
}

/// Sequences side by side, padded at the end to the longest.
pub(super) struct Batch {
    /// Token embeddings, `[sequences, tokens, channels]`.
    pub(super) x: Tensor,
    /// Tokens of each sequence without padding.
    pub(super) lengths: Vec<usize>,
    /// The token of each sequence that stands for all of it.
    pub(super) pooled: Vec<usize>,
    /// Which tokens may be looked at, `[sequences, tokens]`; all where there is none.
    pub(super) visible: Option<Vec<bool>>,
}

/// What a text encoder gives for a batch.
pub(super) struct Hidden {
    /// The encoding, `[sequences, tokens, channels]`.
    pub(super) encoding: Tensor,
    /// What the last layer and the final norm make of the tokens that stand for their sequences, `[sequences, channels]`, where that is
    /// wanted.
    pub(super) pooled: Option<Tensor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_layer_is_run_in_vain() {
        let wish = |layer, pooling| Wish { layer, norm_inner: false, pooling };
        assert_eq!(wish(Layer::Last, Pooling::None).layers(12), (12, None));
        assert_eq!(wish(Layer::FromEnd(2), Pooling::None).layers(12), (11, Some(11)));
        assert_eq!(wish(Layer::FromEnd(2), Pooling::Normed).layers(12), (12, Some(11)));
        assert_eq!(wish(Layer::FromEnd(12), Pooling::None).layers(12), (1, Some(1)));
        assert_eq!(wish(Layer::FromEnd(13), Pooling::None).layers(12), (12, None));
    }
}
