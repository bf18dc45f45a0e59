//! Weights as files store them.
//!
//! Enters: little-endian bytes with an element type. Leaves: f32 values. It must not know layouts or kernels.

use crate::simd::Simd;
use half::{bf16, f16};

/// Element type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// IEEE single precision, 4 bytes.
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// bfloat16, 2 bytes.
    BF16,
    /// fp8 with 4 exponent and 3 mantissa bits (e4m3fn: no infinities, NaN is 0x7f and 0xff), 1 byte.
    F8E4M3,
    /// fp8 with 5 exponent and 2 mantissa bits, IEEE-like, 1 byte.
    F8E5M2,
    /// Blocks of 32: 8-bit numbers with one factor.
    Q8_0,
    /// Blocks of 256: 4-bit numbers, a factor and an offset for each 32.
    Q4K,
    /// Blocks of 256: 5-bit numbers, a factor and an offset for each 32.
    Q5K,
    /// Blocks of 256: 6-bit numbers, a factor for each 16.
    Q6K,
}

impl WeightType {
    /// Elements that are stored together: 1, or the block of a quantised type.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one element, or of one block of a quantised type.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Whether elements are numbers of a few bits with factors for each block.
    pub const fn is_quantised(self) -> bool {
        self.block() > 1
    }

    /// Bytes of so many elements; `None` if they do not fill whole blocks, or are too many to count.
    pub const fn bytes(self, elements: usize) -> Option<usize> {
        if elements.is_multiple_of(self.block()) {
            (elements / self.block()).checked_mul(self.block_bytes())
        } else {
            None
        }
    }

    /// Bytes of one element of a type that is not quantised.
    pub(crate) const fn size(self) -> usize {
        debug_assert!(!self.is_quantised());
        self.block_bytes()
    }

    /// Widens `LANES` stored elements at any alignment.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` elements of this type.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Simd>(self, s: S, p: *const u8) -> S::V {
        // SAFETY: the caller's promise; the readers need no alignment.
        unsafe {
            match self {
                Self::F32 => s.load(p.cast()),
                Self::F16 => s.load_f16(p.cast()),
                Self::BF16 => s.load_bf16(p.cast()),
                Self::F8E4M3 => s.load_e4m3(p),
                Self::F8E5M2 => s.load_e5m2(p),
                _ => unreachable!("quantised elements are widened by the block"),
            }
        }
    }

    /// Widens the element stored in `bytes` (its `size()` first bytes).
    #[inline]
    pub(crate) fn widen(self, bytes: &[u8]) -> f32 {
        match self {
            Self::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Self::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            Self::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            Self::F8E4M3 => e4m3_to_f32(bytes[0]),
            Self::F8E5M2 => e5m2_to_f32(bytes[0]),
            _ => unreachable!("quantised elements are widened by the block"),
        }
    }
}

/// Weights in memory as a file stores them: little-endian, row-major, any alignment.
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'a> {
    /// Element type.
    pub dtype: WeightType,
    /// The elements.
    pub bytes: &'a [u8],
}

impl<'a> WeightView<'a> {
    /// f32 values of this machine as a view.
    #[cfg(target_endian = "little")]
    pub fn from_f32(values: &'a [f32]) -> Self {
        // SAFETY: any f32 is four valid bytes, and the borrow is kept.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        Self { dtype: WeightType::F32, bytes }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.block_bytes() * self.dtype.block()
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Widens e4m3fn.
#[inline]
pub(crate) fn e4m3_to_f32(byte: u8) -> f32 {
    let body = byte & 0x7f;
    let magnitude = if body == 0x7f { f32::NAN } else { f16::from_bits(u16::from(body) << 7).to_f32() * 256.0 };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Widens e5m2, the upper byte of an f16.
#[inline]
pub(crate) fn e5m2_to_f32(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_matches_its_definition() {
        for byte in 0..=255u8 {
            let (sign, exponent, mantissa) = (byte >> 7, (byte >> 3) & 15, byte & 7);
            let got = e4m3_to_f32(byte);
            if exponent == 15 && mantissa == 7 {
                assert!(got.is_nan());
                continue;
            }
            let m = f32::from(mantissa) / 8.0;
            let size = if exponent == 0 { m * 2f32.powi(-6) } else { (1.0 + m) * 2f32.powi(i32::from(exponent) - 7) };
            assert_eq!(got, if sign == 1 { -size } else { size }, "byte {byte:#x}");
        }
        assert_eq!(e4m3_to_f32(0x7e), 448.0);
        assert_eq!(e5m2_to_f32(0x7b), 57344.0);
        assert!(e5m2_to_f32(0x7c).is_infinite());
    }
}
