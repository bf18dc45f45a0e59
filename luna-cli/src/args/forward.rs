//! What was typed after `forward`.

use super::{AttentionArgs, ComputeArgs, ConnectArgs, LoraArgs, ModeArg, ReportArgs, WriteArgs};
use clap::Args;
use std::path::PathBuf;

/// One step of a sampler: a denoiser's raw prediction for a noisy latent
///
/// Reads `x`, `timesteps`, `context` and, where the model takes them, `y`, `guidance` and control residuals; writes `out`,
/// what ComfyUI's `diffusion_model(x, timesteps, context, y=...)` gives. Works with Stable Diffusion UNets, Flux and
/// Z-Image, alone or inside a checkpoint.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// A .safetensors file with `x` [batch, channels, height, width], `timesteps` [batch], `context` [batch, tokens,
    /// width] and what else the model takes
    ///
    /// `y` [batch, width]; `guidance` [batch]; control residuals as ComfyUI's lists, `control/input/0` and so on,
    /// `control/middle/0`, `control/output/0`. Or diffusers' inputs of Z-Image, an item at a time: `x0`, `x1`, ...
    /// [channels, 1, height, width], `cap0`, `cap1`, ... [tokens, width] and `t` [items], which give `out0`, `out1`, ...
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,
    /// The file to write: `out`, f32 [batch, channels, height, width]
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// A denoiser's file, a checkpoint with a denoiser in it, or a diffusers folder
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub model: PathBuf,
    #[command(flatten)]
    pub lora: LoraArgs,
    /// How LoRAs are applied; the results are the same but for rounding [default: functional]
    #[arg(long, value_enum, value_name = "MODE", requires = "loras", help_heading = "LoRA")]
    pub mode: Option<ModeArg>,
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
