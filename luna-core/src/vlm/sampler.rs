//! The choice of the next token. Enters: logits and what was read so far. Leaves: an id. Filters and their order are
//! transformers': penalty, temperature, top-k, top-p, min-p.

use super::Sampling;
use crate::{Error, ErrorKind, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Chooses tokens one after the other.
pub(super) struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
    /// Ids that occurred, each once.
    seen: Vec<bool>,
}

impl Sampler {
    /// # Errors
    /// `InvalidInput` for parameters out of range.
    pub(super) fn new(sampling: Sampling, vocabulary: usize, prompt: &[u32]) -> Result<Self> {
        let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = sampling;
        check("temperature", temperature, "0 or more", temperature >= 0.0)?;
        check("top-p", top_p, "above 0, at most 1", top_p > 0.0 && top_p <= 1.0)?;
        check("min-p", min_p, "from 0 to 1", (0.0..=1.0).contains(&min_p))?;
        check("repetition penalty", repetition_penalty, "above 0", repetition_penalty > 0.0)?;
        let random = ChaCha8Rng::seed_from_u64(sampling.seed);
        let mut sampler = Self { sampling, random, seen: vec![false; vocabulary] };
        prompt.iter().for_each(|&id| sampler.note(id));
        Ok(sampler)
    }

    /// Counts a token as having occurred.
    pub(super) fn note(&mut self, id: u32) {
        if let Some(seen) = self.seen.get_mut(id as usize) {
            *seen = true;
        }
    }

    /// The next token for finite logits, one for each id.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> u32 {
        let penalty = self.sampling.repetition_penalty;
        if penalty != 1.0 {
            for (logit, _) in logits.iter_mut().zip(&self.seen).filter(|(_, seen)| **seen) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
        let id = match self.sampling.temperature {
            0.0 => greatest(logits),
            _ => self.draw(logits),
        };
        self.note(id);
        id
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let left = candidates(logits, &self.sampling);
        let total: f64 = left.iter().map(|&(_, weight)| weight).sum();
        let mut rest = self.random.random_range(0.0..1.0) * total;
        for &(id, weight) in &left {
            rest -= weight;
            if rest < 0.0 {
                return id;
            }
        }
        left.last().map_or(0, |&(id, _)| id)
    }
}

/// The first of the greatest logits.
fn greatest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold(
        (0, f32::NEG_INFINITY),
        |best, (id, &logit)| {
            if logit > best.1 { (id, logit) } else { best }
        },
    );
    best.0 as u32
}

/// What the filters leave: ids with weights, most likely first, weights relative to the first.
fn candidates(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weight = |logit: f32| ((f64::from(logit) - most) / f64::from(sampling.temperature)).exp();
    let mut left: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&logit| weight(logit))).collect();
    let by_weight = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let k = sampling.top_k;
    if k > 0 && k < left.len() {
        left.select_nth_unstable_by(k - 1, by_weight);
        // Ties with the last one stay, as they do in transformers.
        let least = left[k - 1].1;
        left.retain(|&(_, weight)| weight >= least);
    }
    left.sort_unstable_by(by_weight);
    if sampling.top_p < 1.0 {
        let total: f64 = left.iter().map(|&(_, weight)| weight).sum();
        let wanted = f64::from(sampling.top_p) * total;
        let mut before = 0.0;
        let kept = left.iter().take_while(|&&(_, weight)| {
            let keep = before < wanted;
            before += weight;
            keep
        });
        let kept = kept.count().max(1);
        left.truncate(kept);
    }
    let least = f64::from(sampling.min_p) * left.first().map_or(0.0, |&(_, weight)| weight);
    left.retain(|&(_, weight)| weight >= least);
    left
}

fn check(what: &str, value: f32, expected: &str, holds: bool) -> Result<()> {
    if holds && value.is_finite() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("the {what} is out of range"))
        .expected(expected)
        .found(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, -1.0, 0.0, 2.5];

    fn kept(sampling: Sampling) -> Vec<u32> {
        let mut ids: Vec<u32> = candidates(&LOGITS, &sampling).into_iter().map(|(id, _)| id).collect();
        ids.sort();
        ids
    }

    #[test]
    fn filters_leave_what_transformers_leaves() {
        // TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper of transformers 5 on these
        // logits, in this order.
        let warm = Sampling { temperature: 1.0, ..Sampling::default() };
        assert_eq!(kept(warm), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept(Sampling { top_k: 3, ..warm }), [1, 2, 5]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..warm }), [1, 5]);
        assert_eq!(kept(Sampling { top_p: 0.9, ..warm }), [1, 2, 5]);
        assert_eq!(kept(Sampling { min_p: 0.2, ..warm }), [1, 2, 5]);
        assert_eq!(kept(Sampling { temperature: 2.0, min_p: 0.2, ..warm }), [0, 1, 2, 4, 5]);
        assert_eq!(kept(Sampling { temperature: 0.5, top_k: 4, top_p: 0.97, min_p: 0.2, ..warm }), [1, 5]);
        assert_eq!(kept(Sampling { top_p: 1e-6, ..warm }), [1]);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let sampling = Sampling { temperature: 1.0, seed: 9, ..Sampling::default() };
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..sampling }, 6, &[]).unwrap();
            (0..4000).map(|_| sampler.choose(&mut LOGITS.clone())).collect::<Vec<_>>()
        };
        let drawn = draw(9);
        assert_eq!(drawn, draw(9));
        assert_ne!(drawn, draw(10));
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
        for (id, &logit) in LOGITS.iter().enumerate() {
            let share = drawn.iter().filter(|&&drawn| drawn as usize == id).count() as f64 / 4000.0;
            assert!((share - f64::from(logit).exp() / total).abs() < 0.03, "{id}: {share}");
        }
    }

    #[test]
    fn what_occurred_is_penalised() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, 6, &[1, 3]).unwrap();
        let mut logits = LOGITS;
        assert_eq!(sampler.choose(&mut logits), 5);
        assert_eq!(logits, [1.0, 1.5, 2.0, -2.0, 0.0, 2.5]);
        // Now 5 has occurred too.
        assert_eq!(sampler.choose(&mut LOGITS.clone()), 2);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let usual = Sampling::default();
        for wrong in [
            Sampling { temperature: -1.0, ..usual },
            Sampling { temperature: f32::NAN, ..usual },
            Sampling { top_p: 0.0, ..usual },
            Sampling { top_p: 1.5, ..usual },
            Sampling { min_p: -0.1, ..usual },
            Sampling { repetition_penalty: 0.0, ..usual },
        ] {
            assert_eq!(Sampler::new(wrong, 6, &[]).err().unwrap().kind(), ErrorKind::InvalidInput, "{wrong:?}");
        }
    }
}
