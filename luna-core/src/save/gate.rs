//! Quality gates: is a picture too flat to be worth keeping? Enters: pixels and a gate. Leaves: scores in 0..1 and a
//! verdict. It decides nothing about files.

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, picture::Pixels};

/// Which scores a picture must reach.
///
/// With luma L = .299 R + .587 G + .114 B in 0..1: the variance score is `min(1, var(255 L) / 3000)`, the edge score
/// `min(1, e / 0.05)` where e is the mean of the mean |ΔL| between rows and the mean |ΔL| between columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GateMode {
    /// None; nothing is computed.
    #[default]
    Disabled,
    /// The variance score.
    Variance,
    /// The edge score.
    EdgeDensity,
    /// Each of them.
    Both,
}

/// What happens to a picture that a gate rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rejects {
    /// It is written into the folder `_discarded` beside where it would have stood.
    #[default]
    Keep,
    /// It is not written.
    Drop,
}

/// A quality gate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gate {
    /// Which scores count.
    pub mode: GateMode,
    /// The least score that passes, 0..1.
    pub threshold: f64,
    /// What happens to the others.
    pub rejects: Rejects,
}

impl Default for Gate {
    /// Disabled; threshold 0.3, rejects kept.
    fn default() -> Self {
        Self { mode: GateMode::Disabled, threshold: 0.3, rejects: Rejects::Keep }
    }
}

/// What a gate found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The variance score, 0..1, where it was asked for.
    pub variance: Option<f64>,
    /// The edge score, 0..1, where it was asked for.
    pub edge_density: Option<f64>,
    /// The score that is reported: the one that was asked for, or the mean of both.
    pub score: f64,
    /// The threshold it was held against.
    pub threshold: f64,
    /// Whether every score asked for reaches the threshold.
    pub passed: bool,
}

/// 8-bit variance that counts as full, and mean difference of neighbours that does.
const FULL_VARIANCE: f64 = 3000.0;
const FULL_EDGES: f64 = 0.05;

impl Gate {
    /// A gate of this mode with the default threshold.
    pub fn new(mode: GateMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Refuses a threshold out of range.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.threshold) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the gate's threshold is out of range")
            .expected("0 to 1")
            .found(self.threshold.to_string()))
    }

    /// Judges a picture; `None` if the gate is disabled. Alpha does not count. A NaN among the pixels makes scores 0.
    pub fn judge(&self, pixels: &Pixels<'_>) -> Option<Verdict> {
        let (with_variance, with_edges) = match self.mode {
            GateMode::Disabled => return None,
            GateMode::Variance => (true, false),
            GateMode::EdgeDensity => (false, true),
            GateMode::Both => (true, true),
        };
        let luma = pixels.luma();
        let score = |value: f64| if value.is_nan() { 0.0 } else { value.min(1.0) };
        let variance = with_variance.then(|| score(variance(&luma) * 255.0 * 255.0 / FULL_VARIANCE));
        let edge_density = with_edges.then(|| score(edges(&luma, pixels.width()) / FULL_EDGES));
        let scores: Vec<f64> = variance.into_iter().chain(edge_density).collect();
        Some(Verdict {
            variance,
            edge_density,
            score: scores.iter().sum::<f64>() / scores.len() as f64,
            threshold: self.threshold,
            passed: scores.iter().all(|&score| score >= self.threshold),
        })
    }
}

fn variance(values: &[f32]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count
}

/// The mean of the mean differences between rows and between columns; 0 where there is but one.
fn edges(luma: &[f32], width: usize) -> f64 {
    let mean = |sum: f64, count: usize| if count == 0 { 0.0 } else { sum / count as f64 };
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
    let height = luma.len() / width;
    let rows = mean(apart(luma, &luma[width..]), (height - 1) * width);
    let columns = luma.chunks_exact(width).map(|row| apart(row, &row[1..])).sum::<f64>();
    (rows + mean(columns, height * (width - 1))) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(mode: GateMode, height: usize, width: usize, value: impl Fn(usize, usize) -> u8) -> Verdict {
        let bytes: Vec<u8> = (0..height * width).flat_map(|i| [value(i / width, i % width); 3]).collect();
        Gate::new(mode).judge(&Pixels::from_u8(height, width, 3, &bytes).unwrap()).unwrap()
    }

    #[test]
    fn a_flat_picture_fails_and_a_chequered_one_passes() {
        let flat = judge(GateMode::Both, 8, 8, |_, _| 90);
        assert_eq!((flat.score, flat.passed), (0.0, false));
        let chequered = judge(GateMode::Both, 8, 8, |y, x| if (y + x) % 2 == 0 { 0 } else { 255 });
        assert_eq!((chequered.variance, chequered.edge_density, chequered.passed), (Some(1.0), Some(1.0), true));
    }

    #[test]
    fn scores_follow_their_formulas() {
        // Values 100 and 140 by columns: variance 400, differences 40/255 along the rows, none down the columns.
        let verdict = judge(GateMode::Both, 4, 6, |_, x| if x % 2 == 0 { 100 } else { 140 });
        assert!((verdict.variance.unwrap() - 400.0 / 3000.0).abs() < 1e-5, "{verdict:?}");
        let gentle = judge(GateMode::EdgeDensity, 4, 6, |y, _| 10 * y as u8);
        assert!((gentle.score - 10.0 / 255.0 / 2.0 / 0.05).abs() < 1e-5 && gentle.variance.is_none(), "{gentle:?}");
    }

    /// Figures of NumPy: `L = a / 255 @ (.299, .587, .114)`, `np.var(L * 255)`, `np.abs(np.diff(L, axis=…)).mean()`.
    #[test]
    fn scores_are_those_of_numpy() {
        let scores = |value: fn(usize, usize, usize) -> usize| {
            let bytes: Vec<u8> = (0..5 * 7 * 3).map(|i| value(i / 21, i / 3 % 7, i % 3) as u8).collect();
            let pixels = Pixels::from_u8(5, 7, 3, &bytes).unwrap();
            let float: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
            let verdict = Gate::new(GateMode::Both).judge(&pixels).unwrap();
            assert_eq!(Gate::new(GateMode::Both).judge(&Pixels::from_f32(5, 7, 3, &float).unwrap()), Some(verdict));
            (verdict.variance.unwrap(), verdict.edge_density.unwrap())
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        let (variance, edges) = scores(|y, x, c| ((y * 7 + x) * 37 + c * 91) % 200);
        near(variance, 0.266_064_435_374_149_64);
        assert_eq!(edges, 1.0);
        let (variance, edges) = scores(|y, x, c| y * 3 + x * 2 + c * 20);
        near(variance, 0.011_333_333_333_333_334);
        near(edges, 0.196_078_431_372_549_02);
    }

    #[test]
    fn both_asks_for_each_and_reports_the_mean() {
        // Two flat halves: much variance, next to no edges.
        let verdict = judge(GateMode::Both, 64, 64, |_, x| if x < 32 { 0 } else { 255 });
        assert_eq!(verdict.variance, Some(1.0));
        assert!(verdict.edge_density.unwrap() < 0.3 && verdict.score > 0.3 && !verdict.passed);
    }

    #[test]
    fn luma_weighs_the_colours() {
        let green_and_blue = [0, 255, 0, 0, 0, 255];
        let pixels = Pixels::from_u8(1, 2, 3, &green_and_blue).unwrap();
        let verdict = Gate::new(GateMode::EdgeDensity).judge(&pixels).unwrap();
        assert_eq!(verdict.score, 1.0);
        let single = Gate::new(GateMode::Both).judge(&Pixels::from_u8(1, 1, 3, &[1, 2, 3]).unwrap()).unwrap();
        assert_eq!(single.score, 0.0);
    }
}
