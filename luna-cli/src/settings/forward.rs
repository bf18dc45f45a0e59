//! What `forward` is to do.

use super::{Compute, DaemonAddress, Environment, Loras, compute, if_exists, refuse_local};
use crate::args::{ForwardArgs, ModeArg};
use luna_core::{AttentionMode, Result, files::IfExists};
use std::path::PathBuf;

/// Settings of `forward`.
#[derive(Debug)]
pub struct Forward {
    pub input: PathBuf,
    pub output: PathBuf,
    pub model: PathBuf,
    pub loras: Loras,
    pub mode: ModeArg,
    pub attention: AttentionMode,
    pub compute: Compute,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
    pub if_exists: IfExists,
}

impl Forward {
    pub fn new(args: ForwardArgs, environment: &Environment) -> Result<Self> {
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local(daemon.as_ref(), &args.compute)?;
        Ok(Self {
            input: args.input,
            output: args.output,
            model: args.model,
            loras: Loras::new(args.lora, false, environment)?,
            mode: args.mode.unwrap_or(ModeArg::Functional),
            attention: args.attention.attention.unwrap_or_default(),
            compute: compute(args.compute, environment)?,
            daemon,
            if_exists: if_exists(args.write.no_clobber),
        })
    }
}
