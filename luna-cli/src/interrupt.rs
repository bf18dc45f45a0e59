//! Ctrl-C. Enters: the system's interrupt. Leaves: a cancelled token, so that the running call ends, its unfinished
//! file vanishes and the program says so. A second interrupt ends the process at once.

use luna_core::{CancelToken, Error, ErrorKind, Result};

/// A token that the first Ctrl-C cancels.
pub fn token() -> Result<CancelToken> {
    let token = CancelToken::new();
    let handle = token.clone();
    ctrlc::set_handler(move || {
        if handle.is_cancelled() {
            std::process::exit(crate::exit::INTERRUPTED.into());
        }
        handle.cancel();
    })
    .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot listen for Ctrl-C: {error}")).source(error))?;
    Ok(token)
}
