//! Residuals of ControlNets on their way into a Flux transformer: one for each block, added to the picture's tokens.

use super::super::{Control, input::wrong};
use crate::{
    ArrayView, Result,
    nn::{Pass, Tensor, add},
};
use candle_core::Device;

/// What is left to add.
pub(super) struct Residuals<'a> {
    control: &'a Control<'a>,
    doubles: usize,
    singles: usize,
}

impl<'a> Residuals<'a> {
    pub(super) fn new(control: &'a Control<'a>) -> Self {
        Self { control, doubles: 0, singles: 0 }
    }

    /// Refuses lists that are longer than there are blocks, and a middle, which Flux does not have.
    pub(super) fn check(&self, doubles: usize, singles: usize) -> Result<()> {
        let Control { input, middle, output } = self.control;
        for (name, list, most) in [("input", input, doubles), ("middle", middle, 0), ("output", output, singles)] {
            if list.len() > most {
                return Err(wrong(format!("the control list `{name}` is longer than this transformer has blocks"))
                    .expected(format!("at most {most}"))
                    .found(list.len().to_string())
                    .remedy("use a ControlNet made for Flux"));
            }
        }
        Ok(())
    }

    /// After a double block: `[b, tokens, width]` of the picture.
    pub(super) fn double(&mut self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        self.doubles += 1;
        match self.control.input.get(self.doubles - 1) {
            Some(Some(residual)) => {
                let y = fitted(residual, &x, 0)?;
                add(x, &y, pass)
            }
            _ => Ok(x),
        }
    }

    /// After a single block: all tokens, the picture's after `texts` others.
    pub(super) fn single(&mut self, x: Tensor, texts: usize, pass: &Pass) -> Result<Tensor> {
        self.singles += 1;
        match self.control.output.get(self.singles - 1) {
            Some(Some(residual)) => {
                let y = fitted(residual, &x, texts)?;
                add(x, &y, pass)
            }
            _ => Ok(x),
        }
    }
}

/// The residual with zeros for the tokens before the picture's and for those it does not reach.
fn fitted(residual: &ArrayView, x: &Tensor, texts: usize) -> Result<Tensor> {
    let (b, tokens, width) = x.dims3()?;
    let most = tokens - texts;
    match *residual.shape() {
        [items, count, own] if items == b && own == width && count <= most => {
            let values = Tensor::from_slice(residual.data(), (b, count, width), &Device::Cpu)?;
            let values = values.pad_with_zeros(1, texts, most - count)?.contiguous()?;
            Ok(values.to_dtype(x.dtype())?.to_device(x.device())?)
        }
        ref other => Err(wrong("a control residual has a wrong shape")
            .expected(format!("[{b}, at most {most}, {width}]"))
            .found(format!("{other:?}"))
            .remedy("use a ControlNet made for Flux, on the same size and batch")),
    }
}
