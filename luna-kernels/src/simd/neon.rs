//! Four lanes of NEON.

use super::Simd;
use crate::isa::Kernel;
use crate::weight::{e4m3_to_f32, e5m2_to_f32};
use half::f16;
use std::arch::aarch64::*;

/// The token of NEON; made only in [`call`].
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// Runs a kernel with NEON instructions.
///
/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn call<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Neon(()))
}

/// Declares register operations that need nothing but the instruction set.
macro_rules! lanewise {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token exists only where NEON does.
            unsafe { $body }
        }
    )*};
}

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const ROWS: usize = 6;
    const COLS: usize = 4;

    lanewise! {
        splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        nfma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmsq_f32(c, a, b);
        split_bf16(pairs: float32x4_t) -> (float32x4_t, float32x4_t) = {
            let raw = vreinterpretq_u32_f32(pairs);
            let high = vandq_u32(raw, vdupq_n_u32(0xffff_0000));
            (vreinterpretq_f32_u32(vshlq_n_u32::<16>(raw)), vreinterpretq_f32_u32(high))
        };
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        round(a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        scale2(v: float32x4_t, n: float32x4_t) -> float32x4_t = {
            let n = vcvtq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            vmulq_f32(vmulq_f32(v, pow2(half)), pow2(vsubq_s32(n, half)))
        };
        recip(a: float32x4_t) -> float32x4_t = vdivq_f32(vdupq_n_f32(1.0), a);
        where_negative(x: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltzq_f32(x), a, b);
        sum(a: float32x4_t) -> f32 = vaddvq_f32(a);
        top(a: float32x4_t) -> f32 = vmaxvq_f32(a);
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller gives four readable elements.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the caller gives four writable elements.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize) -> float32x4_t {
        let mut lanes = [0.0f32; 4];
        // SAFETY: the caller gives `n <= 4` readable elements.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n.min(4));
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, v: float32x4_t, n: usize) {
        let mut lanes = [0.0f32; 4];
        // SAFETY: the caller gives `n <= 4` writable elements.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n.min(4));
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> float32x4_t {
        // SAFETY: the caller gives four readable elements.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: float32x4_t) {
        // SAFETY: the caller gives four writable elements; NEON is there.
        unsafe {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            vst1_u16(p, vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(v, v), rounded, quiet)));
        }
    }
    // The conversion instructions of f16 are not stable in Rust yet, so these two go by way of integers.
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> float32x4_t {
        // SAFETY: the caller gives four readable elements; NEON is there.
        unsafe {
            let raw = p.cast::<[u16; 4]>().read_unaligned();
            let lanes = raw.map(|bits| f16::from_bits(bits).to_f32());
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: float32x4_t) {
        let mut lanes = [0.0f32; 4];
        // SAFETY: the caller gives four writable elements; NEON is there.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            p.cast::<[u16; 4]>().write_unaligned(lanes.map(|x| f16::from_f32(x).to_bits()));
        }
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, p: *const u8) -> float32x4_t {
        // SAFETY: the caller gives four readable elements; NEON is there.
        unsafe {
            let lanes = p.cast::<[u8; 4]>().read_unaligned().map(e4m3_to_f32);
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn load_e5m2(self, p: *const u8) -> float32x4_t {
        // SAFETY: the caller gives four readable elements; NEON is there.
        unsafe {
            let lanes = p.cast::<[u8; 4]>().read_unaligned().map(e5m2_to_f32);
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}

/// `2^n` for integers -126..=127.
#[inline(always)]
unsafe fn pow2(n: int32x4_t) -> float32x4_t {
    // SAFETY: the caller holds the NEON token.
    unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) }
}
