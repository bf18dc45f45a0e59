//! Eight processes that use one model: of a daemon, and each its own copy.

use super::{
    Options,
    server::{Server, client, proportional},
};
use luna_core::{
    ArrayView, Latent, Limits, Result, Runtime,
    checkpoint::{Checkpoint, ComponentKind},
    diffusion::{Denoiser, ForwardInput, ForwardOptions},
    protocol::{ClipEncode, ModelForward, TextWish, VaeDecode},
    text::{Conditioner, Prompt, TextLoadOptions, TextModel, TextOptions},
    vae::{DecodeOptions, Vae},
};
use std::{
    any::Any,
    io::Read,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

const PROCESSES: usize = 8;
const PROMPT: &str = "a photo of a cat";

fn latent(channels: usize) -> Result<Latent> {
    let values = (0..channels * 8 * 8).map(|i| (i as f32 * 0.1).sin()).collect();
    Latent::new([1, channels, 8, 8], values)
}

/// Hands a step of SD1.5's sizes to `forward`.
fn step<T>(forward: impl FnOnce(&ForwardInput) -> Result<T>) -> Result<()> {
    let (x, context) = ([0.5; 4 * 8 * 8], vec![0.1; 77 * 768]);
    let (x, context) = (ArrayView::new(&[1, 4, 8, 8], &x)?, ArrayView::new(&[1, 77, 768], &context)?);
    forward(&ForwardInput::new(x, &[500.0], context)).map(drop)
}

/// Uses each component of a file, and gives back what it has loaded.
fn use_alone(file: &Path) -> Result<Vec<Box<dyn Any>>> {
    let (runtime, checkpoint) = (Runtime::cpu()?, Checkpoint::open(file, &Limits::default())?);
    let found = checkpoint.recognise();
    let mut kept: Vec<Box<dyn Any>> = Vec::new();
    if found.component(ComponentKind::Vae).is_some() {
        let vae = Vae::load(&checkpoint, &runtime)?;
        vae.decode(&latent(vae.latent_channels())?, &DecodeOptions::default())?;
        kept.push(Box::new(vae));
    }
    if found.component(ComponentKind::TextEncoder).is_some() {
        let model = TextModel::load(&checkpoint, &runtime, &TextLoadOptions::default())?;
        Conditioner::new(&[&model])?.encode(&[Prompt::from(PROMPT)], &TextOptions::default())?;
        kept.push(Box::new(model));
    }
    if found.component(ComponentKind::Diffusion).is_some() {
        let denoiser = Denoiser::open(file, &runtime)?;
        step(|input| denoiser.forward(input, &ForwardOptions::default()))?;
        kept.push(Box::new(denoiser));
    }
    Ok(kept)
}

/// The same by a daemon.
fn use_daemon(file: &Path, address: &str) -> Result<()> {
    let client = client(address, true);
    let (model, options) = (client.put_model(file, None)?, Default::default());
    for component in &model.components {
        match component.as_str() {
            "vae" => {
                let request = VaeDecode { vae: Some(model.model_id.clone()), ..VaeDecode::default() };
                let decode = |channels| client.vae_decode(&latent(channels)?, &request, &options);
                decode(4).or_else(|_| decode(16))?;
            }
            "text_encoder" => {
                let with = TextWish { models: vec![model.model_id.clone()], ..TextWish::default() };
                let request = ClipEncode { positive: PROMPT.to_owned(), with, ..ClipEncode::default() };
                client.clip_encode(&request, &options)?;
            }
            "diffusion" => {
                let request = ModelForward { model: Some(model.model_id.clone()), ..ModelForward::default() };
                step(|input| client.model_forward(input, &request, &options))?;
            }
            other => panic!("nothing here uses a {other}"),
        }
    }
    Ok(())
}

/// One of the processes: uses a file by a daemon or by itself, says so, and waits for its end.
pub fn use_model(words: &[String]) -> ExitCode {
    let [file, address] = words else { return ExitCode::FAILURE };
    let file = Path::new(file);
    let used = if address == "alone" { use_alone(file) } else { use_daemon(file, address).map(|()| Vec::new()) };
    println!("{}", if used.is_ok() { "done." } else { "not!." });
    if let Err(error) = &used {
        eprintln!("  {error}");
    }
    thread::sleep(Duration::from_secs(600));
    drop(used);
    ExitCode::SUCCESS
}

fn start(file: &Path, address: &str) -> Option<Child> {
    let own = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(own);
    child.arg("use-model").arg(file).arg(address).stdout(Stdio::piped());
    let mut child = child.spawn().expect("this program");
    let mut told = [0; 5];
    let heard = child.stdout.take().expect("piped").read_exact(&mut told);
    (heard.is_ok() && &told == b"done.").then_some(child)
}

fn end(processes: Vec<Child>) {
    for mut process in processes {
        // It waits for nothing else.
        let _ = process.kill();
        let _ = process.wait();
    }
}

pub fn run(options: &Options) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("vae.safetensors");
    let file = options.checkpoint.clone().unwrap_or_else(|| {
        let mut bench = Command::new(&options.program);
        bench.args(["bench", "--shape", "sdxl", "--size", "64", "--runs", "1", "--keep-model"]).arg(&made);
        assert!(bench.stdout(Stdio::null()).status().is_ok_and(|status| status.success()), "a model");
        made
    });
    let bytes = std::fs::metadata(&file).expect("a file").len() as f64 / f64::from(1 << 20);
    let root = file.canonicalize().expect("a path").parent().expect("a folder").to_owned();
    let server = Server::start(&options.program, "127.0.0.1:0", &["--model-root", &root.display().to_string()]);
    let sum = |processes: &[Child]| processes.iter().map(|process| proportional(process.id())).sum::<f64>();
    let shared: Vec<_> = (0..PROCESSES).map_while(|_| start(&file, &server.address)).collect();
    let (clients, daemon) = (sum(&shared), proportional(server.pid()));
    let all = shared.len() == PROCESSES;
    end(shared);
    drop(server);
    let copies: Vec<_> = (0..PROCESSES).map_while(|_| start(&file, "alone")).collect();
    let alone = sum(&copies);
    let each = copies.len();
    end(copies);
    println!("  a file of {bytes:.0} MiB, memory in MiB (pages of several processes shared out among them)");
    println!("  {PROCESSES} processes and a daemon: {daemon:.0} + {clients:.0} = {:.0}", daemon + clients);
    println!("  {each} processes with a copy each: {alone:.0}");
    all && each == PROCESSES && daemon + clients < alone
}
