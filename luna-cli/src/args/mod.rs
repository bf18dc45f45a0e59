//! What was typed. Enters: the command line. Leaves: words sorted into fields, each of the right type, nothing
//! looked up and nothing combined; that is for `settings`.

// What stands here is the help of the program: `[batch]` is a shape, no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod config;
mod daemon;
mod describe;
mod forward;
mod groups;
mod lora;
mod save;
mod text;
mod vision;

pub use config::{ConfigArgs, ConfigCheckArgs, ConfigCommand};
pub use daemon::{
    AddressArgs, ConnectArgs, LogArgs, ServeArgs, StartArgs, StatusArgs, StopArgs, UnloadArgs, WatchArgs,
};
pub use describe::{DescribeArgs, SamplingArgs};
pub use forward::ForwardArgs;
pub use groups::{
    AttentionArgs, ComputeArgs, LatentFormatArg, ModelArgs, ReportArgs, ShapeArg, SizeRuleArg, TileArgs, WriteArgs,
};
pub use lora::{LoraArgs, LoraCommand, LoraCommandArgs, LoraInspectArgs, ModeArg};
pub use save::{EncodingArgs, ExistsArg, FormatArg, GateArg, GateArgs, MetadataArgs, NamingArgs, SaveArgs};
pub use text::{EncoderArgs, ReadingArgs, SizeArgs, SyntaxArgs, TextArgs, TokenizeArgs};
pub use vision::VisionArgs;

use clap::{Parser, Subcommand};
use std::{num::NonZeroUsize, path::PathBuf};

const ABOUT: &str =
    "Pictures to latents and back, prompts to conditioning, with any Stable Diffusion, SDXL, SD3 or Flux model";

const EXAMPLES: &str = "\
Examples:
  luna-cli demo                                           see it work on the bundled photograph
  luna-cli encode photo.jpg -o latent.safetensors         with the bundled demonstration model, moonlet
  luna-cli decode latent.safetensors -o out.png
  luna-cli decode latent.safetensors -o out.png --vae sd_xl_base_1.0.safetensors
  luna-cli forward step.safetensors -o out.safetensors --model v1-5-pruned-emaonly.safetensors --lora ink.safetensors:0.8
  luna-cli text 'a (red:1.3) fox' -o cond.safetensors --negative blurry --checkpoint sd_xl_base_1.0.safetensors
  luna-cli inspect sd_xl_base_1.0.safetensors
  luna-cli vision photo.jpg --model clip-vit-large-patch14 -o features.safetensors
  luna-cli describe photo.jpg --model Qwen3-VL-2B-Instruct --prompt 'Describe this picture.' --stream
  luna-cli save out.png --format webp -o gallery --template '%time:YYYY-mm-dd%/%counter:5%'";

const ENVIRONMENT: &str = "\
Settings: options win over variables of the environment, these over the configuration file, which LUNA_CONFIG or --config
names or which lies in the usual place; `luna-cli config show` tells all of them, their variables and defaults.

Exit status:
  0 done; 2 wrong arguments or input; 3 damaged file; 4 unsupported file; 5 not found; 6 refused by the system;
  7 above a limit; 8 memory does not suffice; 10 busy; 11 NaN or infinity; 12 device; 13 fault of Luna's own;
  130 interrupted";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "luna-cli", version, about = ABOUT, max_term_width = 110)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}"))]
pub struct Args {
    /// Read settings from this file, not from the usual place
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// One of Luna's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(DemoArgs),
    Encode(EncodeArgs),
    Decode(DecodeArgs),
    Forward(ForwardArgs),
    Inspect(InspectArgs),
    Lora(LoraCommandArgs),
    // Boxed, as those with by far the most options.
    Text(Box<TextArgs>),
    Tokenize(Box<TokenizeArgs>),
    Save(Box<SaveArgs>),
    Vision(VisionArgs),
    Describe(Box<DescribeArgs>),
    Bench(BenchArgs),
    // Boxed as well.
    Serve(Box<ServeArgs>),
    Start(Box<StartArgs>),
    Stop(StopArgs),
    Status(StatusArgs),
    Unload(UnloadArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Take a bundled photograph through encode, latent and decode, and write pictures to compare
///
/// Uses the bundled VAE `moonlet`, a small demonstration model trained on procedural pictures only: it shows that
/// everything works, not what a real VAE is capable of.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The folder for original.png, decoded.png, side-by-side.png and latent.safetensors; made if missing
    #[arg(value_name = "FOLDER", default_value = "luna-demo")]
    pub folder: PathBuf,
    /// Use your own picture instead of the bundled photograph
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Encode pictures to a latent file
///
/// Several pictures of one size become one batch. The latent is what the VAE's encoder gives, unscaled, as ComfyUI's
/// VAE nodes hand it on; the model's scale and shift factors are stated in the file.
#[derive(Debug, clap::Args)]
pub struct EncodeArgs {
    /// PNG, JPEG or WebP files, or .safetensors files with `image`, f32 [batch, height, width, 3] in 0..1
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// The latent file to write: `latent`, f32 [batch, channels, height/8, width/8]
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Write the latent as a sampler sees it: (latent - shift) * scale
    #[arg(long)]
    pub scaled: bool,
    /// Draw a sample from the encoder's distribution instead of its mean
    #[arg(long)]
    pub sample: bool,
    /// The seed of the sample
    #[arg(long, value_name = "N", requires = "sample", default_value_t = 0)]
    pub seed: u64,
    /// What to do with sides that the VAE's factor (8 for nearly all) does not divide
    #[arg(long, value_enum, value_name = "RULE", default_value_t = SizeRuleArg::Crop)]
    pub size_rule: SizeRuleArg,
    #[command(flatten)]
    pub tiles: TileArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub write: WriteArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Decode a latent file to pictures
///
/// Reads `latent`, or `samples` or `latent_tensor` as ComfyUI writes them. A batch becomes numbered files:
/// -o out.png writes out_00001.png, out_00002.png and so on.
#[derive(Debug, clap::Args)]
pub struct DecodeArgs {
    /// The latent file
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,
    /// A .png, .jpg or .webp file, or .safetensors for `image`, f32 [batch, height, width, 3] in 0..1
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub tiles: TileArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub write: WriteArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Say what a model file holds and what Luna can do with it
///
/// Reads nothing but the header. For a file that Luna does not know it says what was looked for and which family is
/// nearest.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// A .safetensors or .gguf file, the .index.json of a sharded one, or a diffusers folder
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Measure speed and memory on this machine
///
/// Runs a model of the real shape with random weights made in memory, or your own file. The first run warms up and
/// is not counted.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = BenchSubject::Vae)]
    pub subject: BenchSubject,
    /// The architecture of the random model [default: sdxl for a VAE, clip-l for a text encoder,
    /// else sd15]
    #[arg(long, value_enum, value_name = "SHAPE", conflicts_with = "model")]
    pub shape: Option<ShapeArg>,
    /// Measure this model instead: a name (moonlet) or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub model: Option<String>,
    /// Keep the random model as this file
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub keep_model: Option<PathBuf>,
    /// Side of the square picture, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 512)]
    pub size: usize,
    /// Latents in each call of a UNet [default: 2], or sequences of 77 tokens in each of a text encoder [default: 1]
    #[arg(long, value_name = "N")]
    pub batch: Option<NonZeroUsize>,
    /// How many call the one UNet at the same time, each --runs times [default: 1]
    #[arg(long, value_name = "N")]
    pub callers: Option<NonZeroUsize>,
    /// Rank of the random LoRA, which is for every linear layer of attentions and feed-forward blocks [default: 32]
    #[arg(long, value_name = "N")]
    pub rank: Option<NonZeroUsize>,
    /// Measure this LoRA instead; needs --model
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with = "rank")]
    pub lora: Option<PathBuf>,
    #[command(flatten)]
    pub attention: AttentionArgs,
    /// Measure one direction of a VAE only
    #[arg(long, value_enum, value_name = "DIRECTION")]
    pub only: Option<Direction>,
    /// Counted runs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Print what each layer takes, in one more run
    #[arg(long)]
    pub layers: bool,
    #[command(flatten)]
    pub tiles: TileArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BenchSubject {
    /// A VAE: decode and encode
    Vae,
    /// A denoiser: one forward step
    Unet,
    /// A CLIP text encoder: one sequence of 77 tokens
    Text,
    /// LoRAs: a denoiser or a text encoder without one, with one in each mode, and with one that was never seen
    Lora,
}

/// A way through a VAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// Pictures to latents
    Encode,
    /// Latents to pictures
    Decode,
}

/// Print a completion script for your shell
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Print the manual page, or write those of all commands into a folder
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write luna-cli.1, luna-cli-encode.1 and so on into this folder
    #[arg(value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_exit_status() {
        for kind in luna_core::ErrorKind::ALL {
            let status = crate::exit::status(kind);
            assert!(ENVIRONMENT.contains(&format!("{status} ")), "the help does not name status {status} of {kind}");
        }
    }
}
