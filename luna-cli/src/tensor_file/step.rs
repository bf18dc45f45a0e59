//! Step files: what a denoiser is called with, and what it answers. Two layouts: ComfyUI's, one batch under the names
//! of its arguments; and diffusers' of Z-Image, whose items may have texts of different lengths.

use super::{Tensor, lacks, to_bytes};
use luna_core::{
    ArrayView, Error, ErrorKind, Limits, Prediction, Result,
    checkpoint::{Checkpoint, ElementType, TensorView},
    diffusion::{Control, ForwardInput},
    files::{IfExists, write_atomically},
};
use std::{collections::BTreeMap, path::Path};

/// The most residuals in a control list: more than any known UNet has skip connections.
const RESIDUALS: usize = 256;

/// Numbers with their shape.
pub struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    fn view(&self) -> ArrayView<'_> {
        ArrayView::new(&self.shape, &self.values).expect("counted when it was read")
    }
}

/// One call of a denoiser.
pub struct Step {
    x: Array,
    timesteps: Vec<f32>,
    context: Array,
    y: Option<Array>,
    guidance: Option<Vec<f32>>,
    /// For the input side, the middle, the output side.
    control: [Vec<Option<Array>>; 3],
}

impl Step {
    /// As the denoiser takes it.
    pub fn input(&self) -> ForwardInput<'_> {
        let list = |index: usize| self.control[index].iter().map(|array| array.as_ref().map(Array::view)).collect();
        ForwardInput {
            y: self.y.as_ref().map(Array::view),
            guidance: self.guidance.as_deref(),
            control: Control { input: list(0), middle: list(1), output: list(2) },
            ..ForwardInput::new(self.x.view(), &self.timesteps, self.context.view())
        }
    }
}

/// Whose names and signs a step file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepLayout {
    /// One batch: `x`, `timesteps`, `context` → `out`.
    Comfyui,
    /// diffusers' Z-Image: `x0`, `cap0`, `t` → `out0`; `t` is 1 − the timestep and the prediction has the other sign.
    DiffusersZImage,
}

impl StepLayout {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Comfyui => "comfyui",
            Self::DiffusersZImage => "diffusers_z_image",
        }
    }
}

/// The calls that a file asks for.
pub struct StepFile {
    pub layout: StepLayout,
    pub steps: Vec<Step>,
    /// Tensors that mean nothing here.
    pub ignored: Vec<String>,
}

/// Reads a step file.
///
/// # Errors
/// As [`Checkpoint::open`]; `Unsupported` if tensors are missing or of an unfit type, `InvalidInput` for wrong shapes.
pub fn read_steps(path: &Path) -> Result<StepFile> {
    let checkpoint = Checkpoint::open(path, &Limits::default())?;
    let reader = Reader { checkpoint: &checkpoint };
    let file = if reader.has("x0") && reader.has("t") { reader.z_image() } else { reader.comfyui() };
    file.map_err(|error| error.at(path.display()))
}

struct Reader<'a> {
    checkpoint: &'a Checkpoint,
}

impl Reader<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.shape(name).is_some()
    }

    fn comfyui(&self) -> Result<StepFile> {
        let control = ["input", "middle", "output"].map(|side| self.control(side));
        let [input, middle, output] = control;
        let step = Step {
            x: self.need("x")?,
            timesteps: self.need("timesteps")?.values,
            context: self.need("context")?,
            y: self.optional("y")?,
            guidance: self.optional("guidance")?.map(|guidance| guidance.values),
            control: [input?, middle?, output?],
        };
        let known = ["x", "timesteps", "context", "y", "guidance"];
        let ignored = self.others(|name| known.contains(&name) || name.starts_with("control/"));
        Ok(StepFile { layout: StepLayout::Comfyui, steps: vec![step], ignored })
    }

    /// `control/SIDE/INDEX`; what is missing between two is an empty place.
    fn control(&self, side: &str) -> Result<Vec<Option<Array>>> {
        let prefix = format!("control/{side}/");
        let mut list = Vec::new();
        for name in self.checkpoint.tensors().filter_map(|tensor| tensor.name.strip_prefix(&prefix)) {
            let index = name.parse::<usize>().ok().filter(|index| *index < RESIDUALS).ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, "a control residual has a wrong name")
                    .expected(format!("`{prefix}0` to `{prefix}{}`", RESIDUALS - 1))
                    .found(format!("`{prefix}{name}`"))
            })?;
            if list.len() <= index {
                list.resize_with(index + 1, || None);
            }
            list[index] = self.optional(&format!("{prefix}{name}"))?;
        }
        Ok(list)
    }

    fn z_image(&self) -> Result<StepFile> {
        let times = self.need("t")?.values;
        let count = (0..).take_while(|item| self.has(&format!("x{item}"))).count();
        if times.len() != count {
            return Err(Error::new(ErrorKind::InvalidInput, "the number of timesteps `t` is wrong")
                .expected(format!("{count}, one for each `x0`, `x1`, …"))
                .found(times.len().to_string()));
        }
        let item = |(item, time): (usize, f32)| {
            let (mut x, mut context) = (self.need(&format!("x{item}"))?, self.need(&format!("cap{item}"))?);
            let [channels, 1, height, width] = *x.shape else {
                return Err(Error::new(ErrorKind::InvalidInput, format!("`x{item}` has a wrong shape"))
                    .expected("[channels, 1, height, width]")
                    .found(format!("{:?}", x.shape)));
            };
            x.shape = vec![1, channels, height, width];
            context.shape.insert(0, 1);
            let control = [const { Vec::new() }; 3];
            Ok(Step { x, timesteps: vec![1.0 - time], context, y: None, guidance: None, control })
        };
        let steps = times.into_iter().enumerate().map(item).collect::<Result<Vec<_>>>()?;
        let known = |name: &str| {
            name == "t" || (0..count).any(|item| name == format!("x{item}") || name == format!("cap{item}"))
        };
        Ok(StepFile { layout: StepLayout::DiffusersZImage, steps, ignored: self.others(known) })
    }

    fn need(&self, name: &str) -> Result<Array> {
        let all = "`x` [batch, channels, height, width], `timesteps` [batch] and `context` [batch, tokens, width]";
        self.optional(name)?.ok_or_else(|| lacks(self.checkpoint, &format!("`{name}` for a denoiser"), all))
    }

    fn optional(&self, name: &str) -> Result<Option<Array>> {
        let Some(view) = self.checkpoint.tensor(name) else { return Ok(None) };
        Ok(Some(Array { shape: view.shape.to_vec(), values: numbers(&view)? }))
    }

    fn others(&self, known: impl Fn(&str) -> bool) -> Vec<String> {
        let names = self.checkpoint.tensors().map(|tensor| tensor.name).filter(|name| !known(name));
        names.map(str::to_owned).collect()
    }
}

/// Floats widened; whole numbers, as which timesteps are often stored, converted.
fn numbers(view: &TensorView) -> Result<Vec<f32>> {
    match view.element {
        ElementType::I64 => {
            Ok(view.bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as f32).collect())
        }
        ElementType::I32 => {
            Ok(view.bytes.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes) as f32).collect())
        }
        _ => view.to_f32(),
    }
}

/// Writes the answers, under the names and with the signs of the layout.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_predictions(
    path: &Path,
    layout: StepLayout,
    predictions: &[Prediction],
    metadata: &BTreeMap<String, String>,
    if_exists: IfExists,
) -> Result<()> {
    let negated: Vec<Vec<f32>> = match layout {
        StepLayout::Comfyui => Vec::new(),
        StepLayout::DiffusersZImage => {
            predictions.iter().map(|prediction| prediction.data().iter().map(|value| -value).collect()).collect()
        }
    };
    let tensor = |(item, prediction): (usize, &'_ Prediction)| {
        let [_, channels, height, width] = prediction.shape();
        match layout {
            StepLayout::Comfyui => ("out".to_owned(), prediction.shape().to_vec()),
            StepLayout::DiffusersZImage => (format!("out{item}"), vec![channels, 1, height, width]),
        }
    };
    let tensors: Vec<_> = predictions
        .iter()
        .enumerate()
        .map(|(item, prediction)| {
            let (name, shape) = tensor((item, prediction));
            Tensor { name, shape, values: negated.get(item).map_or(prediction.data(), |values| values) }
        })
        .collect();
    write_atomically(path, &to_bytes(&tensors, metadata), if_exists).map(drop)
}
