//! What `vision` is to do.

use super::{Compute, DaemonAddress, Environment, compute, if_exists, refuse_local};
use crate::args::VisionArgs;
use luna_core::{Result, files::IfExists, vision::Region};
use std::path::PathBuf;

/// Settings of `vision`.
#[derive(Debug)]
pub struct Vision {
    pub inputs: Vec<PathBuf>,
    pub model: PathBuf,
    pub output: PathBuf,
    /// Parts of each picture; the whole where there are none.
    pub regions: Vec<Region>,
    pub compute: Compute,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
    pub if_exists: IfExists,
}

impl Vision {
    pub fn new(args: VisionArgs, environment: &Environment) -> Result<Self> {
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local(daemon.as_ref(), &args.compute)?;
        Ok(Self {
            inputs: args.inputs,
            model: args.model,
            output: args.output,
            regions: args.crop,
            compute: compute(args.compute, environment)?,
            daemon,
            if_exists: if_exists(args.write.no_clobber),
        })
    }
}

/// Reads `WIDTHxHEIGHT+LEFT+TOP`.
pub fn parse_region(text: &str) -> Result<Region, String> {
    let parse = || {
        let (size, place) = text.split_once('+')?;
        let ((width, height), (left, top)) = (size.split_once('x')?, place.split_once('+')?);
        let number = |text: &str| text.parse::<usize>().ok();
        Some(Region { top: number(top)?, left: number(left)?, height: number(height)?, width: number(width)? })
    };
    parse().ok_or_else(|| "expected WIDTHxHEIGHT+LEFT+TOP, such as 224x224+16+0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_as_picture_programs_write_them() {
        assert_eq!(parse_region("30x20+1+2"), Ok(Region { top: 2, left: 1, height: 20, width: 30 }));
        for wrong in ["", "30x20", "30x20+1", "30x20-1-2", "x+1+2", "30x20+1+2+3"] {
            assert!(parse_region(wrong).is_err(), "{wrong}");
        }
    }
}
