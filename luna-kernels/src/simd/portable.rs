//! Four lanes in plain Rust; the compiler makes of them what the baseline of the target offers.

use super::Simd;
use crate::weight::{e4m3_to_f32, e5m2_to_f32};
use half::{bf16, f16};

/// The token of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type Lanes = [f32; 4];

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// Reads four elements and widens each.
#[inline(always)]
unsafe fn widen<T: Copy>(p: *const T, f: impl Fn(T) -> f32) -> Lanes {
    // SAFETY: the caller gives four readable elements.
    let raw: [T; 4] = unsafe { p.cast::<[T; 4]>().read_unaligned() };
    [f(raw[0]), f(raw[1]), f(raw[2]), f(raw[3])]
}

impl Simd for Portable {
    type V = Lanes;
    const LANES: usize = 4;
    const ROWS: usize = 4;
    const COLS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        [x; 4]
    }
    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a / b)
    }
    // A fused multiply-add without hardware is a slow library call, so this rounds twice.
    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn nfma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        self.sub(c, self.mul(a, b))
    }
    #[inline(always)]
    fn split_bf16(self, pairs: Lanes) -> (Lanes, Lanes) {
        (pairs.map(|x| f32::from_bits(x.to_bits() << 16)), pairs.map(|x| f32::from_bits(x.to_bits() & 0xffff_0000)))
    }
    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: Lanes) -> Lanes {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn scale2(self, v: Lanes, n: Lanes) -> Lanes {
        zip(v, n, |v, n| {
            let n = n as i32;
            v * pow2(n >> 1) * pow2(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn recip(self, a: Lanes) -> Lanes {
        a.map(|a| 1.0 / a)
    }
    #[inline(always)]
    fn where_negative(self, x: Lanes, a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| if x[i] < 0.0 { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sum(self, a: Lanes) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn top(self, a: Lanes) -> f32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Lanes {
        // SAFETY: the caller gives four readable elements.
        unsafe { p.cast::<Lanes>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Lanes) {
        // SAFETY: the caller gives four writable elements.
        unsafe { p.cast::<Lanes>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize) -> Lanes {
        let mut v = [0.0; 4];
        // SAFETY: the caller gives `n <= 4` readable elements.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n.min(4)) };
        v
    }
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, v: Lanes, n: usize) {
        // SAFETY: the caller gives `n <= 4` writable elements.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n.min(4)) };
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Lanes {
        // SAFETY: as `load`.
        unsafe { widen(p, |bits| f32::from_bits(u32::from(bits) << 16)) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: Lanes) {
        // SAFETY: the caller gives four writable elements.
        unsafe { p.cast::<[u16; 4]>().write_unaligned(v.map(|x| bf16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Lanes {
        // SAFETY: as `load`.
        unsafe { widen(p, |bits| f16::from_bits(bits).to_f32()) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: Lanes) {
        // SAFETY: the caller gives four writable elements.
        unsafe { p.cast::<[u16; 4]>().write_unaligned(v.map(|x| f16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    unsafe fn load_e4m3(self, p: *const u8) -> Lanes {
        // SAFETY: as `load`.
        unsafe { widen(p, e4m3_to_f32) }
    }
    #[inline(always)]
    unsafe fn load_e5m2(self, p: *const u8) -> Lanes {
        // SAFETY: as `load`.
        unsafe { widen(p, e5m2_to_f32) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}
