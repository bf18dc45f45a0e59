//! Random CLIP text encoders of real shapes, as transformers would write them.

use super::shapes::Named;
use crate::args::ShapeArg;

/// What the text encoders of SD1.5 and SDXL differ in.
struct ClipShape {
    width: usize,
    layers: usize,
    projection: bool,
}

const CLIP_L: ClipShape = ClipShape { width: 768, layers: 12, projection: false };
const CLIP_G: ClipShape = ClipShape { width: 1280, layers: 32, projection: true };

const VOCABULARY: usize = 49408;
/// Tokens of one sequence.
pub const TOKENS: usize = 77;

/// Names and shapes of its tensors; nothing for an architecture without a text encoder.
pub fn tensors(shape: ShapeArg) -> Option<Vec<Named>> {
    match shape {
        ShapeArg::ClipL => Some(CLIP_L.tensors()),
        ShapeArg::ClipG => Some(CLIP_G.tensors()),
        ShapeArg::Sdxl | ShapeArg::Sd15 | ShapeArg::Flux | ShapeArg::Taesd => None,
    }
}

impl ClipShape {
    fn tensors(&self) -> Vec<Named> {
        let width = self.width;
        let mut named = vec![
            ("text_model.embeddings.token_embedding.weight".to_owned(), vec![VOCABULARY, width]),
            ("text_model.embeddings.position_embedding.weight".to_owned(), vec![TOKENS, width]),
        ];
        let mut add = |name: String, shape: Vec<usize>| {
            named.push((format!("{name}.bias"), vec![shape[0]]));
            named.push((format!("{name}.weight"), shape));
        };
        for layer in 0..self.layers {
            let name = format!("text_model.encoder.layers.{layer}");
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                add(format!("{name}.self_attn.{projection}"), vec![width, width]);
            }
            add(format!("{name}.layer_norm1"), vec![width]);
            add(format!("{name}.mlp.fc1"), vec![4 * width, width]);
            add(format!("{name}.mlp.fc2"), vec![width, 4 * width]);
            add(format!("{name}.layer_norm2"), vec![width]);
        }
        add("text_model.final_layer_norm".to_owned(), vec![width]);
        if self.projection {
            named.push(("text_projection.weight".to_owned(), vec![width, width]));
        }
        named
    }
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
        assert!(tensors(ShapeArg::Sdxl).is_none());
    }
}
