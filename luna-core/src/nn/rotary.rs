//! Rotary position embedding: pairs of a head's elements turn by an angle that grows with the position.
//!
//! `(a, b) → (a·cos θ − b·sin θ, b·cos θ + a·sin θ)`.

use super::{Tensor, cpu, portable};
use crate::Result;
pub(crate) use luna_kernels::RotaryLayout;

/// The angles of some tokens, the same for each head and each sequence.
pub(crate) struct RotaryTable {
    /// `[tokens, dim/2]`, f32.
    pub(super) cos: Tensor,
    /// `[tokens, dim/2]`, f32.
    pub(super) sin: Tensor,
    pub(super) layout: RotaryLayout,
}

impl RotaryTable {
    /// Takes angles in radians, `[tokens, dim/2]`.
    pub(crate) fn new(
        angles: &[f32],
        tokens: usize,
        layout: RotaryLayout,
        device: &candle_core::Device,
    ) -> Result<Self> {
        let half = angles.len().checked_div(tokens).unwrap_or_default();
        let tensor =
            |f: fn(f32) -> f32| Tensor::from_vec(angles.iter().map(|&x| f(x)).collect(), (tokens, half), device);
        Ok(Self { cos: tensor(f32::cos)?, sin: tensor(f32::sin)?, layout })
    }

    /// Positions 0, 1, … of a language model with heads of `dim`: `θ(t, i) = t · base^(−2i/dim)`, in f32 as the models
    /// were trained.
    pub(crate) fn of_positions(
        tokens: usize,
        dim: usize,
        base: f32,
        layout: RotaryLayout,
        device: &candle_core::Device,
    ) -> Result<Self> {
        let frequencies: Vec<f32> = (0..dim / 2).map(|i| 1.0 / base.powf((2 * i) as f32 / dim as f32)).collect();
        let angles: Vec<f32> =
            (0..tokens).flat_map(|token| frequencies.iter().map(move |frequency| token as f32 * frequency)).collect();
        Self::new(&angles, tokens, layout, device)
    }

    /// Turns the heads of `[b, tokens, heads·dim]`; on the CPU in the memory of `x`, which nothing else may use.
    pub(crate) fn rotate(&self, x: Tensor, heads: usize) -> Result<Tensor> {
        if x.device().is_cpu() { cpu::rotate(x, heads, self) } else { portable::rotate(&x, heads, self) }
    }
}
