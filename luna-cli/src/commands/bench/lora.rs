//! `bench lora`: what a LoRA costs, in each mode and the first time, in time and memory.

use super::lora_model::{self, Ready, Subject};
use crate::{
    commands::outcome::runtime,
    output::Output,
    settings::{self, LoraSubject},
};
use luna_core::{
    CancelToken, Limits, PatchedRuns, Result,
    lora::{LoraFile, LoraStack, MergedCopies},
    memory,
};
use serde::Serialize;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What was measured.
#[derive(Serialize)]
pub struct LoraBenchOutcome {
    pub model: String,
    /// What each call is given.
    pub input: String,
    pub precision: &'static str,
    pub device: String,
    pub threads: usize,
    pub weight_bytes: u64,
    /// Adapters that found their layers.
    pub adapters: usize,
    /// What the LoRA holds in memory.
    pub lora_bytes: u64,
    /// The largest weight of the model in f32.
    pub largest_layer_bytes: u64,
    /// How the patched layers ran in functional mode.
    pub patched: PatchedRuns,
    pub rows: Vec<LoraTiming>,
    /// Reading and resolving the LoRA, once.
    pub read_seconds: f64,
    pub resolve_seconds: f64,
    /// Building and dropping the merged copy.
    pub merge_seconds: f64,
    pub unmerge_seconds: f64,
    /// How much more the process held at most in functional calls than in plain ones.
    pub functional_extra_bytes: Option<i64>,
    pub merged_extra_bytes: Option<i64>,
}

/// One way to call the model.
#[derive(Serialize)]
pub struct LoraTiming {
    /// `plain`, `functional`, `first`, `first_with_reading`, `merged`.
    pub way: &'static str,
    pub best_seconds: f64,
    pub median_seconds: f64,
    /// The median over the rounds of a call's time over that of the same round's plain one: what a machine does to both at
    /// once is not in it.
    pub ratio: f64,
    /// What the process held at most in a call that was not timed.
    pub memory_bytes: Option<u64>,
}

/// Runs all ways in turn, round by round, so that a machine that gets slower does so for all.
pub fn run(settings: &settings::LoraBench, token: &CancelToken, output: &Output) -> Result<LoraBenchOutcome> {
    let runtime = runtime(&settings.compute)?;
    let checkpoint = lora_model::open(&settings.subject)?;
    let subject = Subject::load(&checkpoint, settings, &runtime)?;
    let largest_layer_bytes = lora_model::largest_layer(&checkpoint);
    drop(checkpoint);
    let mut bench = Bench { settings, token, output, subject, samples: Default::default() };
    let (ready, [read_seconds, resolve_seconds], adapters) = bench.open(0)?;
    let mut patched = PatchedRuns::default();
    bench.warm(PLAIN, None)?;
    bench.warm(FUNCTIONAL, Some(&ready))?;
    for round in 1..=settings.runs {
        bench.measure(PLAIN, None)?;
        patched = bench.measure(FUNCTIONAL, Some(&ready))?;
        bench.first(round as u64)?;
    }
    let copies = MergedCopies::new(u64::MAX);
    let start = Instant::now();
    let merged = bench.subject.merge(&ready, &copies)?;
    let merge_seconds = start.elapsed().as_secs_f64();
    bench.warm(MERGED, Some(&merged))?;
    for _ in 0..settings.runs {
        bench.measure(MERGED, Some(&merged))?;
    }
    let start = Instant::now();
    drop(merged);
    let unmerge_seconds = start.elapsed().as_secs_f64();
    output.finish_progress();
    let rows = bench.rows();
    let held = |way: usize| rows.get(way).and_then(|row| row.memory_bytes);
    let extra = |way| Some(held(way)? as i64 - held(PLAIN)? as i64);
    Ok(LoraBenchOutcome {
        model: lora_model::name(&settings.subject),
        input: bench.subject.input(),
        precision: settings.compute.precision.name(),
        device: runtime.device().to_string(),
        threads: runtime.threads(),
        weight_bytes: bench.subject.weight_bytes(),
        adapters,
        lora_bytes: ready.bytes(),
        largest_layer_bytes,
        patched,
        read_seconds,
        resolve_seconds,
        merge_seconds,
        unmerge_seconds,
        functional_extra_bytes: extra(FUNCTIONAL),
        merged_extra_bytes: extra(MERGED),
        rows,
    })
}

const WAYS: [&str; 5] = ["plain", "functional", "first", "first_with_reading", "merged"];
const PLAIN: usize = 0;
const FUNCTIONAL: usize = 1;
const FIRST: usize = 2;
const FIRST_WITH_READING: usize = 3;
const MERGED: usize = 4;

/// A model, and what was measured of each way to call it.
struct Bench<'a> {
    settings: &'a settings::LoraBench,
    token: &'a CancelToken,
    output: &'a Output,
    subject: Subject,
    samples: [Samples; 5],
}

#[derive(Default)]
struct Samples {
    seconds: Vec<f64>,
    memory: Option<u64>,
}

impl Bench<'_> {
    /// A stack of one LoRA, the file that was named or a random one in memory by its seed; seconds of reading and of
    /// resolving it, and how many adapters apply.
    fn open(&self, seed: u64) -> Result<(Ready, [f64; 2], usize)> {
        let limits = Limits::default();
        let made = match &self.settings.subject {
            LoraSubject::Existing { .. } => None,
            LoraSubject::Random(shape, rank) => {
                Some(lora_model::random_lora(&lora_model::tensors(*shape)?, *rank, seed))
            }
        };
        let start = Instant::now();
        let lora = match (&self.settings.subject, made) {
            (LoraSubject::Existing { lora, .. }, _) => LoraFile::open(lora, &limits)?,
            (_, made) => LoraFile::from_bytes("random", made.unwrap_or_default(), &limits)?,
        };
        let read = start.elapsed().as_secs_f64();
        let stack = LoraStack::new().with(lora.into(), 0.8, 0.8)?;
        let (ready, coverage) = self.subject.resolve(&stack)?;
        Ok((ready, [read, start.elapsed().as_secs_f64() - read], coverage.applied()))
    }

    /// One call.
    fn measure(&mut self, way: usize, ready: Option<&Ready>) -> Result<PatchedRuns> {
        let call = self.output.watched_call("measuring", self.token);
        let start = Instant::now();
        let runs = self.subject.call(ready, self.settings, &call)?;
        self.samples[way].seconds.push(start.elapsed().as_secs_f64());
        Ok(runs)
    }

    /// One call whose time does not count: looking at the memory takes its own.
    fn warm(&mut self, way: usize, ready: Option<&Ready>) -> Result<()> {
        let call = self.output.watched_call("warming up", self.token);
        let watch = Watch::default();
        watch.during(|| self.subject.call(ready, self.settings, &call))?;
        self.samples[way].memory = watch.most();
        Ok(())
    }

    /// The first call with a LoRA that was never seen, alone and with reading and resolving it.
    fn first(&mut self, seed: u64) -> Result<()> {
        let (ready, opening, _) = self.open(seed)?;
        self.measure(FIRST, Some(&ready))?;
        let called = self.samples[FIRST].seconds.last().copied().unwrap_or_default();
        self.samples[FIRST_WITH_READING].seconds.push(called + opening.iter().sum::<f64>());
        Ok(())
    }

    fn rows(&self) -> Vec<LoraTiming> {
        let plain = &self.samples[PLAIN].seconds;
        let row = |(way, samples): (&&'static str, &Samples)| LoraTiming {
            way,
            best_seconds: samples.seconds.iter().copied().fold(f64::INFINITY, f64::min),
            median_seconds: median(samples.seconds.iter().copied()),
            ratio: median(samples.seconds.iter().zip(plain).map(|(seconds, plain)| seconds / plain)),
            memory_bytes: samples.memory,
        };
        WAYS.iter().zip(&self.samples).map(row).collect()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Looks every few milliseconds how much the process holds.
#[derive(Default)]
struct Watch {
    most: AtomicU64,
    done: AtomicBool,
}

impl Watch {
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !self.done.load(Ordering::Relaxed) {
                    self.most.fetch_max(memory::resident().unwrap_or(0), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
            let result = work();
            self.done.store(true, Ordering::Relaxed);
            result
        })
    }

    fn most(&self) -> Option<u64> {
        Some(self.most.load(Ordering::Relaxed)).filter(|most| *most > 0)
    }
}
