//! Random CLIP text encoders of real shapes, as transformers would write them.

use super::shapes::Named;
use crate::args::ShapeArg;

/// Tokens of a sequence.
pub const TOKENS: usize = 77;
/// Entries of CLIP's vocabulary.
pub const VOCABULARY: usize = 49_408;

/// Names and shapes of its tensors; nothing for an architecture that is no text encoder.
pub fn tensors(shape: ShapeArg) -> Option<Vec<Named>> {
    let (width, layers, projected) = match shape {
        ShapeArg::ClipL => (768, 12, false),
        ShapeArg::ClipG => (1280, 32, true),
        ShapeArg::Sdxl | ShapeArg::Sd15 | ShapeArg::Flux | ShapeArg::Taesd => return None,
    };
    let mut named = vec![
        ("text_model.embeddings.token_embedding.weight".to_owned(), vec![VOCABULARY, width]),
        ("text_model.embeddings.position_embedding.weight".to_owned(), vec![TOKENS, width]),
    ];
    let mut layer = |name: String, shape: Vec<usize>| {
        named.push((format!("{name}.bias"), vec![shape[0]]));
        named.push((format!("{name}.weight"), shape));
    };
    for index in 0..layers {
        let block = format!("text_model.encoder.layers.{index}");
        for norm in ["layer_norm1", "layer_norm2"] {
            layer(format!("{block}.{norm}"), vec![width]);
        }
        for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            layer(format!("{block}.self_attn.{projection}"), vec![width, width]);
        }
        layer(format!("{block}.mlp.fc1"), vec![4 * width, width]);
        layer(format!("{block}.mlp.fc2"), vec![width, 4 * width]);
    }
    layer("text_model.final_layer_norm".to_owned(), vec![width]);
    if projected {
        named.push(("text_projection.weight".to_owned(), vec![width, width]));
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of the published models.
    #[test]
    fn shapes_have_the_parameters_of_the_real_models() {
        let parameters =
            |shape| -> usize { tensors(shape).unwrap().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum() };
        assert_eq!(parameters(ShapeArg::ClipL), 123_060_480);
        assert_eq!(parameters(ShapeArg::ClipG), 694_659_840);
        assert!(tensors(ShapeArg::Sd15).is_none());
    }
}
