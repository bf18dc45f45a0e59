//! Qwen3-VL's vision tower. Enters: patches of one picture. Leaves: a token for each block of merged patches, and for
//! some inner layers what is added to the first layers of the language model (deepstack).
//!
//! Learned positions are interpolated to the picture's grid; heads turn by row and column besides. Source: transformers'
//! `Qwen3VLVisionModel`.

use super::pictures::blocks;
use crate::{
    Error, ErrorKind, Precision, Result,
    nn::{
        Activation, Embedding, EncoderBlock, EncoderBlockCall, EncoderBlockSpec, Linear, LinearCall, Pass, PlainMlp,
        RotaryLayout, RotaryTable, RowNorm, Tensor, Weights,
    },
    vlm::{decoder::check_stated, eyes::Seen},
};
use luna_kernels::AttentionMask;
use serde_json::Value;

const EPS: f32 = 1e-6;
const ROTARY_BASE: f32 = 10_000.0;
/// Heads of every Qwen3-VL.
const HEADS: usize = 16;

/// Layers of the tower.
pub(in super::super) struct Tower {
    patches: Linear,
    positions: Embedding,
    /// Entries of the learned positions along a side.
    side: usize,
    blocks: Vec<EncoderBlock>,
    merger: Merger,
    /// After which block each of these looks.
    deep: Vec<(usize, Merger)>,
    heads: usize,
    width: usize,
    pub(in super::super) patch: usize,
    pub(in super::super) frames: usize,
    pub(in super::super) merge: usize,
}

impl Tower {
    /// Loads it from `visual.*`.
    pub(in super::super) fn load(weights: &Weights, config: Option<&Value>) -> Result<Self> {
        let number = |name: &str| config.and_then(|config| config[name].as_u64()).map(|number| number as usize);
        let kernel = weights.shape("patch_embed.proj.weight")?;
        let &[width, 3, frames, patch, _] = &*kernel else {
            return Err(Error::new(ErrorKind::InvalidFile, "the patch embedding has a wrong shape")
                .expected("[width, 3, frames, side, side]")
                .found(format!("{kernel:?}")));
        };
        let heads = number("num_heads").unwrap_or(HEADS);
        if heads == 0 || !width.is_multiple_of(4 * heads) {
            return Err(Error::new(
                ErrorKind::InvalidFile,
                "the width of the vision tower does not divide into its heads",
            )
            .expected(format!("a multiple of {}", 4 * heads))
            .found(width.to_string()));
        }
        let spec = EncoderBlockSpec { width, heads, eps: EPS, activation: Activation::GeluTanh };
        let layers = weights.at("blocks");
        let count = layers.count("layer_norm1.weight");
        check_stated(config, "hidden_size", width)?;
        check_stated(config, "depth", count)?;
        check_stated(config, "patch_size", patch)?;
        let positions = Embedding::load(&weights.at("pos_embed"))?;
        let side = positions.entries().isqrt();
        if positions.channels() != width || side * side != positions.entries() || side == 0 {
            return Err(Error::new(ErrorKind::InvalidFile, "the learned positions are no square of the tower's width")
                .expected(format!("[a square number, {width}]"))
                .found(format!("[{}, {}]", positions.entries(), positions.channels())));
        }
        let merger = weights.at("merger");
        let merged = merger.shape("fc1.weight")?[1];
        let merge = (merged / width).isqrt();
        if merge == 0 || merge * merge * width != merged {
            return Err(Error::new(ErrorKind::InvalidFile, "the merger takes no square of patches")
                .expected(format!("a square number times {width} channels"))
                .found(merged.to_string()));
        }
        let indexes = deep_indexes(weights, config, count)?;
        let lists = weights.at("deepstack_merger_list");
        let deep = indexes.into_iter().enumerate();
        let deep = deep.map(|(index, layer)| Ok((layer, Merger::load(&lists.at(index), merged, merged)?)));
        Ok(Self {
            patches: Linear::load_stored(&weights.at("patch_embed.proj"), &kernel)?,
            positions,
            side,
            blocks: (0..count).map(|layer| EncoderBlock::load(&layers.at(layer), spec)).collect::<Result<_>>()?,
            merger: Merger::load(&merger, width, merged)?,
            deep: deep.collect::<Result<_>>()?,
            heads,
            width,
            patch,
            frames,
            merge,
        })
    }

    pub(in super::super) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// What it sees in one picture: `patches` `[frames·rows·columns, length]`.
    pub(in super::super) fn look(
        &self,
        patches: &[f32],
        grid: [usize; 3],
        precision: Precision,
        pass: &Pass,
        device: &candle_core::Device,
    ) -> Result<Seen> {
        let [frames, rows, columns] = grid;
        let tokens = rows * columns;
        let length = patches.len() / (frames * tokens);
        let patches = Tensor::from_slice(patches, (frames, tokens, length), device)?.to_dtype(precision.dtype())?;
        let places = self.learned(rows, columns, pass)?;
        let places = Tensor::from_vec(places, (1, tokens, self.width), device)?.to_dtype(precision.dtype())?;
        let places = places.broadcast_as((frames, tokens, self.width))?.contiguous()?;
        let call = LinearCall { residual: Some(&places), ..LinearCall::default() };
        let mut x = self.patches.forward_with(&patches, call, pass)?;
        let rotary = RotaryTable::new(&self.angles(rows, columns), tokens, RotaryLayout::HalfSplit, device)?;
        let call = EncoderBlockCall { mask: AttentionMask::None, rotary: Some(&rotary) };
        let mut deep = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, call, pass)?;
            for (_, merger) in self.deep.iter().filter(|(layer, _)| *layer == index) {
                deep.push(merger.forward(&x, pass)?);
            }
        }
        Ok(Seen { tokens: self.merger.forward(&x, pass)?, deep })
    }

    /// The learned positions between which each patch lies, weighed: `[patches, width]`.
    fn learned(&self, rows: usize, columns: usize, pass: &Pass) -> Result<Vec<f32>> {
        let all: Vec<u32> = (0..self.positions.entries() as u32).collect();
        let table: Vec<f32> = self.positions.forward(&all, Precision::F32, pass)?.flatten_all()?.to_vec1()?;
        let entry = |row: usize, column: usize| &table[(row * self.side + column) * self.width..][..self.width];
        let mut out = Vec::with_capacity(rows * columns * self.width);
        for (row, column) in blocks(rows, columns, self.merge) {
            let (y, x) = (self.taps(row, rows), self.taps(column, columns));
            let corners = [(y[0], x[0]), (y[0], x[1]), (y[1], x[0]), (y[1], x[1])];
            let corners = corners.map(|((row, a), (column, b))| (entry(row, column), a * b));
            out.extend((0..self.width).map(|c| corners.iter().map(|(entry, weight)| entry[c] * weight).sum::<f32>()));
        }
        Ok(out)
    }

    /// The two entries that place `index` of `size` lies between, with weights; the first and last place are entries.
    fn taps(&self, index: usize, size: usize) -> [(usize, f32); 2] {
        let at = index as f32 * (self.side - 1) as f32 / size.saturating_sub(1).max(1) as f32;
        let low = at.floor();
        let next = (low as usize + 1).min(self.side - 1);
        [(low as usize, 1.0 - (at - low)), (next, at - low)]
    }

    /// Angles `[patches, head/2]`: the first half turns by row, the second by column.
    fn angles(&self, rows: usize, columns: usize) -> Vec<f32> {
        let quarter = self.width / self.heads / 4;
        let frequencies: Vec<f32> =
            (0..quarter).map(|i| 1.0 / ROTARY_BASE.powf((2 * i) as f32 / (2 * quarter) as f32)).collect();
        let turn = |place: usize| frequencies.iter().map(move |frequency| place as f32 * frequency);
        blocks(rows, columns, self.merge).flat_map(|(row, column)| turn(row).chain(turn(column))).collect()
    }
}

/// Which layers the deepstack mergers look at: what is stated, else three spread over the depth as every Qwen3-VL has it.
fn deep_indexes(weights: &Weights, config: Option<&Value>, layers: usize) -> Result<Vec<usize>> {
    let count = weights.at("deepstack_merger_list").count("fc1.weight");
    let stated = config.and_then(|config| config["deepstack_visual_indexes"].as_array());
    let indexes: Vec<usize> = match stated {
        Some(list) => list.iter().filter_map(|index| index.as_u64().map(|index| index as usize)).collect(),
        None if count == 3 && layers == 24 => vec![5, 11, 17],
        None if count == 3 && layers == 27 => vec![8, 16, 24],
        None => Vec::new(),
    };
    if indexes.len() == count && indexes.iter().all(|&index| index < layers) {
        return Ok(indexes);
    }
    Err(Error::new(ErrorKind::InvalidFile, "the deepstack mergers do not fit the tower")
        .expected(format!("`deepstack_visual_indexes` in config.json for {count} mergers, below {layers}"))
        .found(format!("{indexes:?}"))
        .remedy("put the config.json of the model beside its weights"))
}

/// Blocks of patches to tokens of the language model. The norm is over each patch, or over the whole block.
struct Merger {
    norm: RowNorm,
    over: usize,
    mlp: PlainMlp,
    merged: usize,
}

impl Merger {
    fn load(weights: &Weights, over: usize, merged: usize) -> Result<Self> {
        let outputs = weights.shape("fc2.weight")?[0];
        Ok(Self {
            norm: RowNorm::layer_norm(&weights.at("norm"), over, EPS)?,
            over,
            mlp: PlainMlp::load(weights, merged, outputs, Activation::Gelu)?,
            merged,
        })
    }

    /// `[frames, patches, width]` → `[blocks, channels]`.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let count = x.elem_count();
        let normed = self.norm.forward(&x.reshape((count / self.over, self.over))?, pass)?;
        self.mlp.forward(&normed.reshape((count / self.merged, self.merged))?, None, pass)
    }
}
