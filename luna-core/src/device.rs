//! Where a model lives and in which precision it computes.

use crate::{Error, ErrorKind, Result};
use std::{fmt, str::FromStr};

/// The device that holds a model's weights and runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Device {
    /// The CPU, through Luna's own kernels.
    #[default]
    Cpu,
    /// An NVIDIA GPU by ordinal; needs the feature `cuda`.
    Cuda(usize),
    /// An Apple GPU by ordinal; needs the feature `metal`.
    Metal(usize),
}

impl Device {
    /// The tensor library's handle of this device.
    pub(crate) fn open(self) -> Result<candle_core::Device> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda(ordinal) => candle_core::Device::new_cuda(ordinal),
            Self::Metal(ordinal) => candle_core::Device::new_metal(ordinal),
        }
        .map_err(|error| {
            Error::new(ErrorKind::Device, format!("device {self} cannot be used: {error}"))
                .remedy("use `cpu`, or a build with the feature `cuda` or `metal` on a machine that has the GPU")
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal(ordinal) => write!(f, "metal:{ordinal}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, ordinal) = text.split_once(':').unwrap_or((text, "0"));
        match (name, ordinal.parse()) {
            ("cpu", _) if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Ok(ordinal)) => Ok(Self::Cuda(ordinal)),
            ("metal", Ok(ordinal)) => Ok(Self::Metal(ordinal)),
            _ => Err(Error::new(ErrorKind::InvalidInput, "no such device")
                .expected("`cpu`, `cuda`, `cuda:N`, `metal` or `metal:N`")
                .found(format!("`{text}`"))),
        }
    }
}

/// The precision of activations. Weights stay as the file stores them and are widened on use;
/// sums are always accumulated in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16: the range of f32, 8 bits of precision.
    Bf16,
    /// IEEE half: 11 bits of precision, largest value 65 504.
    F16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// Its usual short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The tensor library's dtype of this precision.
    pub(crate) const fn dtype(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::Bf16 => candle_core::DType::BF16,
            Self::F16 => candle_core::DType::F16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "no such precision")
                .expected("`f32`, `bf16` or `f16`")
                .found(format!("`{text}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal(1)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse::<Precision>().unwrap(), precision);
        }
        for wrong in ["", "cpu:0", "gpu", "cuda:", "cuda:-1", "cuda:x"] {
            assert_eq!(wrong.parse::<Device>().unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
