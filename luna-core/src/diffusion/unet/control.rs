//! Residuals of ControlNets on their way into a UNet. Each list is used from its end on, as ComfyUI pops it.

use super::super::{Control, input::wrong};
use crate::{
    ArrayView, Result,
    nn::{Pass, Tensor, add},
};
use candle_core::Device;

type List<'a> = std::iter::Rev<std::slice::Iter<'a, Option<ArrayView<'a>>>>;

/// What is left to add.
pub(super) struct Residuals<'a> {
    input: List<'a>,
    middle: List<'a>,
    output: List<'a>,
}

impl<'a> Residuals<'a> {
    pub(super) fn new(control: &'a Control<'a>) -> Self {
        let Control { input, middle, output } = control;
        Self { input: input.iter().rev(), middle: middle.iter().rev(), output: output.iter().rev() }
    }

    /// After an input block.
    pub(super) fn input(&mut self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        apply(x, self.input.next(), "input", pass)
    }

    /// After the middle.
    pub(super) fn middle(&mut self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        apply(x, self.middle.next(), "middle", pass)
    }

    /// To a skip connection.
    pub(super) fn output(&mut self, skip: Tensor, pass: &Pass) -> Result<Tensor> {
        apply(skip, self.output.next(), "output", pass)
    }

    /// Refuses lists that are longer than the UNet has places.
    pub(super) fn finish(&self) -> Result<()> {
        for (name, list) in [("input", &self.input), ("middle", &self.middle), ("output", &self.output)] {
            if list.len() > 0 {
                return Err(wrong(format!("the control list `{name}` is longer than this UNet has places"))
                    .found(format!("{} too many", list.len()))
                    .remedy("use a ControlNet made for this kind of UNet"));
            }
        }
        Ok(())
    }
}

fn apply(x: Tensor, residual: Option<&Option<ArrayView>>, list: &str, pass: &Pass) -> Result<Tensor> {
    let Some(Some(residual)) = residual else { return Ok(x) };
    let (b, h, w, c) = x.dims4()?;
    if residual.shape() != [b, c, h, w] {
        return Err(wrong(format!("a residual of the control list `{list}` has a wrong shape"))
            .expected(format!("{:?}", [b, c, h, w]))
            .found(format!("{:?}", residual.shape()))
            .remedy("use a ControlNet made for this kind of UNet, on the same size and batch"));
    }
    let residual = Tensor::from_slice(residual.data(), residual.shape(), &Device::Cpu)?.permute((0, 2, 3, 1))?;
    let residual = residual.contiguous()?.to_dtype(x.dtype())?.to_device(x.device())?;
    add(x, &residual, pass)
}
