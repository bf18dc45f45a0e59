//! A prepared prompt as the decoder takes it: embeddings of words with what was seen in between, and places.

use super::{VlmInput, VlmModel, eyes::Seen, qwen3_vl::places};
use crate::{
    Precision, Result,
    nn::{Pass, Tensor},
};

/// Embeddings `[1, tokens, width]`, what is added behind the first layers, places, and the next place.
pub(super) type Embedded = (Tensor, Vec<Tensor>, Vec<[u32; 3]>, u32);

/// A run of tokens: ids `from..to` that are words, or a picture by its number.
enum Run {
    Words(usize, usize),
    Picture(usize),
}

/// `[1, tokens, width]` of what stands one behind the other.
fn joined(rows: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::cat(rows, 0)?.unsqueeze(0)?.contiguous()?)
}

impl VlmModel {
    /// Embeds a prompt and more of the model's own tokens behind it.
    pub(super) fn embed(&self, input: &VlmInput, more: &[u32], precision: Precision, pass: &Pass) -> Result<Embedded> {
        let ids = [&*input.ids, more].concat();
        let grids = &input.patches.grids;
        let device = self.runtime.handle();
        let seen: Vec<Seen> = (0..grids.len())
            .map(|index| self.eyes.look(input.patches.picture(index), grids[index], precision, pass, device))
            .collect::<Result<_>>()?;
        let runs = self.runs(&ids, grids);
        let words = |from: usize, to: usize| Ok(self.decoder.embed(&ids[from..to], precision, pass)?.squeeze(0)?);
        let rows: Vec<Tensor> = runs
            .iter()
            .map(|run| match *run {
                Run::Words(from, to) => words(from, to),
                Run::Picture(index) => Ok(seen[index].tokens.clone()),
            })
            .collect::<Result<_>>()?;
        let layers = seen.iter().map(|seen| seen.deep.len()).max().unwrap_or(0);
        let deep = (0..layers).map(|layer| {
            let added = runs.iter().zip(&rows).map(|(run, row)| match *run {
                Run::Words(..) => Ok(row.zeros_like()?),
                Run::Picture(index) => Ok(seen[index].deep[layer].clone()),
            });
            joined(&added.collect::<Result<Vec<_>>>()?)
        });
        let (x, deep) = (joined(&rows)?, deep.collect::<Result<_>>()?);
        let grids: Vec<[usize; 3]> = grids.iter().filter_map(|&grid| self.eyes.token_grid(grid)).collect();
        // Without grids every token is a word to the places.
        let (places, next) = places(&ids, self.picture, &grids);
        Ok((x, deep, places, next))
    }

    /// Words and pictures in order. The counts were checked.
    fn runs(&self, ids: &[u32], grids: &[[usize; 3]]) -> Vec<Run> {
        let mut runs = Vec::new();
        let (mut at, mut start) = (0, 0);
        let mut pictures = grids.iter().enumerate();
        while at < ids.len() {
            let picture = if ids[at] == self.picture { pictures.next() } else { None };
            let Some((index, &grid)) = picture else {
                at += 1;
                continue;
            };
            if start < at {
                runs.push(Run::Words(start, at));
            }
            runs.push(Run::Picture(index));
            at += self.eyes.tokens(grid);
            start = at;
        }
        if start < ids.len() {
            runs.push(Run::Words(start, ids.len()));
        }
        runs
    }
}
