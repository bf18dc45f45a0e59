//! Saves pictures durably until it is killed, for `tests/kill.rs`. `durable_saver FOLDER FIRST COUNT` finishes what an
//! earlier run left in FOLDER, hands in COUNT jobs of two pictures each, tagged from FIRST on, and prints each job's
//! first tag once it is taken in; `end` when all are finished.

use std::{
    env,
    error::Error,
    io::{Write, stdout},
    path::PathBuf,
};

use luna_core::{
    picture::Format,
    save::{JobState, Picture, SaveConfig, SaveImage, SaveJob, SavePool, Template},
};

const SIDE: usize = 48;

/// Noise that begins with its tag, so that a file says whose it is.
fn picture(tag: u32) -> Result<SaveImage, Box<dyn Error>> {
    let mut state = tag;
    let noise = std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let values: Vec<u8> = tag.to_le_bytes().into_iter().chain(noise).take(SIDE * SIDE * 3).collect();
    Ok(SaveImage::new(Picture::from_u8([1, SIDE, SIDE, 3], values)?, Format::PNG))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, first, count] = &arguments[..] else { return Err("usage: durable_saver FOLDER FIRST COUNT".into()) };
    let (folder, first, count) = (PathBuf::from(folder), first.parse::<u32>()?, count.parse::<u32>()?);
    let mut config = SaveConfig::new(folder.join("out"));
    config.spool = Some(folder.join("spool"));
    let pool = SavePool::new(config)?;
    for tag in (first..first + 2 * count).step_by(2) {
        let mut job = SaveJob::new(vec![picture(tag)?, picture(tag + 1)?]);
        // Half of them must count, the others are numbered because their name is taken.
        job.name = Template::parse(if tag % 4 == 0 { "c_%counter:4%" } else { "same" })?;
        job.durable = true;
        pool.submit(job)?;
        writeln!(stdout(), "{tag}")?;
    }
    pool.close();
    if let Some(status) = pool.list().iter().find(|status| status.state() != JobState::Done) {
        return Err(format!("{status:?}").into());
    }
    writeln!(stdout(), "end")?;
    Ok(())
}
