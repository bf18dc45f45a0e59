//! Prepared prompts of vision-language models, as transformers' processors make them.

use super::{features::PIXEL_VALUES, lacks, shape_of_4};
use luna_core::{
    Error, ErrorKind, Limits, Result,
    checkpoint::{Checkpoint, ElementType, TensorView},
    vision::PixelValues,
    vlm::Patches,
};
use std::path::Path;

const IDS: &str = "input_ids";
const GRIDS: &str = "image_grid_thw";

/// What the file holds.
#[derive(Debug)]
pub struct PreparedPrompt {
    pub ids: Vec<u32>,
    pub pictures: PreparedPictures,
}

/// Its pictures.
#[derive(Debug)]
pub enum PreparedPictures {
    /// Cut into patches, or none.
    Patches(Patches),
    /// Whole, for models that cut them into patches of a size of their own.
    Whole(PixelValues),
}

/// Reads `input_ids` `[ids]` or `[1, ids]`, and where there are pictures `pixel_values` with `image_grid_thw`
/// `[pictures, 3]`: patches `[patches, length]` of Qwen3-VL; without it pictures `[pictures, 3, height, width]`.
///
/// # Errors
/// As [`Checkpoint::open`]; `Unsupported` without `input_ids`, `InvalidInput` for wrong shapes and numbers.
pub fn read_vlm_input(path: &Path) -> Result<PreparedPrompt> {
    let checkpoint = Checkpoint::open(path, &Limits::default())?;
    let ids = checkpoint.tensor(IDS).ok_or_else(|| lacks(&checkpoint, "prompt", "`input_ids`, i64 [1, ids]"))?;
    let at = |error: Error| error.at(path.display());
    if ids.shape.len() > 2 || (ids.shape.len() == 2 && ids.shape[0] != 1) {
        return Err(at(wrong(IDS, "[ids] or [1, ids]", format!("{:?}", ids.shape))));
    }
    let ids = integers(&ids)
        .map_err(at)?
        .into_iter()
        .map(|id| u32::try_from(id).map_err(|_| at(wrong(IDS, "ids from 0 to 4294967295", id.to_string()))));
    let ids = ids.collect::<Result<_>>()?;
    let pictures = match (checkpoint.tensor(PIXEL_VALUES), checkpoint.tensor(GRIDS)) {
        (None, _) => PreparedPictures::Patches(Patches::none()),
        (Some(pixels), Some(grids)) => PreparedPictures::Patches(patches(&pixels, &grids).map_err(at)?),
        (Some(pixels), None) => {
            let shape = shape_of_4(&pixels, "[pictures, 3, height, width], or patches with `image_grid_thw`");
            let whole = shape.and_then(|shape| PixelValues::new(shape, pixels.to_f32()?));
            PreparedPictures::Whole(whole.map_err(at)?)
        }
    };
    Ok(PreparedPrompt { ids, pictures })
}

fn patches(pixels: &TensorView, grids: &TensorView) -> Result<Patches> {
    let &[_, length] = pixels.shape else {
        return Err(wrong(PIXEL_VALUES, "[patches, length]", format!("{:?}", pixels.shape)));
    };
    let &[_, 3] = grids.shape else { return Err(wrong(GRIDS, "[pictures, 3]", format!("{:?}", grids.shape))) };
    let sides = integers(grids)?.into_iter().map(|side| {
        let small = usize::try_from(side).ok().filter(|&side| side < 1 << 16);
        small.ok_or_else(|| wrong(GRIDS, "sides from 1 to 65535", side.to_string()))
    });
    let sides: Vec<usize> = sides.collect::<Result<_>>()?;
    Patches::new(sides.as_chunks().0.to_vec(), length, pixels.to_f32()?)
}

fn integers(view: &TensorView) -> Result<Vec<i64>> {
    match view.element {
        ElementType::I64 => Ok(view.bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()),
        ElementType::I32 => {
            Ok(view.bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect())
        }
        other => Err(Error::new(ErrorKind::Unsupported, format!("`{}` has an unfit element type", view.name))
            .expected("I64 or I32")
            .found(other.name())),
    }
}

fn wrong(name: &str, expected: &str, found: String) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("`{name}` is wrong")).expected(expected).found(found)
}
