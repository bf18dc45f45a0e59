//! The text encoders of the fixtures: no weights are stored, everyone draws the same ones from their names. Also what
//! ComfyUI and transformers make of prompts with them.

use luna_core::{
    Conditioning, Limits, Runtime,
    checkpoint::Checkpoint,
    text::{EncoderKind, TextLoadOptions, TextModel},
};
use safetensors::{Dtype, tensor::TensorView};
use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// The runtime of all tests.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::cpu().unwrap());

/// Name, shape and values of a tensor.
pub type Drawn = (String, Vec<usize>, Vec<f32>);

/// A file of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name].iter().collect()
}

/// As `draw` in make.py.
pub fn draw(name: &str, count: usize, mean: f64, scale: f64) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    let value = |i: u64| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        ((z >> 53) as f64 / 1024.0 - 1.0) * scale + mean
    };
    (1..=count as u64).map(|i| value(i) as f32).collect()
}

/// As `fill` in make.py.
fn parameter(prefix: &str, name: String, shape: &[usize]) -> Drawn {
    let full = format!("{prefix}.{name}");
    let count = shape.iter().product();
    let values = if name.contains("relative_attention_bias") {
        draw(&full, count, 0.0, 1.0)
    } else if ["embedding", "embed_tokens", "shared"].iter().any(|part| name.contains(part)) {
        draw(&full, count, 0.0, if name.contains("position") { 0.25 } else { 1.0 })
    } else if shape.len() == 1 {
        let norm = name.contains("norm") && name.ends_with("weight");
        draw(&full, count, f64::from(u8::from(norm)), 0.125)
    } else {
        draw(&full, count, 0.0, (2.0 / (shape[1] as f64).sqrt()).log2().floor().exp2())
    };
    (name, shape.to_vec(), values)
}

/// Sizes of a CLIP of the fixtures.
pub struct ClipShape {
    /// Which CLIP it stands for.
    pub kind: EncoderKind,
    /// Length of a token's embedding.
    pub width: usize,
    /// Width of the feed-forward blocks.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
}

/// CLIP-L's.
pub const CLIP_L: ClipShape = ClipShape { kind: EncoderKind::ClipL, width: 64, hidden: 96, layers: 3 };
/// CLIP-G's.
pub const CLIP_G: ClipShape = ClipShape { kind: EncoderKind::ClipG, width: 128, hidden: 160, layers: 4 };
/// CLIP-H's.
pub const CLIP_H: ClipShape = ClipShape { kind: EncoderKind::ClipH, width: 64, hidden: 128, layers: 3 };

/// A CLIP in transformers' names.
pub fn clip(shape: &ClipShape) -> Vec<Drawn> {
    let &ClipShape { kind, width, hidden, layers } = shape;
    let mut names = vec![
        ("text_model.embeddings.token_embedding.weight".to_owned(), vec![49408, width]),
        ("text_model.embeddings.position_embedding.weight".to_owned(), vec![77, width]),
        ("text_model.final_layer_norm.weight".to_owned(), vec![width]),
        ("text_model.final_layer_norm.bias".to_owned(), vec![width]),
        ("text_projection.weight".to_owned(), vec![width, width]),
    ];
    for layer in 0..layers {
        let mut both = |name: &str, weight: &[usize]| {
            let name = format!("text_model.encoder.layers.{layer}.{name}");
            names.push((format!("{name}.weight"), weight.to_vec()));
            names.push((format!("{name}.bias"), vec![weight[0]]));
        };
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            both(&format!("self_attn.{name}"), &[width, width]);
        }
        both("mlp.fc1", &[hidden, width]);
        both("mlp.fc2", &[width, hidden]);
        for name in ["layer_norm1", "layer_norm2"] {
            both(name, &[width]);
        }
    }
    names.into_iter().map(|(name, shape)| parameter(kind.name(), name, &shape)).collect()
}

/// The T5 of the fixtures: width 256, 3 heads of 32, 3 layers, 160 tokens.
pub fn t5() -> Vec<Drawn> {
    let (width, inner, hidden) = (256, 96, 112);
    let mut names = vec![("shared.weight".to_owned(), vec![160, width])];
    names.push(("encoder.final_layer_norm.weight".to_owned(), vec![width]));
    names.push(("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight".to_owned(), vec![32, 3]));
    for block in 0..3 {
        let mut add = |name: &str, shape: &[usize]| {
            names.push((format!("encoder.block.{block}.layer.{name}.weight"), shape.to_vec()));
        };
        for name in ["q", "k", "v"] {
            add(&format!("0.SelfAttention.{name}"), &[inner, width]);
        }
        add("0.SelfAttention.o", &[width, inner]);
        add("0.layer_norm", &[width]);
        for name in ["wi_0", "wi_1"] {
            add(&format!("1.DenseReluDense.{name}"), &[hidden, width]);
        }
        add("1.DenseReluDense.wo", &[width, hidden]);
        add("1.layer_norm", &[width]);
    }
    names.into_iter().map(|(name, shape)| parameter("t5", name, &shape)).collect()
}

/// The Qwen3 of the fixtures: width 96, 4 heads of 128 with 2 for keys, 3 layers, 420 tokens.
pub fn qwen3() -> Vec<Drawn> {
    let (width, hidden, head) = (96, 144, 128);
    let mut names = vec![("embed_tokens.weight".to_owned(), vec![420, width]), ("norm.weight".to_owned(), vec![width])];
    for layer in 0..3 {
        let mut add =
            |name: &str, shape: &[usize]| names.push((format!("layers.{layer}.{name}.weight"), shape.to_vec()));
        add("self_attn.q_proj", &[4 * head, width]);
        for name in ["k_proj", "v_proj"] {
            add(&format!("self_attn.{name}"), &[2 * head, width]);
        }
        add("self_attn.o_proj", &[width, 4 * head]);
        for name in ["q_norm", "k_norm"] {
            add(&format!("self_attn.{name}"), &[head]);
        }
        for name in ["gate_proj", "up_proj"] {
            add(&format!("mlp.{name}"), &[hidden, width]);
        }
        add("mlp.down_proj", &[width, hidden]);
        for name in ["input_layernorm", "post_attention_layernorm"] {
            add(name, &[width]);
        }
    }
    names.into_iter().map(|(name, shape)| parameter("qwen3", name, &shape)).collect()
}

/// The same CLIP in OpenCLIP's names: queries, keys and values in one, the projection as a matrix `[in, out]`.
pub fn open_clip(drawn: Vec<Drawn>) -> Vec<Drawn> {
    let mut out: Vec<Drawn> = Vec::new();
    for (name, shape, values) in drawn {
        let name = name
            .replace("text_model.embeddings.token_embedding.weight", "token_embedding.weight")
            .replace("text_model.embeddings.position_embedding.weight", "positional_embedding")
            .replace("text_model.final_layer_norm", "ln_final")
            .replace("text_model.encoder.layers", "transformer.resblocks")
            .replace("layer_norm", "ln_")
            .replace("mlp.fc1", "mlp.c_fc")
            .replace("mlp.fc2", "mlp.c_proj")
            .replace("self_attn.out_proj", "attn.out_proj")
            .replace("text_projection.weight", "text_projection");
        let fused = ["q", "k", "v"].iter().find(|part| name.contains(&format!("self_attn.{part}_proj")));
        if let Some(part) = fused {
            let name = name.replace(&format!("self_attn.{part}_proj."), "attn.in_proj_");
            match out.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, whole, all)) => {
                    whole[0] += shape[0];
                    all.extend(values);
                }
                None => out.push((name, shape, values)),
            }
        } else if name == "text_projection" {
            let side = shape[0];
            let turned = (0..side * side).map(|i| values[i % side * side + i / side]).collect();
            out.push((name, shape, turned));
        } else {
            out.push((name, shape, values));
        }
    }
    out
}

/// How values are stored.
pub fn stored(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F8_E4M3 => values.iter().map(|&value| to_e4m3(value)).collect(),
        other => panic!("no way to write {other:?}"),
    }
}

/// The e4m3 number of a value that is one.
fn to_e4m3(value: f32) -> u8 {
    let bits = half::f16::from_f32(value / 256.0).to_bits();
    assert_eq!(bits & 0x7f, 0, "{value} is no e4m3 number");
    ((bits >> 8) & 0x80 | (bits >> 7) & 0x7f) as u8
}

/// A safetensors file with a prefix before all names.
pub fn file(parts: &[(&str, &[Drawn])], dtype: impl Fn(&str) -> Dtype) -> Vec<u8> {
    let named: Vec<_> = parts
        .iter()
        .flat_map(|(prefix, drawn)| {
            drawn.iter().map(move |(name, shape, values)| (format!("{prefix}{name}"), shape, values))
        })
        .map(|(name, shape, values)| {
            let dtype = dtype(&name);
            (name, dtype, shape.clone(), stored(values, dtype))
        })
        .collect();
    let views =
        named.iter().map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// An f32 checkpoint of parts with their prefixes.
pub fn checkpoint(parts: &[(&str, &[Drawn])]) -> Checkpoint {
    Checkpoint::from_bytes("drawn", file(parts, |_| Dtype::F32), &Limits::default()).unwrap()
}

/// A model in transformers' names, as this kind where its size does not say it.
pub fn model_as(drawn: &[Drawn], kind: Option<EncoderKind>) -> TextModel {
    let options = TextLoadOptions { kind, ..TextLoadOptions::default() };
    TextModel::load(&checkpoint(&[("", drawn)]), &RUNTIME, &options).unwrap()
}

/// A CLIP of the fixtures.
pub fn clip_model(shape: &ClipShape) -> TextModel {
    model_as(&clip(shape), Some(shape.kind))
}

/// The prompts of the fixtures, each positive and negative.
pub fn prompts() -> Vec<[String; 2]> {
    let text = std::fs::read_to_string(fixture("text/prompts.json")).unwrap();
    let prompts: Vec<[String; 2]> = serde_json::from_str(&text).unwrap();
    assert_eq!(prompts.len(), 6);
    prompts
}

/// A model folder with the tokenizer of a fixture.
pub fn folder(place: &Path, drawn: &[Drawn], tokenizer: &str) {
    std::fs::write(place.join("model.safetensors"), file(&[("", drawn)], |_| Dtype::F32)).unwrap();
    let from = fixture("tokenizer").join(tokenizer).join("tokenizer.json");
    std::fs::copy(from, place.join("tokenizer.json")).unwrap();
}

/// Reference values by name.
pub struct Answers(Checkpoint);

impl Answers {
    /// Opens a file of the fixtures.
    pub fn open(name: &str) -> Self {
        Self(Checkpoint::open(fixture("text").join(name), &Limits::default()).unwrap())
    }

    /// f32 values.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.0.tensor(name).unwrap_or_else(|| panic!("no {name}")).bytes;
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// i64 values.
    pub fn integers(&self, name: &str) -> Vec<u32> {
        let bytes = self.0.tensor(name).unwrap_or_else(|| panic!("no {name}")).bytes;
        bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32).collect()
    }

    /// Boolean values.
    pub fn flags(&self, name: &str) -> Vec<bool> {
        self.0.tensor(name).unwrap().bytes.iter().map(|&byte| byte != 0).collect()
    }

    /// Whether there are such values.
    pub fn has(&self, name: &str) -> bool {
        self.0.tensor(name).is_some()
    }
}

/// As [`kept`], from plain values.
pub fn kept_rows(values: &[f32], channels: usize) -> Vec<f32> {
    values.chunks_exact(channels).skip(1).step_by(4).flatten().copied().collect()
}

/// What the fixtures keep of an encoding: every fourth token, starting with the second.
pub fn kept(conditioning: &Conditioning) -> Vec<f32> {
    (1..conditioning.tokens()).step_by(4).flat_map(|token| conditioning.token(0, token)).copied().collect()
}

/// ‖ours − theirs‖ / ‖theirs‖.
pub fn difference(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let square = |x: f32| f64::from(x).powi(2);
    let apart: f64 = ours.iter().zip(theirs).map(|(a, b)| square(a - b)).sum();
    (apart / theirs.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

/// Panics unless the relative difference is below `most`.
#[track_caller]
pub fn assert_close(what: &str, ours: &[f32], theirs: &[f32], most: f64) {
    let difference = difference(ours, theirs);
    assert!(difference < most, "{what}: relative difference {difference:.2e}");
}
