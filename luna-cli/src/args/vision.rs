//! What was typed after `vision`.

use super::{ComputeArgs, ConnectArgs, ReportArgs, WriteArgs};
use crate::settings::parse_region;
use clap::Args;
use luna_core::vision::Region;
use std::path::PathBuf;

/// Encode pictures with a CLIP or SigLIP vision encoder
///
/// Writes what transformers' models of the same weights give: `last_hidden_state`, `penultimate`, `pooler_output` and,
/// for a CLIP with its projection, `image_embeds`. Several pictures become one batch, whatever their sizes.
#[derive(Debug, Args)]
pub struct VisionArgs {
    /// PNG, JPEG or WebP files; .safetensors files with `image`; or one with `pixel_values`, f32 [batch, 3, height,
    /// width], taken as already preprocessed
    #[arg(required = true, value_name = "IMAGE")]
    pub inputs: Vec<PathBuf>,
    /// The vision encoder: a folder as save_pretrained writes it, a file, or a checkpoint with one in it
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,
    /// The .safetensors file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Look at this part of each picture: WIDTHxHEIGHT+LEFT+TOP in pixels; more than once for several parts
    #[arg(long, value_name = "REGION", value_parser = parse_region)]
    pub crop: Vec<Region>,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub write: WriteArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}
