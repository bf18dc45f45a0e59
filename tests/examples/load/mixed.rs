//! Many clients at once, half of them by shared memory, with commands of every kind that the program's own models can
//! do: every answer is compared with the embedded one, and the daemon's memory is watched.

use super::{
    Options, median,
    server::{Server, client, until},
};
use luna_core::{
    Conditioning, ErrorKind, Image, Latent, Runtime,
    client::Client,
    protocol::{
        ClipEncode, ClipTokenize, Echo, GetStatus, ListModels, TensorRef, TextWish, Tokens, VaeDecode, VaeEncode,
    },
    text::{Conditioner, Prompt, Recipe, TextModel, TextOptions},
    vae::{DecodeOptions, EncodeOptions, Vae},
};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The memory may grow by this part, and this much, between the warm-up and the end.
const GROWTH: (f64, f64) = (1.05, 32.0);
const PROMPTS: [&str; 3] = ["a (red:1.3) fox under the moon", "", "rain, (harbour:0.7), boats"];

/// Questions, and their embedded answers.
struct Expected {
    pictures: Vec<(Image, Latent)>,
    latents: Vec<(Latent, Image)>,
    prompts: Vec<(&'static str, Conditioning)>,
    tokens: Tokens,
}

impl Expected {
    fn new(client: &Client) -> Self {
        let runtime = Runtime::cpu().expect("a CPU");
        let checkpoint = Vae::moonlet_checkpoint().expect("the bundled VAE");
        let vae = Vae::load(&checkpoint, &runtime).expect("a VAE");
        let text = TextModel::demo(&runtime).expect("the demonstration encoder");
        let picture = |(height, width): (usize, usize)| {
            let values = (0..height * width * 3).map(|i| 0.5 + 0.5 * (i as f32 * 0.013).sin()).collect();
            let image = Image::new([1, height, width, 3], values).expect("a picture");
            let latent = vae.encode(&image, &EncodeOptions::default()).expect("a latent").latent;
            (image, latent)
        };
        let pictures: Vec<_> = [(64, 96), (128, 64), (200, 136)].into_iter().map(picture).collect();
        let decoded = |(_, latent): &(Image, Latent)| {
            (latent.clone(), vae.decode(latent, &DecodeOptions::default()).expect("a picture").image)
        };
        let conditioner = Conditioner::with_recipe(&[&text], Recipe::Sd1).expect("one encoder");
        let encoded = |prompt: &&'static str| {
            let encoded = conditioner.encode(&[Prompt::new(*prompt)], &TextOptions::default()).expect("conditioning");
            (*prompt, (*encoded.prompts[0].conditioning).clone())
        };
        let expected = Self {
            latents: pictures.iter().map(decoded).collect(),
            prompts: PROMPTS.iter().map(encoded).collect(),
            tokens: tokens(client).expect("tokens"),
            pictures,
        };
        // The models that the daemon carries are registered when they are first named.
        for number in [3, 5] {
            assert!(ask(client, &expected, number).expect("an answer"), "an answer unlike the embedded one");
        }
        expected
    }
}

fn tokens(client: &Client) -> luna_core::Result<Tokens> {
    let request =
        ClipTokenize { text: PROMPTS[0].to_owned(), encoder: Some("clip_l".to_owned()), ..ClipTokenize::default() };
    Ok(client.clip_tokenize(&request, &Default::default())?.reply)
}

/// What became of the requests.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    busy: AtomicU64,
    wrong: AtomicU64,
    errors: Mutex<Vec<String>>,
}

/// Asks one thing; says whether the answer is the embedded one.
fn ask(client: &Client, expected: &Expected, number: usize) -> luna_core::Result<bool> {
    let any = Default::default();
    Ok(match number % 8 {
        0 => client.ping().is_ok(),
        1 => {
            let values: Vec<f32> = (0..(number * 7919) % 400_000 + 1).map(|i| (i + number) as f32).collect();
            let answer = client.call(&Echo {}, &[TensorRef::f32("x", &[values.len()], &values)])?;
            answer.message.tensor("x")?.values()? == values
        }
        2 => tokens(client)? == expected.tokens,
        3 | 6 => {
            let (image, latent) = &expected.pictures[number / 8 % expected.pictures.len()];
            let request = VaeEncode { vae: Some("moonlet".to_owned()), ..VaeEncode::default() };
            client.vae_encode(image, &request, &any)?.0.data() == latent.data()
        }
        4 => {
            let (latent, image) = &expected.latents[number / 8 % expected.latents.len()];
            let request = VaeDecode { vae: Some("moonlet".to_owned()), ..VaeDecode::default() };
            client.vae_decode(latent, &request, &any)?.0.data() == image.data()
        }
        5 => {
            let (prompt, conditioning) = &expected.prompts[number / 8 % expected.prompts.len()];
            let with =
                TextWish { models: vec!["demo".to_owned()], recipe: Some("sd1".to_owned()), ..TextWish::default() };
            let request = ClipEncode { positive: (*prompt).to_owned(), with, ..ClipEncode::default() };
            client.clip_encode(&request, &any)?.0[0].data() == conditioning.data()
        }
        _ if number.is_multiple_of(3) => client.call(&GetStatus {}, &[])?.reply.contains_key("pools"),
        _ => !client.call(&ListModels {}, &[])?.reply.models.is_empty(),
    })
}

fn work(client: &Client, expected: &Expected, tally: &Tally, ended: &AtomicBool, seed: usize) {
    let mut number = seed * 1009;
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        match ask(client, expected, number) {
            Ok(true) => drop(tally.done.fetch_add(1, Ordering::Relaxed)),
            Ok(false) => {
                println!("    request {number} of client {seed}, kind {}: another answer", number % 8);
                tally.wrong.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Busy => {
                tally.busy.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => tally.errors.lock().expect("no panic").push(error.to_string()),
        }
    }
}

pub fn run(options: &Options) -> bool {
    // A small queue, so that some are told to come again.
    let server = Server::start(&options.program, "127.0.0.1:0", &["--queue", "24"]);
    let expected = Expected::new(&server.client(false));
    let (tally, ended) = (Tally::default(), AtomicBool::new(false));
    let memory = thread::scope(|scope| {
        for seed in 0..options.clients {
            let (server, expected, tally, ended) = (&server, &expected, &tally, &ended);
            scope.spawn(move || work(&client(&server.address, seed % 2 == 0), expected, tally, ended, seed));
        }
        let start = Instant::now();
        let mut memory = Vec::new();
        while start.elapsed() < options.time {
            thread::sleep(Duration::from_millis(500).min(options.time / 20));
            memory.push(server.resident());
        }
        ended.store(true, Ordering::Relaxed);
        memory
    });
    let [done, busy, wrong] = [&tally.done, &tally.busy, &tally.wrong].map(|count| count.load(Ordering::Relaxed));
    let errors = tally.errors.into_inner().expect("no panic");
    let seconds = options.time.as_secs_f64();
    println!(
        "  {} clients for {seconds:.0} s: {done} answers ({:.0} a second) equal to the embedded ones, {wrong} not, {busy} busy, {} errors",
        options.clients,
        done as f64 / seconds,
        errors.len()
    );
    errors.iter().take(3).for_each(|error| println!("    {error}"));
    // The first fifth warms up.
    let part = (memory.len() / 5).max(1);
    let (before, after) = (median(memory[part..2 * part].to_vec()), median(memory[memory.len() - part..].to_vec()));
    println!("  resident after the warm-up {before:.0} MiB, at the end {after:.0} MiB");
    let last = server.client(false);
    let alone = || last.call(&GetStatus {}, &[]).is_ok_and(|answer| answer.reply["connections"] == 1);
    let left = until(alone);
    println!("  afterwards {:.0} MiB and {} descriptors", server.resident(), server.descriptors());
    wrong == 0 && errors.is_empty() && done > 0 && left && after < before * GROWTH.0 + GROWTH.1
}
