//! What was typed after `describe`.

use super::{ComputeArgs, ConnectArgs, LoraArgs, ModeArg, ReportArgs};
use clap::Args;
use std::path::PathBuf;

/// Ask a vision-language model about pictures, or without any
///
/// Reads Qwen3-VL (dense) and LLaVA 1.5 from a folder as save_pretrained writes it, with its tokenizer.json, or from the
/// two GGUF files that llama.cpp makes of them. What the prompt says never becomes a special token.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// PNG, JPEG or WebP files, in the order the model sees them; none for a question without pictures
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The model's folder, or its GGUF file with its mmproj file beside it
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,
    /// The vision part of a GGUF model [default: the one mmproj-*.gguf beside it that fits]
    #[arg(long, value_name = "FILE")]
    pub mmproj: Option<PathBuf>,
    /// What is asked
    #[arg(long, value_name = "TEXT", required_unless_present = "inputs", conflicts_with = "inputs")]
    pub prompt: Option<String>,
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "inputs")]
    pub system: Option<String>,
    /// A .safetensors file with `input_ids`, and with `pixel_values` and `image_grid_thw` where there are pictures, as
    /// transformers' processors make them, instead of pictures and prompt
    #[arg(long, value_name = "FILE", conflicts_with = "images")]
    pub inputs: Option<PathBuf>,
    /// Print the text as it is generated
    #[arg(long, conflicts_with = "json")]
    pub stream: bool,
    /// Print the generated ids, separated by spaces, instead of the text
    #[arg(long, conflicts_with = "stream")]
    pub ids: bool,
    #[command(flatten)]
    pub lora: LoraArgs,
    /// How LoRAs are applied; the results are the same but for rounding [default: functional]
    #[arg(long, value_enum, value_name = "MODE", requires = "loras", help_heading = "LoRA")]
    pub mode: Option<ModeArg>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// How tokens are chosen and when to end.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub struct SamplingArgs {
    /// Always take the most likely token [default unless --temperature is given]
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed"])]
    pub greedy: bool,
    /// Divides the logits; the higher, the more varied
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Only the K most likely tokens
    #[arg(long, value_name = "K", requires = "temperature")]
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach probability P
    #[arg(long, value_name = "P", requires = "temperature")]
    pub top_p: Option<f32>,
    /// Only tokens at least P times as likely as the most likely
    #[arg(long, value_name = "P", requires = "temperature")]
    pub min_p: Option<f32>,
    /// Makes tokens that occurred less likely; 1 does nothing
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// The same seed chooses the same tokens
    #[arg(long, value_name = "N", requires = "temperature")]
    pub seed: Option<u64>,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_tokens: usize,
    /// End before this text; more than once for several
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}
