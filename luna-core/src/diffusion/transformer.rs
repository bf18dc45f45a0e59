//! What all diffusion transformers share: patches, positions, and attention of normed and rotated heads.

use super::input::wrong;
use crate::{
    Error, ErrorKind, Result,
    nn::{AttentionCall, Linear, Pass, RotaryLayout, RotaryTable, RowNorm, Tensor, Weights, attention},
};
use candle_core::Device;
use serde_json::Value;

/// Side of a patch in latent pixels.
pub(super) const PATCH: usize = 2;

/// In which order a patch's values become a token's channels.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum PatchOrder {
    /// `[channel, row, column]`.
    ChannelsFirst,
    /// `[row, column, channel]`.
    ChannelsLast,
}

impl PatchOrder {
    /// `[b, h, w, c]` → `[b, h/2 · w/2, 4c]`.
    pub(super) fn patches(self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let (rows, columns) = (h / PATCH, w / PATCH);
        let x = x.reshape(&[b, rows, PATCH, columns, PATCH, c][..])?;
        let x = match self {
            Self::ChannelsFirst => x.permute(vec![0, 1, 3, 5, 2, 4])?,
            Self::ChannelsLast => x.permute(vec![0, 1, 3, 2, 4, 5])?,
        };
        Ok(x.contiguous()?.reshape((b, rows * columns, PATCH * PATCH * c))?)
    }

    /// `[b, h/2 · w/2, 4c]` → `[b, h, w, c]`.
    pub(super) fn pixels(self, tokens: &Tensor, [h, w]: [usize; 2]) -> Result<Tensor> {
        let (b, _, width) = tokens.dims3()?;
        let (rows, columns, c) = (h / PATCH, w / PATCH, width / PATCH / PATCH);
        let x = match self {
            Self::ChannelsFirst => {
                tokens.reshape(&[b, rows, columns, c, PATCH, PATCH][..])?.permute(vec![0, 1, 4, 2, 5, 3])?
            }
            Self::ChannelsLast => {
                tokens.reshape(&[b, rows, columns, PATCH, PATCH, c][..])?.permute(vec![0, 1, 3, 2, 4, 5])?
            }
        };
        Ok(x.contiguous()?.reshape((b, h, w, c))?)
    }
}

/// Rotary angles of tokens that have a place along several axes; each axis turns its own part of a head.
pub(super) struct Axes {
    /// Elements of a head that each axis turns; even.
    pub(super) dims: Vec<usize>,
    pub(super) theta: f64,
}

impl Axes {
    /// As config.json states them under `key`, or in the proportions of the known models: `shares` sixteenths each.
    pub(super) fn read(config: Option<&Value>, key: &str, head: usize, shares: [usize; 3], theta: f64) -> Result<Self> {
        let stated = config.and_then(|config| config[key].as_array());
        let dims: Vec<usize> = match stated {
            Some(dims) => dims.iter().map(|dim| dim.as_u64().unwrap_or(0) as usize).collect(),
            None => shares.iter().map(|share| share * head / 16).collect(),
        };
        if dims.len() != 3 || dims.iter().sum::<usize>() != head || dims.iter().any(|dim| dim % 2 != 0) {
            return Err(Error::new(ErrorKind::InvalidFile, "the axes of the positions do not fit the heads")
                .expected(format!("three even numbers with the sum {head}"))
                .found(format!("{dims:?}"))
                .remedy(format!("put a config.json with `{key}` beside the weights")));
        }
        Ok(Self { dims, theta })
    }

    /// The table for tokens at these places.
    pub(super) fn table(&self, places: &[[usize; 3]], device: &Device) -> Result<RotaryTable> {
        let frequency = |dim: usize, pair: usize| self.theta.powf(-2.0 * pair as f64 / dim as f64);
        let frequencies: Vec<Vec<f64>> =
            self.dims.iter().map(|&dim| (0..dim / 2).map(|pair| frequency(dim, pair)).collect()).collect();
        let mut angles = Vec::with_capacity(places.len() * self.dims.iter().sum::<usize>() / 2);
        for place in places {
            for (&place, frequencies) in place.iter().zip(&frequencies) {
                angles.extend(frequencies.iter().map(|frequency| (place as f64 * frequency) as f32));
            }
        }
        RotaryTable::new(&angles, places.len(), RotaryLayout::Interleaved, device)
    }
}

/// The width of a head, which the norm of its queries shows; it divides the tokens' width.
pub(super) fn head_width(norm: &Weights, width: usize) -> Result<usize> {
    match *norm.shape("weight")? {
        [head] if head > 0 && width % head == 0 => Ok(head),
        ref other => {
            Err(Error::new(ErrorKind::InvalidFile, format!("`{}.weight` does not fit the tokens", norm.path()))
                .expected(format!("[head width], a divisor of {width}"))
                .found(format!("{other:?}")))
        }
    }
}

/// Places of a picture's patches, row by row.
pub(super) fn grid(first: usize, rows: usize, columns: usize) -> impl Iterator<Item = [usize; 3]> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| [first, row, column]))
}

/// The projections of a stream of tokens into an attention. Names are given: streams are called differently.
pub(super) struct Projections {
    q: Linear,
    k: Linear,
    v: Linear,
    norm_q: RowNorm,
    norm_k: RowNorm,
    heads: usize,
    dim: usize,
}

impl Projections {
    /// `names`: of query, key and value projection, of query and key norm. `width` is that of the tokens, `dim` of a head.
    pub(super) fn load(weights: &Weights, names: [&str; 5], width: usize, dim: usize, eps: f32) -> Result<Self> {
        let [q, k, v, norm_q, norm_k] = names.map(|name| weights.at(name));
        Ok(Self {
            q: Linear::load(&q, width, width)?,
            k: Linear::load(&k, width, width)?,
            v: Linear::load(&v, width, width)?,
            norm_q: RowNorm::rms_norm(&norm_q, dim, eps)?,
            norm_k: RowNorm::rms_norm(&norm_k, dim, eps)?,
            heads: width / dim,
            dim,
        })
    }

    /// Queries and keys, normed head by head, and values: `[b, tokens, width]` → three of `[b, tokens, heads, dim]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<[Tensor; 3]> {
        let (b, tokens, _) = x.dims3()?;
        let heads = |x: Tensor| x.reshape((b, tokens, self.heads, self.dim));
        let normed = |linear: &Linear, norm: &RowNorm| -> Result<Tensor> {
            let raw = heads(linear.forward(x, pass)?)?;
            let y = norm.forward(&raw, pass)?;
            pass.recycle(raw);
            Ok(y)
        };
        Ok([normed(&self.q, &self.norm_q)?, normed(&self.k, &self.norm_k)?, heads(self.v.forward(x, pass)?)?])
    }
}

/// Attention among all tokens, after turning queries and keys: three of `[b, tokens, heads, dim]` →
/// `[b, tokens, heads·dim]`.
pub(super) fn rotated_attention([q, k, v]: [Tensor; 3], table: &RotaryTable, pass: &Pass) -> Result<Tensor> {
    let (b, tokens, heads, dim) = q.dims4()?;
    let flat = |x: Tensor| x.reshape((b, tokens, heads * dim));
    let (q, k, v) = (table.rotate(flat(q)?, heads)?, table.rotate(flat(k)?, heads)?, flat(v)?);
    let mixed = attention(&q, &k, &v, AttentionCall::heads(heads), pass)?;
    [q, k, v].into_iter().for_each(|tensor| pass.recycle(tensor));
    Ok(mixed)
}

/// The equal parts of `[b, count·c]`, `[b, c]` each.
pub(super) fn parts<const COUNT: usize>(modulation: &Tensor) -> Result<[Tensor; COUNT]> {
    let width = modulation.dim(1)? / COUNT;
    let mut parts = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        parts.push(modulation.narrow(1, index * width, width)?.contiguous()?);
    }
    Ok(parts.try_into().expect("as many as counted"))
}

/// A count from config.json must not contradict the shapes.
pub(super) fn check_stated(config: Option<&Value>, key: &str, shapes: usize) -> Result<()> {
    match config.and_then(|config| config[key].as_u64()) {
        Some(stated) if stated != shapes as u64 => {
            Err(Error::new(ErrorKind::InvalidFile, format!("config.json and weights disagree about `{key}`"))
                .expected(format!("{shapes}, as the shapes say"))
                .found(stated.to_string())
                .remedy("use the config.json that belongs to these weights"))
        }
        _ => Ok(()),
    }
}

/// Refuses control residuals for a model that has no place for them.
pub(super) fn no_control(model: &str) -> Error {
    wrong(format!("{model} takes no control residuals")).remedy("leave `control` empty")
}
