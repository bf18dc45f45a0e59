//! Typed adapters. Enters: the factors of one layer in a LoRA file. Leaves: what they mean, checked against each other.
//! It must not know models.

use super::{
    factor::Factor,
    name::{LayerName, Part},
    pair::Pair,
    rotation::Rotation,
};
use crate::{Error, ErrorKind, Limits, Result, limits::check_at_most};
use std::{collections::BTreeMap, sync::Arc};

/// What a file holds for one layer.
#[derive(Clone)]
pub(super) struct Adapter {
    /// Its name in the file.
    pub(super) key: String,
    pub(super) layer: LayerName,
    pub(super) weight: Option<Arc<WeightChange>>,
    pub(super) bias: Option<BiasChange>,
}

/// A change of a layer's weight.
pub(super) struct WeightChange {
    pub(super) kind: Kind,
    /// `alpha / rank`, or what the file's conventions say.
    pub(super) scale: f32,
    pub(super) dora: Option<Dora>,
}

/// What is added to a layer's bias.
#[derive(Clone)]
pub(super) struct BiasChange {
    pub(super) values: Factor,
    pub(super) scale: f32,
}

/// The ways to write a difference of a weight.
pub(super) enum Kind {
    /// `up · down`: LoRA on linear layers, LoCon on convolutions.
    LowRank(Pair),
    /// `(a₁·b₁) ⊙ (a₂·b₂)`: LoHa.
    Hadamard([Pair; 2]),
    /// `a ⊗ b`: LoKr.
    Kronecker([KroneckerSide; 2]),
    /// The difference itself.
    Full(Factor),
    /// OFT and BOFT.
    Rotation(Rotation),
    /// `W·outer·inner + up·down`: GLoRA.
    Generalised { outer: Factor, inner: Factor, pair: Pair },
}

/// One factor of a Kronecker product.
pub(super) enum KroneckerSide {
    Whole(Factor),
    Pair(Pair),
}

/// A weight split into directions and magnitudes: `W' = m · V / ‖V‖` with `V = W + ΔW`.
pub(super) struct Dora {
    pub(super) magnitude: Factor,
    pub(super) convention: DoraConvention,
}

/// Along which axis and of which weight DoRA takes norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DoraConvention {
    /// ComfyUI's, for `dora_scale`: magnitudes `[1, inputs, …]` over the norm of each input of `W + ΔW`, or `[outputs,
    /// 1, …]` over the norm of each output of `W` alone.
    ComfyUi,
    /// PEFT's, for `lora_magnitude_vector`: magnitudes over the norm of each output of `W + ΔW`. Also LyCORIS'
    /// `wd_on_out`, whose files look like ComfyUI's: state it for those.
    Peft,
}

impl KroneckerSide {
    pub(super) fn matrix(&self) -> (usize, usize) {
        match self {
            Self::Whole(factor) => factor.matrix(),
            Self::Pair(pair) => (pair.rows, pair.columns),
        }
    }

    fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Pair(pair) => Some(pair.rank),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Whole(factor) => factor.bytes(),
            Self::Pair(pair) => pair.bytes(),
        }
    }
}

impl Kind {
    /// A stable name in lower case.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::LowRank(_) => "lora",
            Self::Hadamard(_) => "loha",
            Self::Kronecker(_) => "lokr",
            Self::Full(_) => "diff",
            Self::Rotation(rotation) if rotation.staged => "boft",
            Self::Rotation(_) => "oft",
            Self::Generalised { .. } => "glora",
        }
    }

    /// Outputs, and inputs times taps where they matter.
    pub(super) fn matrix(&self) -> (usize, Option<usize>) {
        match self {
            Self::LowRank(pair) | Self::Hadamard([pair, _]) | Self::Generalised { pair, .. } => {
                (pair.rows, Some(pair.columns))
            }
            Self::Kronecker([a, b]) => {
                let ((a_rows, a_columns), (b_rows, b_columns)) = (a.matrix(), b.matrix());
                (a_rows * b_rows, Some(a_columns * b_columns))
            }
            Self::Full(factor) => (factor.matrix().0, Some(factor.matrix().1)),
            Self::Rotation(rotation) => (rotation.outputs, None),
        }
    }

    /// What alpha is divided by.
    fn rank(&self) -> Option<usize> {
        match self {
            Self::LowRank(pair) | Self::Hadamard([pair, _]) | Self::Generalised { pair, .. } => Some(pair.rank),
            Self::Kronecker([a, b]) => b.rank().or(a.rank()),
            Self::Full(_) | Self::Rotation(_) => None,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::LowRank(pair) => pair.bytes(),
            Self::Hadamard(pairs) => pairs.iter().map(Pair::bytes).sum(),
            Self::Kronecker(sides) => sides.iter().map(KroneckerSide::bytes).sum(),
            Self::Full(factor) => factor.bytes(),
            Self::Rotation(rotation) => rotation.bytes(),
            Self::Generalised { outer, inner, pair } => outer.bytes() + inner.bytes() + pair.bytes(),
        }
    }
}

impl WeightChange {
    /// A stable name in lower case.
    pub(super) fn name(&self) -> &'static str {
        match (&self.dora, self.kind.name()) {
            (None, name) => name,
            (Some(_), "lora") => "dora",
            (Some(_), "loha") => "dora_loha",
            (Some(_), "lokr") => "dora_lokr",
            (Some(_), _) => "dora_other",
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.kind.bytes() + self.dora.as_ref().map_or(0, |dora| dora.magnitude.bytes())
    }
}

impl Adapter {
    /// A stable name of its kind in lower case.
    pub(super) fn name(&self) -> &'static str {
        self.weight.as_ref().map_or("bias", |change| change.name())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.weight.as_ref().map_or(0, |change| change.bytes())
            + self.bias.as_ref().map_or(0, |bias| bias.values.bytes())
    }
}

/// How a file's conventions scale an adapter of this key and rank, where they say.
pub(super) type ScaleRule<'a> = &'a dyn Fn(&str, usize) -> Option<f32>;

/// The factors of one layer as they stand in a file.
pub(super) struct Group {
    pub(super) key: String,
    pub(super) parts: BTreeMap<Part, Factor>,
}

impl Group {
    /// What the factors mean.
    ///
    /// # Errors
    /// `InvalidFile` if a factor is missing or they disagree, `LimitExceeded` for too high a rank, `Unsupported` if they
    /// are of several kinds.
    pub(super) fn into_adapter(mut self, rule: ScaleRule, limits: &Limits) -> Result<Adapter> {
        let key = self.key.clone();
        let at = |error: Error| error.at(format!("adapter `{key}`"));
        let alpha = self.alpha().map_err(at)?;
        let kind = self.kind(alpha.unwrap_or_default()).map_err(at)?;
        let rank = kind.as_ref().and_then(Kind::rank);
        if let Some(rank) = rank {
            check_at_most("ranks of an adapter", rank as u64, limits.lora_rank as u64).map_err(at)?;
        }
        let scale = match (rank, alpha) {
            (Some(rank), alpha) => rule(&key, rank).unwrap_or_else(|| alpha.map_or(1.0, |alpha| alpha / rank as f32)),
            (None, _) => 1.0,
        };
        let bias = [(Part::UpBias, scale), (Part::DiffBias, 1.0)];
        let bias = bias.into_iter().find_map(|(part, scale)| Some(BiasChange { values: self.take(part)?, scale }));
        let dora = [(Part::DoraScale, DoraConvention::ComfyUi), (Part::Magnitude, DoraConvention::Peft)];
        let dora =
            dora.into_iter().find_map(|(part, convention)| Some(Dora { magnitude: self.take(part)?, convention }));
        if let Some((left, _)) = self.parts.first_key_value() {
            return Err(at(half().found(format!("a lone {left:?}"))));
        }
        if kind.is_none() && (dora.is_some() || bias.is_none()) {
            return Err(at(half().found("no factors")));
        }
        let weight = kind.map(|kind| Arc::new(WeightChange { kind, scale, dora }));
        Ok(Adapter { layer: LayerName::read(&key), key, weight, bias })
    }

    fn take(&mut self, part: Part) -> Option<Factor> {
        self.parts.remove(&part)
    }

    /// The factor, which must be there.
    fn need(&mut self, part: Part) -> Result<Factor> {
        self.take(part).ok_or_else(|| half().found(format!("no {part:?}")))
    }

    fn alpha(&mut self) -> Result<Option<f32>> {
        let Some(alpha) = self.take(Part::Alpha) else { return Ok(None) };
        match *alpha.values() {
            [alpha] if alpha.is_finite() => Ok(Some(alpha)),
            ref values => Err(Error::new(ErrorKind::InvalidFile, "alpha is no number")
                .expected("one finite number")
                .found(format!("{:?} {:?}", alpha.shape, values.first()))),
        }
    }

    fn kind(&mut self, alpha: f32) -> Result<Option<Kind>> {
        let has = |part: Part| self.parts.contains_key(&part);
        let kinds = [
            has(Part::Up) || has(Part::Down),
            has(Part::HadaW1A) || has(Part::HadaW2A),
            [Part::LokrW1, Part::LokrW1A, Part::LokrW2, Part::LokrW2A].into_iter().any(has),
            has(Part::Diff),
            has(Part::OftBlocks),
            has(Part::GloraA1) || has(Part::GloraB1),
        ];
        let mut found = (0..kinds.len()).filter(|&kind| kinds[kind]);
        let (first, second) = (found.next(), found.next());
        if second.is_some() {
            return Err(Error::new(ErrorKind::Unsupported, "one layer has adapters of several kinds")
                .found(format!("{:?}", self.parts.keys().collect::<Vec<_>>())));
        }
        Ok(match first {
            Some(0) => {
                let core = self.take(Part::Mid);
                Some(Kind::LowRank(Pair::new(self.need(Part::Up)?, self.need(Part::Down)?, core, false)?))
            }
            Some(1) => Some(Kind::Hadamard(self.hadamard()?)),
            Some(2) => Some(Kind::Kronecker(self.kronecker()?)),
            Some(3) => Some(Kind::Full(self.need(Part::Diff)?)),
            Some(4) => {
                let (blocks, rescale) = (self.need(Part::OftBlocks)?, self.take(Part::Rescale));
                Some(Kind::Rotation(Rotation::new(blocks, rescale, alpha)?))
            }
            Some(_) => Some(self.generalised()?),
            None => None,
        })
    }

    fn hadamard(&mut self) -> Result<[Pair; 2]> {
        let mut pair = |a, b, core| -> Result<Pair> {
            let core = self.take(core);
            let transposed = core.is_some();
            Pair::new(self.need(a)?, self.need(b)?, core, transposed)
        };
        let first = pair(Part::HadaW1A, Part::HadaW1B, Part::HadaT1)?;
        let second = pair(Part::HadaW2A, Part::HadaW2B, Part::HadaT2)?;
        if (first.rows, first.columns) != (second.rows, second.columns) {
            return Err(Error::new(ErrorKind::InvalidFile, "the two products of a LoHa adapter differ in shape")
                .expected(format!("[{}, {}]", first.rows, first.columns))
                .found(format!("[{}, {}]", second.rows, second.columns)));
        }
        Ok([first, second])
    }

    fn kronecker(&mut self) -> Result<[KroneckerSide; 2]> {
        let mut side = |whole, a, b, core| -> Result<KroneckerSide> {
            if let Some(whole) = self.take(whole) {
                return if whole.count() > 0 {
                    Ok(KroneckerSide::Whole(whole))
                } else {
                    Err(half().found("no values"))
                };
            }
            let core = self.take(core);
            let transposed = core.is_some();
            Ok(KroneckerSide::Pair(Pair::new(self.need(a)?, self.need(b)?, core, transposed)?))
        };
        // The first side has no core: a name that no file bears stands for it.
        let first = side(Part::LokrW1, Part::LokrW1A, Part::LokrW1B, Part::Refused(""))?;
        let second = side(Part::LokrW2, Part::LokrW2A, Part::LokrW2B, Part::LokrT2)?;
        Ok([first, second])
    }

    /// Files before LyCORIS 2 name the factors the other way round.
    fn generalised(&mut self) -> Result<Kind> {
        let [a1, a2] = [self.need(Part::GloraA1)?, self.need(Part::GloraA2)?];
        let [b1, b2] = [self.need(Part::GloraB1)?, self.need(Part::GloraB2)?];
        let new = a1.matrix().1 == a2.matrix().0 && b1.matrix().1 == b2.matrix().0;
        let (outer, inner, up, down) = if new { (a1, a2, b1, b2) } else { (a2, a1, b2, b1) };
        let pair = Pair::new(up, down, None, false)?;
        if outer.matrix().1 != inner.matrix().0 || outer.matrix().0 != inner.matrix().1 {
            return Err(Error::new(ErrorKind::InvalidFile, "the factors of a GLoRA adapter disagree")
                .expected("[inputs, rank] and [rank, inputs]")
                .found(format!("{:?} and {:?}", outer.shape, inner.shape)));
        }
        Ok(Kind::Generalised { outer, inner, pair })
    }
}

fn half() -> Error {
    Error::new(ErrorKind::InvalidFile, "an adapter is incomplete")
        .expected("all factors of one kind, such as lora_up and lora_down")
        .remedy("the file was not written to its end, or is of a variant that Luna does not know")
}
