//! Sixteen lanes of AVX-512 (F, BW, DQ, VL).

use super::Simd;
use crate::isa::Kernel;
use std::arch::x86_64::*;

/// The token of AVX-512, with AVX512-BF16 where `BF16`; made only in [`call`] and [`call_bf16`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(());

/// Runs a kernel with AVX-512 instructions.
///
/// # Safety
/// The machine has the features named below.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")]
pub(crate) unsafe fn call<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx512::<false>(()))
}

/// Runs a kernel with AVX-512 instructions and the dot products of AVX512-BF16.
///
/// # Safety
/// The machine has the features named below.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi2")]
pub(crate) unsafe fn call_bf16<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx512::<true>(()))
}

/// Declares register operations that need nothing but the instruction set.
macro_rules! lanewise {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token exists only where AVX-512 does.
            unsafe { $body }
        }
    )*};
}

/// Declares memory operations; their callers answer for the pointers.
macro_rules! memory {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token exists only where AVX-512 does, and the caller gives valid memory.
            unsafe { $body }
        }
    )*};
}

/// The first `n` lanes.
#[inline(always)]
fn head(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 14;
    const COLS: usize = 2;
    const ASKS_AHEAD: bool = true;

    lanewise! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        nfma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        split_bf16(pairs: __m512) -> (__m512, __m512) = {
            let raw = _mm512_castps_si512(pairs);
            let high = _mm512_and_si512(raw, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(raw)), _mm512_castsi512_ps(high))
        };
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        scale2(v: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(v, n);
        recip(a: __m512) -> __m512 = {
            let guess = _mm512_rcp14_ps(a);
            _mm512_mul_ps(guess, _mm512_fnmadd_ps(a, guess, _mm512_set1_ps(2.0)))
        };
        where_negative(x: __m512, a: __m512, b: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_setzero_ps()), b, a);
        sum(a: __m512) -> f32 = _mm512_reduce_add_ps(a);
        top(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
    }

    memory! {
        load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        store(p: *mut f32, v: __m512) -> () = _mm512_storeu_ps(p, v);
        stream(p: *mut f32, v: __m512) -> () = _mm512_stream_ps(p, v);
        load_head(p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(head(n), p);
        store_head(p: *mut f32, v: __m512, n: usize) -> () = _mm512_mask_storeu_ps(p, head(n), v);
        load_bf16(p: *const u16) -> __m512 =
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))));
        store_bf16(p: *mut u16, v: __m512) -> () = _mm256_storeu_si256(p.cast(), round_bf16(v));
        load_f16(p: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        store_f16(p: *mut u16, v: __m512) -> () =
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v));
        load_e4m3(p: *const u8) -> __m512 = {
            // The seven bits below the sign, moved to where f16 keeps exponent and mantissa, are the value over 2^8.
            let raw = _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast()));
            let body = _mm256_and_si256(raw, _mm256_set1_epi16(0x7f));
            let sign = _mm256_slli_epi16::<8>(_mm256_xor_si256(raw, body));
            let nan = _mm256_cmpeq_epi16_mask(body, _mm256_set1_epi16(0x7f));
            let half = _mm256_or_si256(sign, _mm256_slli_epi16::<7>(body));
            let wide = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0));
            _mm512_mask_blend_ps(nan, wide, _mm512_set1_ps(f32::NAN))
        };
        load_e5m2(p: *const u8) -> __m512 =
            _mm512_cvtph_ps(_mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast()))));
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        if BF16 {
            // SAFETY: the token exists only where AVX512-BF16 does; any bits are pairs of bf16.
            return unsafe {
                _mm512_dpbf16_ps(
                    c,
                    std::mem::transmute::<__m512, __m512bh>(a),
                    std::mem::transmute::<__m512, __m512bh>(b),
                )
            };
        }
        let ((a0, a1), (b0, b1)) = (self.split_bf16(a), self.split_bf16(b));
        self.fma(a1, b1, self.fma(a0, b0, c))
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const u8, from_step: usize, to: *mut u8, to_step: usize) {
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: AVX-512 machines have AVX2; a quarter lies within what the caller gives.
            unsafe {
                super::avx2::transpose(from.add(j * from_step + i * 4), from_step, to.add(i * to_step + j * 4), to_step)
            };
        }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch never faults, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, p: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}

/// Rounds to nearest even by hand: the machine's own instruction (AVX512-BF16) flushes subnormal numbers.
#[inline(always)]
unsafe fn round_bf16(v: __m512) -> __m256i {
    // SAFETY: the caller holds the AVX-512 token.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet)))
    }
}
