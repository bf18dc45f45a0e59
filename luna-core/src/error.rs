//! One error type for every room. Enters: what went wrong, as the room that saw it knows it. Leaves: a kind that
//! says whose fault it is, and the words for a person: what was expected, what was found, what to do.

use std::fmt;

/// Whose fault an error is, and so what a caller can do about it.
///
/// The numbers are the ones the C ABI and the wire protocol use; they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument is wrong: shape, range, combination. The caller can correct it.
    InvalidInput = 1,
    /// A file is damaged or hostile: truncated, overlapping tensors, a wrong header.
    InvalidFile = 2,
    /// The file is sound, but Luna has no use for it: another family, another format, another dtype.
    Unsupported = 3,
    /// No such file, model, LoRA, job or tensor.
    NotFound = 4,
    /// The system refused: permissions, disk full, broken pipe.
    Io = 5,
    /// Something from outside is larger than the limit that was set for it.
    LimitExceeded = 6,
    /// Memory did not suffice.
    OutOfMemory = 7,
    /// The caller cancelled the call.
    Cancelled = 8,
    /// Too much is waiting already; try again later.
    Busy = 9,
    /// The result holds NaN or infinity.
    NonFinite = 10,
    /// The device is missing or failed.
    Device = 11,
    /// A fault of Luna's own. Please report it.
    Internal = 12,
}

impl ErrorKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::InvalidInput,
        Self::InvalidFile,
        Self::Unsupported,
        Self::NotFound,
        Self::Io,
        Self::LimitExceeded,
        Self::OutOfMemory,
        Self::Cancelled,
        Self::Busy,
        Self::NonFinite,
        Self::Device,
        Self::Internal,
    ];

    /// The stable number of this kind, from 1.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The stable name of this kind in snake case, as JSON output and the wire carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::InvalidFile => "invalid_file",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not_found",
            Self::Io => "io",
            Self::LimitExceeded => "limit_exceeded",
            Self::OutOfMemory => "out_of_memory",
            Self::Cancelled => "cancelled",
            Self::Busy => "busy",
            Self::NonFinite => "non_finite",
            Self::Device => "device",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error of every fallible function in this crate.
///
/// ```
/// use luna_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::InvalidInput, "the latent has a wrong channel count")
///     .expected("4 channels")
///     .found("16 channels")
///     .remedy("use a Flux VAE, or a latent of an SD1.5 or SDXL model");
/// assert_eq!(
///     error.to_string(),
///     "the latent has a wrong channel count: expected 4 channels, found 16 channels; \
///      use a Flux VAE, or a latent of an SD1.5 or SDXL model"
/// );
/// ```
#[derive(Debug)]
pub struct Error(Box<Details>);

#[derive(Debug)]
struct Details {
    kind: ErrorKind,
    message: String,
    expected: Option<String>,
    found: Option<String>,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind; `message` says what is wrong, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            expected: None,
            found: None,
            remedy: None,
            source: None,
        }))
    }

    /// The caller cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the call was cancelled")
    }

    /// The system refused `action`; the kind follows from the system's reason.
    pub fn io(action: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::OutOfMemory => ErrorKind::OutOfMemory,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {action}: {error}")).source(error)
    }

    /// Says what would have been right.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = Some(expected.into());
        self
    }

    /// Says what was there instead.
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.0.found = Some(found.into());
        self
    }

    /// Says what the caller can do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Keeps the error this one follows from.
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts the name of a file or tensor before the message.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong, without expectation and remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What would have been right, where that can be said.
    pub fn expectation(&self) -> Option<&str> {
        self.0.expected.as_deref()
    }

    /// What was there instead, where that can be said.
    pub fn finding(&self) -> Option<&str> {
        self.0.found.as_deref()
    }

    /// What the caller can do, where something can be done.
    pub fn advice(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { message, expected, found, remedy, .. } = &*self.0;
        f.write_str(message)?;
        let mut separator = ": ";
        for (word, text) in [("expected", expected), ("found", found)] {
            if let Some(text) = text {
                write!(f, "{separator}{word} {text}")?;
                separator = ", ";
            }
        }
        match remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<candle_core::Error> for Error {
    /// Tensor operations are only reached with checked shapes, so what fails there is the device or Luna itself.
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        let kind = if text.contains("out of memory") || text.contains("OUT_OF_MEMORY") {
            ErrorKind::OutOfMemory
        } else if text.contains("Cuda") || text.contains("CUDA") || text.contains("Metal") {
            ErrorKind::Device
        } else {
            ErrorKind::Internal
        };
        Self::new(kind, format!("a tensor operation failed: {text}")).source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_distinct_stable_numbers_and_names() {
        for (i, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.code(), i as i32 + 1);
            assert!(ErrorKind::ALL[..i].iter().all(|other| other.name() != kind.name()));
        }
    }

    #[test]
    fn io_errors_keep_the_systems_reason() {
        let error = Error::io("open x", std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("cannot open x: "));
        assert!(std::error::Error::source(&error).unwrap().is::<std::io::Error>());
    }
}
