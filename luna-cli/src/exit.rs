//! Exit statuses. Enters: the kind of an error. Leaves: a number that scripts can rely on.

use luna_core::ErrorKind;

/// Interrupted by Ctrl-C, as shells count it: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The kind's stable number plus one, so that a wrong argument gives 2 whether the parser or a model refuses it;
/// a cancelled call is one that Ctrl-C interrupted.
pub fn status(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Cancelled => INTERRUPTED,
        kind => kind.code() as u8 + 1,
    }
}
