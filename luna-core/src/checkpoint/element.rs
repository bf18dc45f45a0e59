//! Element types of stored tensors.

use luna_kernels::WeightType;
use std::fmt;

/// How a checkpoint stores the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    F8E4m3,
    F8E5m2,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl ElementType {
    /// Its name as safetensors headers, or for quantised types GGUF files, spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4m3 => "F8_E4M3",
            Self::F8E5m2 => "F8_E5M2",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Elements that are stored together: 1, or the block of a quantised type.
    pub const fn block(self) -> usize {
        match self.kernel() {
            Some(kernel) => kernel.block(),
            None => 1,
        }
    }

    /// Bytes of one element, or of one block of a quantised type.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => WeightType::Q8_0.block_bytes(),
            Self::Q4K => WeightType::Q4K.block_bytes(),
            Self::Q5K => WeightType::Q5K.block_bytes(),
            Self::Q6K => WeightType::Q6K.block_bytes(),
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F8E4m3 | Self::F8E5m2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether it stands for real numbers.
    pub const fn is_float(self) -> bool {
        !matches!(self, Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U8 | Self::Bool)
    }

    /// The kernels' name of this type; none for f64, which no kernel reads, and for whole numbers.
    pub(crate) const fn kernel(self) -> Option<WeightType> {
        Some(match self {
            Self::F32 => WeightType::F32,
            Self::F16 => WeightType::F16,
            Self::Bf16 => WeightType::BF16,
            Self::F8E4m3 => WeightType::F8E4M3,
            Self::F8E5m2 => WeightType::F8E5M2,
            Self::Q8_0 => WeightType::Q8_0,
            Self::Q4K => WeightType::Q4K,
            Self::Q5K => WeightType::Q5K,
            Self::Q6K => WeightType::Q6K,
            _ => return None,
        })
    }

    /// The type of a safetensors header; `None` for sub-byte and complex types, which no known model uses.
    pub(super) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype;
        Some(match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::F8_E4M3 => Self::F8E4m3,
            Dtype::F8_E5M2 => Self::F8E5m2,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            _ => return None,
        })
    }

    /// The type of this number in a GGUF file.
    ///
    /// # Errors
    /// The name of a type that Luna does not read, where it has one.
    pub(super) fn from_gguf(number: u32) -> Result<Self, Option<&'static str>> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            24 => Self::I8,
            25 => Self::I16,
            26 => Self::I32,
            27 => Self::I64,
            28 => Self::F64,
            30 => Self::Bf16,
            2 => return Err(Some("Q4_0")),
            3 => return Err(Some("Q4_1")),
            6 => return Err(Some("Q5_0")),
            7 => return Err(Some("Q5_1")),
            10 => return Err(Some("Q2_K")),
            11 => return Err(Some("Q3_K")),
            16..=23 | 29 => return Err(Some("one of the IQ types")),
            _ => return Err(None),
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
