//! What this machine can do at most.
//!
//! Enters: an instruction set. Leaves: measured arithmetic and memory rates, against which kernels are judged.

use crate::isa::{Context, Isa, Kernel};
use crate::simd::Simd;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Measured limits of the ambient threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// f32 operations a second in units of 1e9; a multiply-add counts as two.
    pub gflops: f64,
    /// Bytes read from memory a second in units of 1e9.
    pub read_gbytes: f64,
    /// Threads measured.
    pub threads: usize,
}

/// Measures both limits on the ambient threads, for about `time` in all (200 ms give steady numbers).
pub fn peak(time: Duration, cx: &Context<'_>) -> Peak {
    let threads = rayon::current_num_threads();
    let share = time / 8;
    let best = |measure: &dyn Fn() -> f64| (0..4).map(|_| measure()).fold(0.0, f64::max);
    let gflops = best(&|| arithmetic(cx.isa(), threads, share)) / 1e9;
    // Far more than the last-level cache of one core complex.
    // Written first: pages that nothing wrote to are all one page, which is in the cache.
    let mut memory = cx.workspace().take::<f32>(48 << 20);
    memory.fill(1.0);
    let read_gbytes = best(&|| reading(cx.isa(), threads, share, &memory)) / 1e9;
    Peak { gflops, read_gbytes, threads }
}

fn arithmetic(isa: Isa, threads: usize, time: Duration) -> f64 {
    let start = Instant::now();
    let work: u64 = (0..threads)
        .into_par_iter()
        .with_max_len(1)
        .map(|_| {
            let mut done = 0;
            while start.elapsed() < time {
                done += isa.run(MultiplyAdd { rounds: 20_000 });
            }
            done
        })
        .sum();
    work as f64 / start.elapsed().as_secs_f64()
}

fn reading(isa: Isa, threads: usize, time: Duration, memory: &[f32]) -> f64 {
    let part = memory.len() / threads / 4096 * 4096;
    let start = Instant::now();
    let bytes: usize = (0..threads)
        .into_par_iter()
        .with_max_len(1)
        .map(|thread| {
            let mut bytes = 0;
            for chunk in memory[thread * part..(thread + 1) * part].chunks(1 << 18).cycle() {
                black_box(isa.run(ReadSum(chunk)));
                bytes += size_of_val(chunk);
                if start.elapsed() >= time {
                    break;
                }
            }
            bytes
        })
        .sum();
    bytes as f64 / start.elapsed().as_secs_f64()
}

/// Independent multiply-adds in registers; yields the number of operations.
struct MultiplyAdd {
    rounds: u64,
}

impl Kernel for MultiplyAdd {
    type Out = u64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        let (x, y) = (s.splat(black_box(0.999_999)), s.splat(black_box(1e-6)));
        let mut sums = [x; 12];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = s.fma(*sum, x, y);
            }
        }
        let mut total = s.zero();
        for sum in sums {
            total = s.add(total, sum);
        }
        black_box(s.sum(total));
        self.rounds * 12 * S::LANES as u64 * 2
    }
}

/// Reads in four places at a time, as more of the machine's memory is then on its way than in one.
struct ReadSum<'a>(&'a [f32]);

impl Kernel for ReadSum<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.zero(); 4];
        let part = self.0.len() / 4;
        for at in (0..part / S::LANES * S::LANES).step_by(S::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a vector at `at` ends within its quarter.
                *sum = s.add(*sum, unsafe { s.load(self.0.as_ptr().add(i * part + at)) });
            }
        }
        s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
    }
}
