//! Eight lanes of AVX2 with FMA and F16C.

use super::Simd;
use crate::isa::Kernel;
use std::arch::x86_64::*;

/// The token of AVX2; made only in [`call`].
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs a kernel with AVX2 instructions.
///
/// # Safety
/// The machine has the features named below.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn call<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx2(()))
}

/// Declares register operations that need nothing but the instruction set.
macro_rules! lanewise {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token exists only where AVX2 does.
            unsafe { $body }
        }
    )*};
}

/// Declares memory operations; their callers answer for the pointers.
macro_rules! memory {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token exists only where AVX2 does, and the caller gives valid memory.
            unsafe { $body }
        }
    )*};
}

/// All bits set in the first `n` lanes.
#[inline(always)]
unsafe fn head(n: usize) -> __m256i {
    static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the window holds 16 values and starts at most at 8; the caller holds the AVX2 token.
    unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n.min(8)).cast()) }
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const COLS: usize = 2;

    lanewise! {
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        nfma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fnmadd_ps(a, b, c);
        split_bf16(pairs: __m256) -> (__m256, __m256) = {
            let raw = _mm256_castps_si256(pairs);
            let high = _mm256_and_si256(raw, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(raw)), _mm256_castsi256_ps(high))
        };
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        round(a: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        scale2(v: __m256, n: __m256) -> __m256 = {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            _mm256_mul_ps(_mm256_mul_ps(v, pow2(half)), pow2(_mm256_sub_epi32(n, half)))
        };
        recip(a: __m256) -> __m256 = _mm256_div_ps(_mm256_set1_ps(1.0), a);
        where_negative(x: __m256, a: __m256, b: __m256) -> __m256 =
            _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps()));
        sum(a: __m256) -> f32 = {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        };
        top(a: __m256) -> f32 = {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        };
    }

    memory! {
        load(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        store(p: *mut f32, v: __m256) -> () = _mm256_storeu_ps(p, v);
        load_head(p: *const f32, n: usize) -> __m256 = _mm256_maskload_ps(p, head(n));
        store_head(p: *mut f32, v: __m256, n: usize) -> () = _mm256_maskstore_ps(p, head(n), v);
        load_bf16(p: *const u16) -> __m256 =
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))));
        store_bf16(p: *mut u16, v: __m256) -> () = _mm_storeu_si128(p.cast(), round_bf16(v));
        load_f16(p: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
        store_f16(p: *mut u16, v: __m256) -> () =
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        load_e4m3(p: *const u8) -> __m256 = {
            // The seven bits below the sign, moved to where f16 keeps exponent and mantissa, are the value over 2^8.
            let raw = _mm_cvtepu8_epi16(_mm_loadl_epi64(p.cast()));
            let body = _mm_and_si128(raw, _mm_set1_epi16(0x7f));
            let sign = _mm_slli_epi16::<8>(_mm_xor_si128(raw, body));
            let nan = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(body, _mm_set1_epi16(0x7f)));
            let half = _mm_or_si128(sign, _mm_slli_epi16::<7>(body));
            let wide = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0));
            _mm256_blendv_ps(wide, _mm256_set1_ps(f32::NAN), _mm256_castsi256_ps(nan))
        };
        load_e5m2(p: *const u8) -> __m256 =
            _mm256_cvtph_ps(_mm_slli_epi16::<8>(_mm_cvtepu8_epi16(_mm_loadl_epi64(p.cast()))));
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const u8, from_step: usize, to: *mut u8, to_step: usize) {
        // SAFETY: the token exists only where AVX2 does; the caller gives valid memory.
        unsafe { transpose(from, from_step, to, to_step) }
    }

    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: __m256) {
        // SAFETY: the token exists only where AVX2 does; the caller gives valid, aligned memory.
        unsafe { _mm256_stream_ps(p, v) }
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

/// Transposes 8 rows of 8 words.
#[inline(always)]
pub(super) unsafe fn transpose(from: *const u8, from_step: usize, to: *mut u8, to_step: usize) {
    // SAFETY: the caller holds the AVX2 token and gives eight valid rows on both sides.
    unsafe {
        let (first, second) = (columns_of_four(from, from_step), columns_of_four(from.add(4 * from_step), from_step));
        for i in 0..4 {
            _mm256_storeu_ps(to.add(i * to_step).cast(), _mm256_permute2f128_ps::<0x20>(first[i], second[i]));
            _mm256_storeu_ps(to.add((i + 4) * to_step).cast(), _mm256_permute2f128_ps::<0x31>(first[i], second[i]));
        }
    }
}

/// Columns `i` and `i + 4` of four rows, in the halves of vector `i`.
#[inline(always)]
unsafe fn columns_of_four(from: *const u8, step: usize) -> [__m256; 4] {
    // SAFETY: as above.
    unsafe {
        let (a, b) = (_mm256_loadu_ps(from.cast()), _mm256_loadu_ps(from.add(step).cast()));
        let (c, d) = (_mm256_loadu_ps(from.add(2 * step).cast()), _mm256_loadu_ps(from.add(3 * step).cast()));
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(low, low2),
            _mm256_shuffle_ps::<0xee>(low, low2),
            _mm256_shuffle_ps::<0x44>(high, high2),
            _mm256_shuffle_ps::<0xee>(high, high2),
        ]
    }
}

/// `2^n` for integers -126..=127.
#[inline(always)]
unsafe fn pow2(n: __m256i) -> __m256 {
    // SAFETY: the caller holds the AVX2 token.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
}

/// Rounds to nearest even, NaN stays NaN.
#[inline(always)]
unsafe fn round_bf16(v: __m256) -> __m128i {
    // SAFETY: the caller holds the AVX2 token.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let high = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high))
    }
}
