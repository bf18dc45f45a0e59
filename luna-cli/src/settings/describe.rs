//! What `describe` is to do.

use super::{Compute, DaemonAddress, Environment, Loras, compute, refuse_local};
use crate::args::{DescribeArgs, ModeArg, SamplingArgs};
use luna_core::{
    Result,
    vlm::{Question, Sampling},
};
use std::path::PathBuf;

/// Settings of `describe`.
#[derive(Debug)]
pub struct Describe {
    pub subject: Subject,
    pub model: PathBuf,
    pub mmproj: Option<PathBuf>,
    /// The strength that counts is that for text encoders.
    pub loras: Loras,
    pub mode: ModeArg,
    pub stream: bool,
    pub ids: bool,
    pub sampling: Sampling,
    pub max_tokens: usize,
    pub stop: Vec<String>,
    pub compute: Compute,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
}

/// What the model reads.
#[derive(Debug)]
pub enum Subject {
    /// Pictures and words.
    Question { images: Vec<PathBuf>, question: Question },
    /// A file with ids and patches.
    Inputs(PathBuf),
}

impl Describe {
    pub fn new(args: DescribeArgs, environment: &Environment) -> Result<Self> {
        let SamplingArgs { greedy: _, temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, stop } =
            args.sampling;
        let usual = Sampling::default();
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local(daemon.as_ref(), &args.compute)?;
        Ok(Self {
            subject: match args.inputs {
                Some(path) => Subject::Inputs(path),
                None => Subject::Question {
                    images: args.images,
                    question: Question { system: args.system, prompt: args.prompt.unwrap_or_default() },
                },
            },
            model: args.model,
            mmproj: args.mmproj,
            loras: Loras::new(args.lora, false, environment)?,
            mode: args.mode.unwrap_or(ModeArg::Functional),
            stream: args.stream,
            ids: args.ids,
            sampling: Sampling {
                temperature: temperature.unwrap_or(usual.temperature),
                top_k: top_k.unwrap_or(usual.top_k),
                top_p: top_p.unwrap_or(usual.top_p),
                min_p: min_p.unwrap_or(usual.min_p),
                repetition_penalty: repetition_penalty.unwrap_or(usual.repetition_penalty),
                seed: seed.unwrap_or(usual.seed),
            },
            max_tokens,
            stop,
            compute: compute(args.compute, environment)?,
            daemon,
        })
    }
}
