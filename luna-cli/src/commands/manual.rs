//! `man` and `completions`: made from the definition of the command line, so that they cannot go stale.

use crate::args::Args;
use clap::CommandFactory;
use luna_core::{
    Error, Result,
    files::{IfExists, write_atomically},
};
use std::{fs, path::Path};

/// The completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "luna-cli", &mut script);
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// The manual page, or, with a folder, one page for each command in it.
pub fn pages(folder: Option<&Path>) -> Result<String> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = folder else { return page(&command) };
    fs::create_dir_all(folder).map_err(|error| Error::io(format!("make the folder {}", folder.display()), error))?;
    let mut written = String::new();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = folder.join(format!("{name}.1"));
        write_atomically(&path, page(command)?.as_bytes(), IfExists::Replace)?;
        written += &format!("{}\n", path.display());
    }
    Ok(written)
}

fn page(command: &clap::Command) -> Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Error::io("write the manual page", error))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
