//! Conditioning files: `cond`, f32 `[batch, tokens, channels]`, with what belongs to it. Also token files, which stand
//! in for prompts: `input_ids` and `attention_mask` as transformers' tokenizers give them.

use super::{Tensor, lacks, to_bytes};
use luna_core::{
    Conditioning, Error, ErrorKind, Limits, Result,
    checkpoint::{Checkpoint, ElementType, TensorView},
    files::{IfExists, write_atomically},
    limits::check_at_most,
    text::TokenIds,
};
use std::{collections::BTreeMap, path::Path};

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";

/// Conditionings of one shape that go into the file as one.
pub struct Named<'a> {
    /// What stands before `cond`: nothing, or `un`.
    pub prefix: &'static str,
    pub rows: Vec<&'a Conditioning>,
}

impl Named<'_> {
    /// `cond`, `pooled` and `mask`, or with a prefix `uncond`, `uncond_pooled` and `uncond_mask`.
    fn name(&self, part: &str) -> String {
        match (self.prefix, part) {
            (prefix, "cond") => format!("{prefix}cond"),
            ("", part) => part.to_owned(),
            (prefix, part) => format!("{prefix}cond_{part}"),
        }
    }

    /// The tensors: name, shape, values.
    fn tensors(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let Some(first) = self.rows.first() else { return Vec::new() };
        let [_, tokens, channels] = first.shape();
        let batch = self.rows.len();
        let values = |part: &dyn Fn(&Conditioning) -> Option<Vec<f32>>| -> Option<Vec<f32>> {
            self.rows.iter().map(|row| part(row)).collect::<Option<Vec<_>>>().map(|rows| rows.concat())
        };
        let mask = |row: &Conditioning| Some(row.mask()?.iter().map(|&seen| f32::from(u8::from(seen))).collect());
        let parts = [
            ("cond", vec![batch, tokens, channels], values(&|row| Some(row.data().to_vec()))),
            (
                "pooled",
                vec![batch, first.pooled_channels().unwrap_or_default()],
                values(&|row| row.pooled().map(<[f32]>::to_vec)),
            ),
            ("mask", vec![batch, tokens], values(&mask)),
        ];
        parts.into_iter().filter_map(|(part, shape, values)| Some((self.name(part), shape, values?))).collect()
    }
}

/// Writes conditionings.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_conditionings(
    path: &Path,
    named: &[Named],
    metadata: &BTreeMap<String, String>,
    if_exists: IfExists,
) -> Result<()> {
    let values: Vec<_> = named.iter().flat_map(Named::tensors).collect();
    let tensors: Vec<_> = values
        .iter()
        .map(|(name, shape, values)| Tensor { name: name.clone(), shape: shape.clone(), values })
        .collect();
    write_atomically(path, &to_bytes(&tensors, metadata), if_exists).map(drop)
}

/// Reads tokens, one list for each row of the batch.
///
/// # Errors
/// As [`Checkpoint::open`]; `Unsupported` if there is no `input_ids` or no integers in it, `InvalidInput` for a wrong
/// shape or an id that no vocabulary has, `LimitExceeded` for too many rows.
pub fn read_tokens(path: &Path) -> Result<Vec<TokenIds>> {
    let checkpoint = Checkpoint::open(path, &Limits::default())?;
    let at = |error: Error| error.at(path.display());
    let view =
        checkpoint.tensor(IDS).ok_or_else(|| lacks(&checkpoint, "tokens", "`input_ids`, integers [batch, tokens]"))?;
    let shape = batch_and_tokens(&view).map_err(at)?;
    let ids = integers(&view)
        .map_err(at)?
        .into_iter()
        .map(|id| {
            u32::try_from(id).map_err(|_| {
                let wrong = Error::new(ErrorKind::InvalidInput, "an id in `input_ids` is in no vocabulary");
                at(wrong.expected("ids from 0").found(id.to_string()))
            })
        })
        .collect::<Result<Vec<u32>>>()?;
    let mask = checkpoint.tensor(MASK).map(|view| read_mask(&view, shape)).transpose().map_err(at)?;
    let [batch, tokens] = shape;
    check_at_most("rows of tokens", batch as u64, Limits::default().batch as u64).map_err(at)?;
    let row = |index: usize| TokenIds {
        ids: ids[index * tokens..][..tokens].to_vec(),
        mask: mask.as_ref().map(|mask| mask[index * tokens..][..tokens].to_vec()),
    };
    Ok((0..batch).map(row).collect())
}

fn read_mask(view: &TensorView, shape: [usize; 2]) -> Result<Vec<bool>> {
    let found = batch_and_tokens(view)?;
    if found != shape {
        return Err(Error::new(ErrorKind::InvalidInput, "`attention_mask` does not fit `input_ids`")
            .expected(format!("{shape:?}"))
            .found(format!("{found:?}")));
    }
    Ok(integers(view)?.into_iter().map(|seen| seen != 0).collect())
}

/// `[tokens]` is one row.
fn batch_and_tokens(view: &TensorView) -> Result<[usize; 2]> {
    match *view.shape {
        [tokens] if tokens > 0 => Ok([1, tokens]),
        [batch, tokens] if batch > 0 && tokens > 0 => Ok([batch, tokens]),
        _ => Err(Error::new(ErrorKind::InvalidInput, format!("`{}` has a wrong shape", view.name))
            .expected("[tokens] or [batch, tokens], neither of them 0")
            .found(format!("{:?}", view.shape))),
    }
}

/// The elements. The view's bytes lie in the file, so their number is no larger than that.
fn integers(view: &TensorView) -> Result<Vec<i64>> {
    let bytes = view.bytes;
    Ok(match view.element {
        ElementType::I64 => bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(),
        ElementType::I32 => bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect(),
        ElementType::I16 => bytes.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes).into()).collect(),
        ElementType::U8 | ElementType::Bool => bytes.iter().map(|&byte| byte.into()).collect(),
        other => {
            return Err(Error::new(ErrorKind::Unsupported, format!("`{}` has an unfit element type", view.name))
                .expected("I64, I32, I16, U8 or BOOL")
                .found(other.name()));
        }
    })
}
