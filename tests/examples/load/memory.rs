//! Eight processes that use one model: of a daemon, and each its own copy.

use super::{
    Options,
    server::{Server, client, proportional},
};
use luna_core::{
    Latent, Runtime,
    protocol::VaeDecode,
    vae::{DecodeOptions, Vae},
};
use std::{
    io::Read,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

const PROCESSES: usize = 8;

fn latent(channels: usize) -> Latent {
    let values = (0..channels * 8 * 8).map(|i| (i as f32 * 0.1).sin()).collect();
    Latent::new([1, channels, 8, 8], values).expect("a latent")
}

/// One of the processes: uses the VAE of a file by a daemon or by itself, says so, and waits for its end.
pub fn use_model(words: &[String]) -> ExitCode {
    let [file, address] = words else { return ExitCode::FAILURE };
    let file = Path::new(file);
    let mut kept = None;
    let done = if address == "alone" {
        let vae = Vae::open(file, &Runtime::cpu().expect("a CPU")).expect("a VAE");
        let channels = vae.latent_channels();
        let done = vae.decode(&latent(channels), &DecodeOptions::default()).is_ok();
        kept = Some(vae);
        done
    } else {
        let client = client(address, true);
        let model = client.put_model(file, None).expect("a model below the daemon's root");
        let request = VaeDecode { vae: Some(model.model_id), ..VaeDecode::default() };
        [4, 16].into_iter().any(|channels| client.vae_decode(&latent(channels), &request, &Default::default()).is_ok())
    };
    println!("{}", if done { "done." } else { "not!." });
    thread::sleep(Duration::from_secs(600));
    drop(kept);
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
