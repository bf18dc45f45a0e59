//! Which instruction set runs, and the one place where generic kernels are compiled for each of them.
//!
//! Enters: a [`Kernel`] written once over [`Simd`]. Leaves: its result, computed with the widest instructions of this machine or with those
//! that the caller forced. It must not know what the kernels compute.

use crate::interrupt::Interrupt;
use crate::simd::{Simd, portable::Portable};
use crate::workspace::Workspace;

/// An instruction set this machine can run. Values of unsupported sets cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa {
    level: Level,
    dot_bf16: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The fastest instruction set of this machine.
    pub fn detect() -> Self {
        Self::widest().unwrap_or_else(Self::portable)
    }

    /// Plain Rust that every machine runs.
    pub fn portable() -> Self {
        Self { level: Level::Portable, dot_bf16: false }
    }

    /// Every instruction set this machine can run, the portable one first. Tests force each in turn.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::portable()];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                all.push(Self { level: Level::Avx2, dot_bf16: false });
            }
            if has_avx512() {
                all.push(Self { level: Level::Avx512, dot_bf16: false });
            }
        }
        if let Some(widest) = Self::widest()
            && !all.contains(&widest)
        {
            all.push(widest);
        }
        all
    }

    /// A name for reports: `portable`, `avx2`, `avx512`, `avx512-bf16` or `neon`.
    pub fn name(self) -> &'static str {
        match self.level {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if self.dot_bf16 => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }

    /// Whether products of bf16 by bf16 run on the machine's own dot-product instruction.
    pub fn has_dot_bf16(self) -> bool {
        self.dot_bf16
    }

    #[cfg(target_arch = "x86_64")]
    fn widest() -> Option<Self> {
        if has_avx512() {
            return Some(Self { level: Level::Avx512, dot_bf16: is_x86_feature_detected!("avx512bf16") });
        }
        has_avx2().then_some(Self { level: Level::Avx2, dot_bf16: false })
    }

    #[cfg(target_arch = "aarch64")]
    fn widest() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self { level: Level::Neon, dot_bf16: false })
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn widest() -> Option<Self> {
        None
    }

    /// Runs a kernel compiled for this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match self.level {
            Level::Portable => kernel.run(Portable),
            // SAFETY: this level is made only where AVX2, FMA and F16C were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { crate::simd::avx2::call(kernel) },
            // SAFETY: this level is made only where the AVX-512 features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { crate::simd::avx512::call(kernel) },
            // SAFETY: this level is made only where NEON was detected.
            #[cfg(target_arch = "aarch64")]
            Level::Neon => unsafe { crate::simd::neon::call(kernel) },
        }
    }

    /// Runs a kernel that multiplies pairs of bf16, with the machine's own instruction where it is in use.
    pub(crate) fn run_dot_bf16<K: Kernel>(self, kernel: K) -> K::Out {
        #[cfg(target_arch = "x86_64")]
        if self.dot_bf16 {
            // SAFETY: the flag is set only where AVX512-BF16 was detected beside AVX-512.
            return unsafe { crate::simd::avx512::call_bf16(kernel) };
        }
        self.run(kernel)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Work written once over any instruction set.
///
/// Implementations and everything they call must be `#[inline(always)]`, or the vectors leave the registers. That goes for closures,
/// too, which adaptors such as `for_each` may call instead of inlining: vectors are worked on in plain loops.
pub(crate) trait Kernel {
    /// What the work yields.
    type Out;
    /// Does the work with the instructions of `S`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// What every kernel call needs beside its operands: scratch memory, a way to stop it, and the instruction set.
///
/// Threads are those of the ambient rayon pool: call within `pool.install` to choose them.
///
/// ```
/// use luna_kernels::{Context, Isa, Workspace};
/// use std::sync::atomic::AtomicBool;
///
/// let (workspace, stop) = (Workspace::new(), AtomicBool::new(false));
/// let cx = Context::new(&workspace).with_interrupt(&stop).with_isa(Isa::portable());
/// assert_eq!(cx.isa().name(), "portable");
/// ```
#[derive(Clone, Copy)]
pub struct Context<'a> {
    isa: Isa,
    workspace: &'a Workspace,
    stop: &'a dyn Interrupt,
}

impl<'a> Context<'a> {
    /// The machine's best instructions, no interruption.
    pub fn new(workspace: &'a Workspace) -> Self {
        Self { isa: Isa::detect(), workspace, stop: &() }
    }

    /// The same, stopped by `stop`.
    pub fn with_interrupt(self, stop: &'a dyn Interrupt) -> Self {
        Self { stop, ..self }
    }

    /// The same on a forced instruction set.
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The scratch memory in use.
    pub fn workspace(&self) -> &'a Workspace {
        self.workspace
    }

    /// True once the caller wants no more work done.
    pub fn interrupted(&self) -> bool {
        self.stop.interrupted()
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("isa", &self.isa).field("workspace", &self.workspace).finish_non_exhaustive()
    }
}
