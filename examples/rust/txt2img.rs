//! A picture from text with an SD1.5 or SDXL checkpoint: prompts, Euler steps over `Denoiser::forward`, decode, save.
//!
//!     cargo run --release -p luna-examples --bin txt2img -- sd15.safetensors "a lighthouse at dusk" out.png

use clap::Parser;
use luna_core::{checkpoint::Checkpoint, diffusion::*, files::IfExists, picture::*, text::*, vae::Vae, *};
use rand::{Rng, SeedableRng};
use std::path::PathBuf;

/// Makes a picture from text with an SD1.5 or SDXL checkpoint.
#[derive(Parser)]
struct Args {
    checkpoint: PathBuf,
    prompt: String,
    output: PathBuf,
    #[arg(long, default_value = "")]
    negative: String,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// How much further the prompt is followed than away from the negative one
    #[arg(long, default_value_t = 7.0)]
    cfg: f32,
    #[arg(long, default_value_t = 512)]
    width: usize,
    #[arg(long, default_value_t = 512)]
    height: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A .safetensors file whose tensor `noise` is taken in place of the seed's
    #[arg(long)]
    noise: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (runtime, checkpoint) = (Runtime::cpu()?, Checkpoint::open(&args.checkpoint, &Limits::default())?);
    let text = TextModel::load(&checkpoint, &runtime, &TextLoadOptions::default())?;
    let denoiser = Denoiser::load(&checkpoint, &runtime, &LoadOptions::default())?;
    let vae = Vae::load(&checkpoint, &runtime)?;

    let sizes = PictureSizes::uncropped(args.width as u32, args.height as u32);
    let prompts = [&args.prompt, &args.negative].map(|prompt| Prompt::new(prompt.as_str()).sized(sizes));
    let encoded = Conditioner::new(&[&text])?.encode(&prompts, &TextOptions::default())?;

    let shape = [1, denoiser.facts().input_channels, args.height / 8, args.width / 8];
    let levels = NoiseLevel::schedule(args.steps);
    let mut x: Vec<f32> = match &args.noise {
        Some(path) => {
            Checkpoint::open(path, &Limits::default())?.tensor("noise").expect("a tensor `noise`").to_f32()?
        }
        None => {
            let normal = rand_chacha::ChaCha8Rng::seed_from_u64(args.seed).sample_iter(rand_distr::StandardNormal);
            normal.take(shape.iter().product()).collect()
        }
    };
    x.iter_mut().for_each(|x| *x *= levels[0].input_scale());
    for step in levels.windows(2) {
        let [now, next] = [step[0], step[1]];
        let seen: Vec<f32> = x.iter().map(|x| x / now.input_scale()).collect();
        let predict = |EncodedPrompt { conditioning, .. }: &EncodedPrompt| -> Result<Vec<f32>> {
            let (y, view) = (denoiser.pooled(conditioning)?, ArrayView::new(&shape, &seen)?);
            let input = ForwardInput::new(view, std::slice::from_ref(&now.timestep), conditioning.view());
            let input = ForwardInput { y: y.as_ref().map(Pooled::view), ..input };
            Ok(denoiser.forward(&input, &ForwardOptions::default())?.prediction.into_data())
        };
        let (wanted, unwanted) = (predict(&encoded.prompts[0])?, predict(&encoded.prompts[1])?);
        for (x, (wanted, unwanted)) in x.iter_mut().zip(wanted.iter().zip(unwanted)) {
            *x += (unwanted + args.cfg * (wanted - unwanted)) * (next.sigma - now.sigma);
        }
        println!("timestep {}", now.timestep);
    }
    let latent = Latent::new(shape, x)?.with_scale(vae.latent_scale(), true);
    let image = vae.decode(&latent, &Default::default())?.image;
    let (pixels, format) = (Pixels::of(&image, 0), Format::from_path(&args.output)?);
    write_picture(&args.output, &pixels, format, &Metadata::none(), IfExists::Replace).map(drop)
}
