//! How attention is computed: a choice between speed and memory that changes no result beyond rounding.

use crate::{Error, ErrorKind};
use std::{fmt, str::FromStr};

/// How much of the attention scores exists at a time. All modes give the same within rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AttentionMode {
    /// The fastest for the device; memory linear in the number of tokens.
    #[default]
    Auto,
    /// Chunks of queries by chunks of keys with a running softmax.
    Flash,
    /// Chunks of queries by all keys.
    Split,
    /// The whole score matrix of a head at once, as PyTorch's plain attention: memory quadratic in the number of tokens.
    Pytorch,
}

impl AttentionMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Flash, Self::Split, Self::Pytorch];

    /// Its short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Flash => "flash",
            Self::Split => "split",
            Self::Pytorch => "pytorch",
        }
    }

    /// The CPU kernels' name of this mode.
    pub(crate) const fn kernel(self) -> luna_kernels::AttentionMode {
        match self {
            Self::Auto => luna_kernels::AttentionMode::Auto,
            Self::Flash => luna_kernels::AttentionMode::Flash,
            Self::Split => luna_kernels::AttentionMode::Split,
            Self::Pytorch => luna_kernels::AttentionMode::Plain,
        }
    }
}

impl fmt::Display for AttentionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AttentionMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "no such attention mode")
                .expected("`auto`, `flash`, `split` or `pytorch`")
                .found(format!("`{text}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for mode in AttentionMode::ALL {
            assert_eq!(mode.to_string().parse::<AttentionMode>().unwrap(), mode);
        }
        assert_eq!("plain".parse::<AttentionMode>().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
