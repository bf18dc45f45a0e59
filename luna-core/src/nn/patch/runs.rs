//! Which patched layers ran how. Enters: one note for each call of a patched layer. Leaves: counts by path, for reports.

use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// How one patched layer ran in a call, counted: a layer that sees tiles or tokens one after the other runs many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct LayerRuns {
    /// With a low-rank branch beside the frozen weight.
    pub branch: u64,
    /// With a weight that was built just before and dropped just after.
    pub built: u64,
    /// With a weight that was merged before the call.
    pub merged: u64,
    /// With the frozen weight and another bias.
    pub bias: u64,
}

/// How all patched layers ran in a call.
///
/// ```
/// let runs = luna_core::PatchedRuns::default(); // a call without LoRAs
/// assert!(runs.layers.is_empty());
/// assert_eq!(runs.to_string(), "no layer was patched");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
#[non_exhaustive]
pub struct PatchedRuns {
    /// By the canonical path of each layer. Layers that a call did not come to are not there.
    pub layers: BTreeMap<String, LayerRuns>,
}

/// One way to run a patched layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nn) enum PatchedRun {
    Branch,
    Built,
    Merged,
    Bias,
}

impl LayerRuns {
    pub(in crate::nn) fn count(&mut self, run: PatchedRun) {
        *match run {
            PatchedRun::Branch => &mut self.branch,
            PatchedRun::Built => &mut self.built,
            PatchedRun::Merged => &mut self.merged,
            PatchedRun::Bias => &mut self.bias,
        } += 1;
    }
}

impl PatchedRuns {
    /// How many layers ran as a branch, with a built, with a merged weight, with another bias alone. A layer may be in two.
    pub fn counts(&self) -> [usize; 4] {
        let count = |way: fn(&LayerRuns) -> u64| self.layers.values().filter(|runs| way(runs) > 0).count();
        [count(|runs| runs.branch), count(|runs| runs.built), count(|runs| runs.merged), count(|runs| runs.bias)]
    }

    /// Adds what another call did.
    pub fn add(&mut self, other: Self) {
        for (path, runs) in other.layers {
            let own = self.layers.entry(path).or_default();
            own.branch += runs.branch;
            own.built += runs.built;
            own.merged += runs.merged;
            own.bias += runs.bias;
        }
    }
}

impl fmt::Display for PatchedRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways = ["with a branch", "with a built weight", "with a merged weight", "with another bias"];
        let told: Vec<_> = self.counts().into_iter().zip(ways).filter(|(count, _)| *count > 0).collect();
        if told.is_empty() {
            return f.write_str("no layer was patched");
        }
        for (index, (count, way)) in told.iter().enumerate() {
            write!(f, "{}{count} {way}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
