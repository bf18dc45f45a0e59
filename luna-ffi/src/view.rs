//! Arrays of the caller's. Enters: a pointer with dtype, shape and strides. Leaves: f32 in row-major order, the caller's
//! own memory where it is so already, and how many bytes had to be copied where not.

use crate::{
    error::{Result, wrong},
    handle::{Caller, as_floats},
};
use half::{bf16, f16};
use luna_core::{Error, ErrorKind, limits::check_at_most};
use std::{borrow::Cow, ffi::c_void};

crate::handle::plain!(luna_view, *const luna_view);

/// The most dimensions of an array.
pub const LUNA_MAX_RANK: usize = 8;

/// The most values of an array: more than any call takes.
const MOST_VALUES: u64 = 1 << 31;

/// The type of an array's elements.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum luna_dtype {
    /// 32-bit floats, in which Luna computes: no copy is made.
    F32 = 0,
    /// IEEE half.
    F16 = 1,
    /// bfloat16.
    Bf16 = 2,
    /// 64-bit floats.
    F64 = 3,
    /// Bytes: 0..255 of a picture stand for 0..1.
    U8 = 4,
    /// One byte each, 0 or 1.
    Bool = 5,
    /// 32-bit signed integers.
    I32 = 6,
    /// 64-bit signed integers.
    I64 = 7,
}

/// An array: a caller's, which Luna only looks at while the call runs, or Luna's, which a caller may look at until it
/// frees what it belongs to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct luna_view {
    /// The element with all indices 0. Aligned for its type, or else it is copied.
    pub data: *const c_void,
    /// A `luna_dtype`.
    pub dtype: i32,
    /// Number of dimensions, at most `LUNA_MAX_RANK`.
    pub rank: u32,
    /// Whether `strides` count. 0: the array is row-major without gaps.
    pub strided: u32,
    /// 0.
    pub reserved: u32,
    /// Elements along each dimension, the outermost first.
    pub shape: [i64; LUNA_MAX_RANK],
    /// From one element to the next along each dimension, in elements; negative and 0 are allowed.
    pub strides: [i64; LUNA_MAX_RANK],
}

impl luna_dtype {
    const ALL: [Self; 8] = [Self::F32, Self::F16, Self::Bf16, Self::F64, Self::U8, Self::Bool, Self::I32, Self::I64];

    pub(crate) fn of(number: i32) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|dtype| *dtype as i32 == number);
        known.ok_or_else(|| wrong("there is no such dtype").found(number.to_string()).into())
    }

    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

impl luna_view {
    /// Row-major elements of Luna's.
    pub(crate) fn of(data: *const c_void, dtype: luna_dtype, shape: &[usize]) -> Self {
        let mut view = Self {
            data,
            dtype: dtype as i32,
            rank: shape.len() as u32,
            strided: 1,
            reserved: 0,
            shape: [0; LUNA_MAX_RANK],
            strides: [0; LUNA_MAX_RANK],
        };
        let mut stride = 1;
        for (axis, &side) in shape.iter().enumerate().rev() {
            view.shape[axis] = side as i64;
            view.strides[axis] = stride;
            stride *= side as i64;
        }
        view
    }
}

/// What a caller's numbers are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Pixels: bytes stand for 0..1.
    Pixels,
    /// Any others: no bytes.
    Numbers,
}

/// A caller's array in f32.
pub(crate) struct Floats<'a> {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Cow<'a, [f32]>,
    /// Bytes that were written to bring it into this form; 0 where the memory is the caller's own.
    pub(crate) copied: u64,
}

/// Where an array's elements lie.
struct Layout {
    shape: Vec<usize>,
    strides: Vec<isize>,
    /// Elements in all.
    count: usize,
    /// How far elements reach before and behind the first, in elements.
    before: usize,
    after: usize,
}

impl Layout {
    fn of(what: &str, view: &luna_view) -> Result<Self> {
        let rank = view.rank as usize;
        if rank > LUNA_MAX_RANK {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("{what} has too many dimensions"))
                .expected(format!("at most {LUNA_MAX_RANK}"))
                .found(rank.to_string())
                .into());
        }
        let overflow = || wrong(format!("{what} has an impossible shape")).found(format!("{:?}", &view.shape[..rank]));
        let sides = view.shape[..rank].iter().map(|&side| usize::try_from(side).map_err(|_| overflow()));
        let shape = sides.collect::<Result<Vec<_>, _>>()?;
        let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side)).ok_or_else(overflow)?;
        check_at_most(&format!("values in {what}"), count as u64, MOST_VALUES)?;
        let mut strides = vec![1; rank];
        if view.strided != 0 {
            let own = view.strides[..rank].iter().map(|&stride| isize::try_from(stride).map_err(|_| overflow()));
            strides = own.collect::<Result<_, _>>()?;
        } else {
            for axis in (1..rank).rev() {
                // An empty array has no elements to find.
                strides[axis - 1] = strides[axis] * shape[axis].max(1) as isize;
            }
        }
        let (mut before, mut after) = (0usize, 0usize);
        for (&side, &stride) in shape.iter().zip(&strides) {
            let reach = side.saturating_sub(1).checked_mul(stride.unsigned_abs()).ok_or_else(overflow)?;
            let end = if stride < 0 { &mut before } else { &mut after };
            *end = end.checked_add(reach).ok_or_else(overflow)?;
        }
        Ok(Self { shape, strides, count, before, after })
    }

    fn is_row_major(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == expected;
            expected *= side as isize;
            fits
        })
    }

    /// Where each element lies, counted from the lowest.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let mut index = vec![0usize; self.shape.len()];
        let mut place = self.before as isize;
        (0..self.count).map(move |_| {
            let here = place as usize;
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                place += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                place -= self.strides[axis] * self.shape[axis] as isize;
                index[axis] = 0;
            }
            here
        })
    }
}

/// Looks at a caller's array.
pub(crate) fn floats<'a>(
    caller: &'a Caller,
    what: &str,
    view: *const luna_view,
    meaning: Meaning,
) -> Result<Floats<'a>> {
    let view = caller.value(what, view)?;
    let dtype = luna_dtype::of(view.dtype)?;
    let layout = Layout::of(what, &view)?;
    if layout.count == 0 {
        return Ok(Floats { shape: layout.shape, values: Cow::Borrowed(&[]), copied: 0 });
    }
    if view.data.is_null() {
        return Err(wrong(format!("{what} has no data")).found("NULL").into());
    }
    let size = dtype.bytes();
    let in_bytes =
        |elements: usize| elements.checked_mul(size).ok_or_else(|| wrong(format!("{what} is larger than any memory")));
    let memory = caller.memory(view.data, in_bytes(layout.before)?, in_bytes(layout.after + 1)?)?;
    if dtype == luna_dtype::F32
        && layout.is_row_major()
        && let Some(values) = as_floats(memory)
    {
        return Ok(Floats { shape: layout.shape, values: Cow::Borrowed(values), copied: 0 });
    }
    let values = gather(memory, &layout, converter(what, dtype, meaning)?);
    Ok(Floats { copied: values.len() as u64 * 4, shape: layout.shape, values: Cow::Owned(values) })
}

/// An array that need not be there.
pub(crate) fn optional_floats<'a>(
    caller: &'a Caller,
    what: &str,
    view: *const luna_view,
) -> Result<Option<Floats<'a>>> {
    if view.is_null() { Ok(None) } else { floats(caller, what, view, Meaning::Numbers).map(Some) }
}

type Converter = (usize, fn(&[u8]) -> f32);

/// How one element becomes an f32.
fn converter(what: &str, dtype: luna_dtype, meaning: Meaning) -> Result<Converter> {
    let convert: fn(&[u8]) -> f32 = match dtype {
        luna_dtype::F32 => |bytes| f32::from_ne_bytes(array(bytes)),
        luna_dtype::F16 => |bytes| f16::from_ne_bytes(array(bytes)).to_f32(),
        luna_dtype::Bf16 => |bytes| bf16::from_ne_bytes(array(bytes)).to_f32(),
        luna_dtype::F64 => |bytes| f64::from_ne_bytes(array(bytes)) as f32,
        luna_dtype::U8 if meaning == Meaning::Pixels => |bytes| f32::from(bytes[0]) / 255.0,
        luna_dtype::I32 if meaning == Meaning::Numbers => |bytes| i32::from_ne_bytes(array(bytes)) as f32,
        luna_dtype::I64 if meaning == Meaning::Numbers => |bytes| i64::from_ne_bytes(array(bytes)) as f32,
        _ => {
            return Err(wrong(format!("{what} is of a wrong dtype"))
                .expected(if meaning == Meaning::Pixels { "floats or bytes" } else { "floats or integers" })
                .found(format!("{dtype:?}").to_lowercase())
                .into());
        }
    };
    Ok((dtype.bytes(), convert))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

fn gather(memory: &[u8], layout: &Layout, (size, convert): Converter) -> Vec<f32> {
    layout.places().map(|place| convert(&memory[place * size..][..size])).collect()
}

/// Whole numbers of a caller's, with their shape: 32- or 64-bit integers, and bytes where they may be flags.
fn integers(caller: &Caller, what: &str, view: *const luna_view, flags: bool) -> Result<(Vec<usize>, Vec<i64>)> {
    let view = caller.value(what, view)?;
    let dtype = luna_dtype::of(view.dtype)?;
    let layout = Layout::of(what, &view)?;
    let read: fn(&[u8]) -> i64 = match dtype {
        luna_dtype::I32 => |bytes| i32::from_ne_bytes(array(bytes)).into(),
        luna_dtype::I64 => |bytes| i64::from_ne_bytes(array(bytes)),
        luna_dtype::U8 | luna_dtype::Bool if flags => |bytes| bytes[0].into(),
        _ => {
            let expected = if flags { "bytes, or 32- or 64-bit integers" } else { "32- or 64-bit integers" };
            return Err(wrong(format!("{what} is of a wrong dtype")).expected(expected).into());
        }
    };
    if layout.count == 0 {
        return Ok((layout.shape, Vec::new()));
    }
    if view.data.is_null() {
        return Err(wrong(format!("{what} has no data")).found("NULL").into());
    }
    let size = dtype.bytes();
    let reach = |elements: usize| elements.saturating_mul(size);
    let memory = caller.memory(view.data, reach(layout.before), reach(layout.after + 1))?;
    let numbers = layout.places().map(|place| read(&memory[place * size..][..size])).collect();
    Ok((layout.shape, numbers))
}

/// Token ids of a caller's: any integers that are not negative.
pub(crate) fn ids(caller: &Caller, what: &str, view: *const luna_view) -> Result<(Vec<usize>, Vec<u32>)> {
    let (shape, numbers) = integers(caller, what, view, false)?;
    let id = |number: i64| {
        u32::try_from(number)
            .map_err(|_| wrong(format!("{what} holds an impossible id")).found(number.to_string()).into())
    };
    Ok((shape, numbers.into_iter().map(id).collect::<Result<_>>()?))
}

/// Flags of a caller's: bytes or integers, each 0 or 1.
pub(crate) fn flags(caller: &Caller, what: &str, view: *const luna_view) -> Result<(Vec<usize>, Vec<bool>)> {
    let (shape, numbers) = integers(caller, what, view, true)?;
    let flag = |number: i64| match number {
        0 | 1 => Ok(number == 1),
        _ => Err(wrong(format!("{what} holds something else than 0 and 1")).found(number.to_string()).into()),
    };
    Ok((shape, numbers.into_iter().map(flag).collect::<Result<_>>()?))
}
