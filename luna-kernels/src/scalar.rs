//! Element types of activations.
//!
//! Enters: pointers to f32, bf16 or f16. Leaves: vectors of f32, the only type kernels compute in.

use crate::block::Plain;
use crate::simd::Simd;
use half::{bf16, f16};

/// An activation element: `f32`, `half::bf16` or `half::f16`. Arithmetic on it is done in f32.
pub trait Scalar: Element + crate::instances::Instances + Plain + Default + std::fmt::Debug + PartialEq {
    /// Widens.
    fn to_f32(self) -> f32;
    /// Rounds to nearest even.
    fn from_f32(x: f32) -> Self;
}

/// Vector access to an element type; sealed, for it names the instruction sets.
pub trait Element: Copy + 'static {
    /// True for `half::bf16`, whose products have an instruction of their own on some machines.
    const IS_BF16: bool = false;

    /// Reads a vector.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` elements.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` elements.
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V);
    /// Writes a vector past the caches where that can be done for this type.
    ///
    /// # Safety
    /// As `store`, with `p` aligned to 64 bytes; see [`Simd::stream`].
    #[inline(always)]
    unsafe fn stream<S: Simd>(s: S, p: *mut Self, v: S::V) {
        // SAFETY: the caller's promise covers a plain write.
        unsafe { Self::store(s, p, v) }
    }
    /// Reads `n <= LANES` elements, zeros behind them.
    ///
    /// # Safety
    /// `p` is valid for reading `n` elements.
    unsafe fn load_head<S: Simd>(s: S, p: *const Self, n: usize) -> S::V;
    /// Writes the first `n <= LANES` lanes.
    ///
    /// # Safety
    /// `p` is valid for writing `n` elements.
    unsafe fn store_head<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize);
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise is the callee's demand, here and in the three below.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V) {
        // SAFETY: as in `load`.
        unsafe { s.store(p, v) }
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(s: S, p: *mut Self, v: S::V) {
        // SAFETY: as in `load`.
        unsafe { s.stream(p, v) }
    }
    #[inline(always)]
    unsafe fn load_head<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        // SAFETY: as in `load`.
        unsafe { s.load_head(p, n) }
    }
    #[inline(always)]
    unsafe fn store_head<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize) {
        // SAFETY: as in `load`.
        unsafe { s.store_head(p, v, n) }
    }
}

/// Half-precision elements: whole vectors by the instruction set, partial ones over a small array.
macro_rules! half_element {
    ($type:ty, $load:ident, $store:ident, $is_bf16:expr) => {
        impl Element for $type {
            const IS_BF16: bool = $is_bf16;

            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
                // SAFETY: the caller's promise is the callee's demand; the type is a transparent `u16`.
                unsafe { s.$load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V) {
                // SAFETY: as in `load`.
                unsafe { s.$store(p.cast(), v) }
            }
            #[inline(always)]
            unsafe fn load_head<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
                let mut lanes = [0u16; 16];
                // SAFETY: the caller gives `n <= LANES <= 16` readable elements.
                unsafe {
                    std::ptr::copy_nonoverlapping(p.cast::<u16>(), lanes.as_mut_ptr(), n.min(S::LANES));
                    s.$load(lanes.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store_head<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize) {
                let mut lanes = [0u16; 16];
                // SAFETY: the caller gives `n <= LANES <= 16` writable elements.
                unsafe {
                    s.$store(lanes.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(lanes.as_ptr(), p.cast::<u16>(), n.min(S::LANES));
                }
            }
        }
    };
}

half_element!(bf16, load_bf16, store_bf16, true);
half_element!(f16, load_f16, store_f16, false);

impl Scalar for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Scalar for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
}

impl Scalar for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
}
