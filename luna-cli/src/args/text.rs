//! What was typed after `text` and `tokenize`.

use super::{AttentionArgs, ComputeArgs, ConnectArgs, LoraArgs, ReportArgs, WriteArgs};
use clap::Args;
use luna_core::text::{EncoderKind, Recipe};
use std::{num::NonZeroUsize, path::PathBuf};

/// Encode prompts to the conditioning that a diffusion model listens to
///
/// The same as ComfyUI makes it: weights such as (red:1.3), long prompts in chunks of 77 tokens, textual inversions as
/// embedding:name. Positive and negative run as one batch. Without a model it uses a small demonstration encoder with
/// random weights: it shows that everything works, its output means nothing.
#[derive(Debug, Args)]
pub struct TextArgs {
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// The negative prompt; '' for an empty one. Without this option none is encoded
    #[arg(long, value_name = "PROMPT", conflicts_with_all = ["negative_file", "tokens"])]
    pub negative: Option<String>,
    /// Read the negative prompt from this UTF-8 file; one line break at its end does not count
    #[arg(long, value_name = "FILE", conflicts_with = "tokens")]
    pub negative_file: Option<PathBuf>,
    /// Encode these tokens in place of a prompt, with a T5 or Qwen3 that may lack its tokenizer.json: `input_ids`,
    /// integers [tokens] or [batch, tokens], and `attention_mask` of the same shape where some do not count
    #[arg(long, value_name = "FILE.safetensors")]
    pub tokens: Option<PathBuf>,
    /// The file to write: `cond`, f32 [batch, tokens, channels], and where there are such `pooled`, `mask`, `uncond`,
    /// `uncond_pooled`, `uncond_mask`
    #[arg(short, long, value_name = "FILE.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    pub encoders: EncoderArgs,
    #[command(flatten)]
    pub syntax: SyntaxArgs,
    #[command(flatten)]
    pub reading: ReadingArgs,
    #[command(flatten)]
    pub lora: LoraArgs,
    /// Read <lora:NAME:MODEL:CLIP> tags in the prompts and apply them; they are text otherwise
    #[arg(long, help_heading = "LoRA")]
    pub lora_tags: bool,
    #[command(flatten)]
    pub sizes: SizeArgs,
    #[command(flatten)]
    pub attention: AttentionArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub write: WriteArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// A prompt, typed or in a file.
#[derive(Debug, Args)]
pub struct PromptArgs {
    /// The prompt
    #[arg(value_name = "PROMPT", required_unless_present_any = ["prompt_file", "tokens"])]
    #[arg(conflicts_with_all = ["prompt_file", "tokens"])]
    pub prompt: Option<String>,
    /// Read the prompt from this UTF-8 file; one line break at its end does not count
    #[arg(long, value_name = "FILE", conflicts_with = "tokens")]
    pub prompt_file: Option<PathBuf>,
}

/// Which text encoders.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct EncoderArgs {
    /// A CLIP-L, or a checkpoint with one in it: SD1.5's encoder, SDXL's first, Flux's and SD3's
    #[arg(long, value_name = "FILE")]
    pub clip_l: Option<PathBuf>,
    /// A CLIP-G (SDXL's second encoder, SD3's), or a checkpoint with one in it
    #[arg(long, value_name = "FILE")]
    pub clip_g: Option<PathBuf>,
    /// A checkpoint; all text encoders in it are used, SD1.5's one or SDXL's two
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// A T5 encoder's file or folder: Flux's, SD3's
    #[arg(long, value_name = "FILE")]
    pub t5: Option<PathBuf>,
    /// A Qwen3's folder or file: Z-Image's
    #[arg(long, value_name = "DIR")]
    pub qwen3: Option<PathBuf>,
    /// The tokenizer.json of the T5 or Qwen3 [default: the one beside the weights]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// What the conditioning is for: sd1, sd2, sdxl, sdxl_refiner, sd3, flux, t5 or z_image [default: the model that
    /// listens to just these encoders]
    #[arg(long, value_name = "MODEL")]
    pub recipe: Option<Recipe>,
}

/// How a prompt's text is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub struct SyntaxArgs {
    /// Look embedding:NAME up in this folder and those below it; may be given several times
    #[arg(long = "embeddings", value_name = "FOLDER")]
    pub embeddings: Vec<PathBuf>,
    /// The word BREAK ends a chunk, as in A1111's web UI
    #[arg(long)]
    pub break_chunks: bool,
    /// [text] weighs 1.1 times less, as in A1111's web UI
    #[arg(long)]
    pub square_brackets: bool,
    /// Pad T5's tokens to at least this many [default: 256, for SD3 77]
    #[arg(long, value_name = "N")]
    pub t5_tokens: Option<NonZeroUsize>,
}

/// How the encoders read tokens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub struct ReadingArgs {
    /// Which layer of a CLIP is taken: 1 the last, 2 the one before; also as ComfyUI's -1 and -2 [default: what the
    /// diffusion model was taught with, for SD1 the last, for SDXL the one before]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub clip_skip: Option<i32>,
    /// T5 may not look at its padding
    #[arg(long)]
    pub t5_mask: bool,
}

/// Sizes that SDXL's denoiser is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes for SDXL, written as metadata")]
pub struct SizeArgs {
    /// Size of the picture that is asked for, before any cropping
    #[arg(long, value_name = "WIDTHxHEIGHT")]
    pub picture_size: Option<String>,
    /// How much of it is cut off at the left and at the top [default: 0,0]
    #[arg(long, value_name = "LEFT,TOP", requires = "picture_size")]
    pub crop: Option<String>,
    /// Size after cropping [default: the picture's]
    #[arg(long, value_name = "WIDTHxHEIGHT", requires = "picture_size")]
    pub target_size: Option<String>,
}

/// Show the tokens and weights that a text encoder reads of a prompt
///
/// CLIP's vocabulary is built in; T5 and Qwen3 need the tokenizer.json of the model.
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The prompt
    #[arg(value_name = "PROMPT", required_unless_present = "prompt_file")]
    #[arg(conflicts_with = "prompt_file")]
    pub prompt: Option<String>,
    /// Read the prompt from this UTF-8 file; one line break at its end does not count
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// The encoder that reads: clip_l, clip_g, clip_h, t5 or qwen3
    #[arg(long, value_name = "ENCODER", default_value = "clip_l")]
    pub encoder: EncoderKind,
    /// The tokenizer.json of the T5 or Qwen3, or the model's folder
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub syntax: SyntaxArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}
