//! A demonstration model: a CLIP-L in miniature with random weights from a fixed seed. It shows that everything runs;
//! **its output means nothing**. It is drawn when it is asked for, so that it takes no room in the program.

use super::{EncoderKind, TextLoadOptions, TextModel};
use crate::{Limits, Result, Runtime, checkpoint::Checkpoint};
use half::f16;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::{Dtype, tensor::TensorView};

const WIDTH: usize = 64;
const HIDDEN: usize = 256;
const LAYERS: usize = 2;
const VOCABULARY: usize = 49_408;
const CHUNK: usize = 77;
const SEED: u64 = 0x1_0a5;

impl TextModel {
    /// The demonstration model: one CLIP-L of width 64 with 2 layers and random weights from a fixed seed, 6 MB in
    /// memory. Its output means nothing, but it is the same on every machine.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn demo(runtime: &Runtime) -> Result<Self> {
        let options = TextLoadOptions { kind: Some(EncoderKind::ClipL), ..TextLoadOptions::default() };
        Self::load(&Self::demo_checkpoint()?, runtime, &options)
    }

    /// The file of [`TextModel::demo`], which is a CLIP-L, for those who share it through a registry.
    ///
    /// # Errors
    /// None: the file is drawn from a fixed seed.
    pub fn demo_checkpoint() -> Result<Checkpoint> {
        Checkpoint::from_bytes("the demonstration text encoder", file()?, &Limits::default())
    }
}

/// The model as a safetensors file in transformers' names, f16.
fn file() -> Result<Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut draw = |name: String, shape: &[usize], mean: f32, deviation: f32| {
        let count = shape.iter().product();
        let normal = std::iter::repeat_with(|| StandardNormal.sample(&mut random)).take(count);
        let bytes = normal.flat_map(|x: f32| f16::from_f32(mean + deviation * x).to_le_bytes()).collect();
        tensors.push((format!("text_model.{name}"), shape.to_vec(), bytes));
    };
    draw("embeddings.token_embedding.weight".into(), &[VOCABULARY, WIDTH], 0.0, 0.5);
    draw("embeddings.position_embedding.weight".into(), &[CHUNK, WIDTH], 0.0, 0.2);
    for layer in 0..LAYERS {
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            let name = format!("encoder.layers.{layer}.{name}");
            draw(format!("{name}.weight"), &[outputs, inputs], 0.0, (inputs as f32).powf(-0.5));
            draw(format!("{name}.bias"), &[outputs], 0.0, 0.05);
        };
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(&format!("self_attn.{name}"), WIDTH, WIDTH);
        }
        linear("mlp.fc1", HIDDEN, WIDTH);
        linear("mlp.fc2", WIDTH, HIDDEN);
        for norm in ["layer_norm1", "layer_norm2"] {
            draw(format!("encoder.layers.{layer}.{norm}.weight"), &[WIDTH], 1.0, 0.1);
            draw(format!("encoder.layers.{layer}.{norm}.bias"), &[WIDTH], 0.0, 0.05);
        }
    }
    draw("final_layer_norm.weight".into(), &[WIDTH], 1.0, 0.1);
    draw("final_layer_norm.bias".into(), &[WIDTH], 0.0, 0.05);
    let failed = |error: safetensors::SafeTensorError| {
        crate::Error::new(crate::ErrorKind::Internal, "the demonstration model cannot be drawn").source(error)
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    safetensors::serialize(views, None).map_err(failed)
}
