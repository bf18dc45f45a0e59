//! One text encoder: its network, its tokenizer, and how sequences run through it. Enters: a component of a
//! checkpoint, then sequences. Leaves: encodings. It must not know prompts or which diffusion model listens.

use super::{
    clip::{Clip, ClipActivation},
    kind::EncoderKind,
    model::TextLoadOptions,
    qwen3::Qwen3,
    sequence::{Piece, Sequence},
    t5::T5,
    wish::{Batch, Pooling, Wish},
};
use crate::{
    AttentionMode, Call, Error, ErrorKind, PatchedRuns, Patches, Precision, Result, Runtime,
    checkpoint::{Checkpoint, Component, dialect},
    nn::{Embedding, FrozenWeights, Pass, Tensor, Weights},
    tokenizer::{ChunkRule, FileTokenizer, PromptTokenizer},
};
use candle_core::DType;
use std::path::Path;

/// Tokens that run through a network at a time. More would only need more memory.
const MOST_TOKENS: usize = 4096;
/// The padding token of Qwen3.
const QWEN3_PAD: u32 = 151_643;

/// A frozen text encoder.
pub(super) struct Encoder {
    pub(super) kind: EncoderKind,
    network: Network,
    /// What stands for a token embedding that is not a number, as fp8 files of T5 have some: 0.
    mends_table: bool,
    pub(super) frozen: FrozenWeights,
    tokenizer: Option<PromptTokenizer>,
    /// Where a tokenizer was looked for, for errors.
    tokenizer_trouble: Option<String>,
    /// Stored names that belong to the component and that no layer asked for.
    pub(super) unused: Vec<String>,
    /// What besides the weights shapes its encodings, for digests.
    pub(super) settings: String,
}

enum Network {
    Clip(Clip),
    T5(T5),
    Qwen3(Qwen3),
}

/// The encoding of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoding {
    /// `[tokens, channels]`.
    pub(super) values: Vec<f32>,
    /// `[width]`, where it was wished for.
    pub(super) pooled: Option<Vec<f32>>,
}

impl Encoding {
    pub(super) fn non_finite(&self) -> usize {
        let all = self.values.iter().chain(self.pooled.iter().flatten());
        all.filter(|value| !value.is_finite()).count()
    }
}

impl Encoder {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        component: &Component,
        kind: EncoderKind,
        runtime: &Runtime,
        options: &TextLoadOptions,
    ) -> Result<Self> {
        let config = checkpoint.config(&component.prefix);
        let precision = component.device_precision();
        let weights = match kind {
            EncoderKind::T5 | EncoderKind::Qwen3 => {
                Weights::new(checkpoint, runtime, precision, dialect::text(component))
            }
            _ => Weights::new(checkpoint, runtime, precision, dialect::clip(checkpoint, component)),
        };
        let mut settings = format!("{kind:?} {config:?}");
        let network = match kind {
            EncoderKind::T5 => Network::T5(T5::load(&weights, config)?),
            EncoderKind::Qwen3 => Network::Qwen3(Qwen3::load(&weights, config)?),
            _ => {
                let stated = config.map(ClipActivation::stated).transpose()?.flatten();
                let usual = if kind == EncoderKind::ClipL { ClipActivation::QuickGelu } else { ClipActivation::Gelu };
                let activation = options.activation.or(stated).unwrap_or(usual);
                settings += &format!(" {activation:?}");
                Network::Clip(Clip::load(&weights, config, activation)?)
            }
        };
        let mut encoder = Self {
            kind,
            network,
            mends_table: component.elements.keys().any(|element| element.bytes() == 1),
            unused: weights.leftovers(&[&component.prefix]),
            frozen: weights.into_frozen(),
            tokenizer: None,
            tokenizer_trouble: None,
            settings,
        };
        encoder.attach_tokenizer(checkpoint.path(), options)?;
        Ok(encoder)
    }

    /// Finds the tokenizer. A missing file is no error yet: tokens can be encoded without it.
    fn attach_tokenizer(&mut self, weights: &Path, options: &TextLoadOptions) -> Result<()> {
        let limits = &options.limits;
        let clip = options.clip_tokenizer.clone().unwrap_or_default();
        let file = || {
            let file = match &options.tokenizer {
                Some(path) => FileTokenizer::from_file(path, limits)?,
                None => FileTokenizer::beside(weights, limits)?,
            };
            file.check_rows(self.table().entries()).map(|()| file)
        };
        match self.kind.tokenizer(clip, file) {
            Ok(tokenizer) => self.tokenizer = Some(tokenizer.with_limits(limits.clone())),
            Err(error) if error.kind() == ErrorKind::NotFound && options.tokenizer.is_none() => {
                self.tokenizer_trouble = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The tokenizer that belongs to it.
    pub(super) fn tokenizer(&self) -> Result<&PromptTokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let error = Error::new(ErrorKind::NotFound, format!("there is no tokenizer.json for this {}", self.kind))
                .expected("tokenizer.json beside the weights, or its path")
                .remedy("put the tokenizer.json of the model beside its weights, or give tokens instead of text");
            match &self.tokenizer_trouble {
                Some(trouble) => error.found(trouble.clone()),
                None => error,
            }
        })
    }

    /// How its chunks are filled.
    pub(super) fn rule(&self) -> ChunkRule {
        match (&self.tokenizer, self.kind) {
            (Some(tokenizer), _) => *tokenizer.rule(),
            (None, EncoderKind::T5) => ChunkRule::t5(1),
            (None, EncoderKind::Qwen3) => ChunkRule::language_model(QWEN3_PAD),
            (None, clip) => clip.clip_rule(),
        }
    }

    fn table(&self) -> &Embedding {
        match &self.network {
            Network::Clip(clip) => &clip.table,
            Network::T5(t5) => &t5.table,
            Network::Qwen3(qwen3) => &qwen3.table,
        }
    }

    /// Length of a token's embedding and of its encoding.
    pub(super) fn channels(&self) -> usize {
        self.table().channels()
    }

    /// Number of token embeddings.
    pub(super) fn vocabulary(&self) -> usize {
        self.table().entries()
    }

    /// Number of layers.
    pub(super) fn layers(&self) -> usize {
        match &self.network {
            Network::Clip(clip) => clip.layers(),
            Network::T5(t5) => t5.layers(),
            Network::Qwen3(qwen3) => qwen3.layers(),
        }
    }

    /// Encodes sequences, many at a time, in their order.
    pub(super) fn encode(&self, sequences: &[&Sequence], run: &Run) -> Result<(Vec<Encoding>, PatchedRuns)> {
        let batches = batches(sequences);
        let layers = run.wish.layers(self.layers()).0;
        let pass = Pass::new(run.runtime, run.call, batches.len() * layers)
            .with_attention(run.attention)
            .with_patches(run.patches);
        let mut encodings = Vec::with_capacity(sequences.len());
        for batch in batches {
            encodings.extend(run.runtime.run(|| self.encode_batch(batch, run, &pass))?);
        }
        Ok((encodings, pass.patched_runs(&self.frozen)))
    }

    fn encode_batch(&self, sequences: &[&Sequence], run: &Run, pass: &Pass) -> Result<Vec<Encoding>> {
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or_default();
        let x = self.embed(sequences, longest, run, pass)?;
        let lengths = sequences.iter().map(|sequence| sequence.len()).collect();
        let pooled = sequences.iter().map(|sequence| sequence.pooled).collect();
        let batch = Batch { x, lengths, pooled, visible: run.masked.then(|| visible(sequences, longest)).flatten() };
        let hidden = match &self.network {
            Network::Clip(clip) => clip.forward(batch, run.wish, pass)?,
            Network::T5(t5) => t5.forward(batch, run.wish, pass)?,
            Network::Qwen3(qwen3) => qwen3.forward(batch, run.wish, pass)?,
        };
        let pooled = self.pool(sequences.len(), hidden.pooled, run.wish.pooling, pass)?;
        let channels = self.channels();
        let values: Vec<f32> = to_f32(&hidden.encoding)?;
        let of = |index: usize| values[index * longest * channels..][..sequences[index].len() * channels].to_vec();
        Ok(pooled.into_iter().enumerate().map(|(index, pooled)| Encoding { values: of(index), pooled }).collect())
    }

    /// Token embeddings `[sequences, longest, channels]`, with vectors in place and, for CLIP, positions added.
    fn embed(&self, sequences: &[&Sequence], longest: usize, run: &Run, pass: &Pass) -> Result<Tensor> {
        let channels = self.channels();
        let ids: Vec<u32> = sequences
            .iter()
            .flat_map(|sequence| {
                let ids = sequence.pieces.iter().map(|piece| if let Piece::Id(id) = piece { *id } else { 0 });
                ids.chain(std::iter::repeat(0)).take(longest)
            })
            .collect();
        let mut values = to_f32(&self.table().forward(&ids, Precision::F32, pass)?)?;
        if self.mends_table {
            values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 0.0);
        }
        for (index, sequence) in sequences.iter().enumerate() {
            for (token, piece) in sequence.pieces.iter().enumerate() {
                if let Piece::Vector(vector) = piece {
                    values[(index * longest + token) * channels..][..channels].copy_from_slice(vector);
                }
            }
        }
        if let Network::Clip(clip) = &self.network {
            let positions = to_f32(&clip.positions(longest, pass)?)?;
            for rows in values.chunks_exact_mut(positions.len()) {
                rows.iter_mut().zip(&positions).for_each(|(value, position)| *value += position);
            }
        }
        let shape = (sequences.len(), longest, channels);
        Ok(Tensor::from_vec(values, shape, run.runtime.handle())?.to_dtype(run.precision.dtype())?)
    }

    /// The pooled output of each sequence.
    fn pool(
        &self,
        sequences: usize,
        pooled: Option<Tensor>,
        pooling: Pooling,
        pass: &Pass,
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let (Network::Clip(clip), Some(mut rows)) = (&self.network, pooled) else {
            return Ok(vec![None; sequences]);
        };
        if pooling == Pooling::Projected {
            let projection = clip.projection.as_ref().ok_or_else(|| {
                Error::new(ErrorKind::InvalidFile, format!("this {} has no text projection", self.kind))
                    .expected("a tensor `text_projection` or `text_projection.weight`")
                    .remedy("use a file that was saved with its projection")
            })?;
            rows = projection.forward(&rows, pass)?;
        }
        let width = rows.dim(1)?;
        Ok(to_f32(&rows)?.chunks_exact(width).map(|row| Some(row.to_vec())).collect())
    }
}

/// How sequences are run.
pub(super) struct Run<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) call: &'a Call,
    pub(super) patches: Option<&'a Patches>,
    pub(super) precision: Precision,
    pub(super) attention: AttentionMode,
    pub(super) wish: Wish,
    /// Whether hidden places may not be looked at.
    pub(super) masked: bool,
}

/// Cuts into runs of at most [`MOST_TOKENS`] tokens, padding included, but at least one sequence.
fn batches<'a, 's>(mut sequences: &'a [&'s Sequence]) -> Vec<&'a [&'s Sequence]> {
    let mut out = Vec::new();
    while !sequences.is_empty() {
        let mut longest = 0;
        let fitting = sequences.iter().enumerate().take_while(|(index, sequence)| {
            longest = longest.max(sequence.len());
            longest * (index + 1) <= MOST_TOKENS
        });
        let (batch, rest) = sequences.split_at(fitting.count().max(1));
        out.push(batch);
        sequences = rest;
    }
    out
}

/// Which places of a padded batch may be looked at; nothing where all may that are no padding.
fn visible(sequences: &[&Sequence], longest: usize) -> Option<Vec<bool>> {
    if sequences.iter().all(|sequence| sequence.visible.iter().all(|&visible| visible)) {
        return None;
    }
    let padded = |sequence: &&Sequence| {
        let padding = std::iter::repeat_n(false, longest - sequence.len());
        sequence.visible.iter().copied().chain(padding).collect::<Vec<_>>()
    };
    Some(sequences.iter().flat_map(padded).collect())
}

fn to_f32(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
