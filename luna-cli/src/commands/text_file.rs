//! Text files, read up to a size.

use luna_core::{Error, ErrorKind, Result};
use std::{fs::File, io::Read, path::Path};

/// Reads a UTF-8 file of at most `most` bytes.
///
/// # Errors
/// `NotFound` or `Io` if it cannot be read, `LimitExceeded` if it is larger, `InvalidInput` if it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let refused = |error| Error::io(format!("read {}", path.display()), error);
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to tell, also for a file that claims no length, such as a pipe.
    let file = File::open(path).map_err(refused)?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(ErrorKind::LimitExceeded, format!("{} is too large", path.display()))
            .expected(format!("at most {most} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, format!("{} is no text", path.display()))
            .expected("UTF-8")
            .found(error.to_string())
    })
}
