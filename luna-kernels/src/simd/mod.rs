//! One vector of f32 lanes, as each instruction set offers it.
//!
//! Enters: pointers and lanes. Leaves: lanes and memory. Kernels are written once over [`Simd`]; the files beside this one are the only
//! places that name an instruction.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// A token that proves an instruction set is there, with its operations on vectors of `LANES` f32.
///
/// # Safety
/// All memory methods: the pointer is valid for `LANES` elements (or for the given number of them); no alignment is needed.
/// `min`, `max` return their second argument where either is NaN, so the argument that may be NaN comes second.
pub trait Simd: Copy + Send + Sync + 'static {
    /// `LANES` f32 values.
    type V: Copy;
    /// Lanes of a vector; divides 16.
    const LANES: usize;
    /// Rows of the register tile of a matrix product.
    const ROWS: usize;
    /// Vectors across the register tile; `LANES * COLS` divides 32.
    const COLS: usize;
    /// Whether products ask for lines of weights just before they read them. Processors with AVX2 read ahead well enough by themselves.
    const ASKS_AHEAD: bool = false;

    /// The same value in each lane.
    fn splat(self, x: f32) -> Self::V;
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn nfma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c` plus, per lane, the product of two pairs of bf16 that fill the lane's bits.
    #[inline(always)]
    fn dot_bf16(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let ((a0, a1), (b0, b1)) = (self.split_bf16(a), self.split_bf16(b));
        self.fma(a1, b1, self.fma(a0, b0, c))
    }
    /// Separates the pairs of bf16 that fill the lanes' bits: the first of each pair, the second of each pair.
    fn split_bf16(self, pairs: Self::V) -> (Self::V, Self::V);
    /// The smaller.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The greater.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The nearest integral value, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `v * 2^n` for integral `n` in -252..=252.
    fn scale2(self, v: Self::V, n: Self::V) -> Self::V;
    /// `1 / a` to within 2 units in the last place, for normal `a` with a normal reciprocal.
    fn recip(self, a: Self::V) -> Self::V;
    /// Per lane `a` where `x < 0`, else `b`.
    fn where_negative(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes.
    fn sum(self, a: Self::V) -> f32;
    /// The greatest lane.
    fn top(self, a: Self::V) -> f32;

    /// Reads a vector.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` elements; the same holds for the readers below.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` elements; the same holds for the writers below.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Writes a vector past the caches where the instruction set can.
    ///
    /// # Safety
    /// As `store`, and `p` is aligned to 64 bytes. Another thread may read what was written only after [`Simd::fence`].
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise covers a plain write.
        unsafe { self.store(p, v) }
    }
    /// Makes streamed writes visible to whoever synchronises with this thread afterwards.
    #[inline(always)]
    fn fence(self) {}
    /// Reads `n <= LANES` values, zeros behind them.
    ///
    /// # Safety
    /// `p` is valid for reading `n` elements.
    unsafe fn load_head(self, p: *const f32, n: usize) -> Self::V;
    /// Writes the first `n <= LANES` lanes.
    ///
    /// # Safety
    /// `p` is valid for writing `n` elements.
    unsafe fn store_head(self, p: *mut f32, v: Self::V, n: usize);
    /// Reads bf16.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn load_bf16(self, p: *const u16) -> Self::V;
    /// Writes bf16, rounded to nearest even.
    ///
    /// # Safety
    /// As `store`.
    unsafe fn store_bf16(self, p: *mut u16, v: Self::V);
    /// Reads f16.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn load_f16(self, p: *const u16) -> Self::V;
    /// Writes f16, rounded to nearest even.
    ///
    /// # Safety
    /// As `store`.
    unsafe fn store_f16(self, p: *mut u16, v: Self::V);
    /// Reads fp8 e4m3fn.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn load_e4m3(self, p: *const u8) -> Self::V;
    /// Reads fp8 e5m2.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn load_e5m2(self, p: *const u8) -> Self::V;
    /// Writes the transpose of `LANES` rows of `LANES` words of four bytes, whatever they are. Rows lie `from_step` and `to_step` bytes
    /// apart.
    ///
    /// # Safety
    /// All rows are valid, for reading and for writing; no alignment is needed.
    #[inline(always)]
    unsafe fn transpose(self, from: *const u8, from_step: usize, to: *mut u8, to_step: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: word `i` of row `j`, and word `j` of row `i`.
                unsafe {
                    let word = from.add(j * from_step).cast::<[u8; 4]>().add(i).read();
                    to.add(i * to_step).cast::<[u8; 4]>().add(j).write(word);
                }
            }
        }
    }
    /// Asks for the cache line at `p`, which need not be valid memory.
    fn prefetch(self, p: *const u8);
    /// The same for what is wanted later: no nearer than the second-level cache, where the instruction set can say so.
    #[inline(always)]
    fn prefetch_far(self, p: *const u8) {
        self.prefetch(p);
    }

    /// All zeros.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
}
