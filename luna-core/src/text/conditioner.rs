//! Prompts to conditioning: text encoders at work together. Enters: frozen models, prompts or tokens. Leaves:
//! conditionings, all prompts of a call in one batch. It must not know files or denoisers.

use super::{
    ConditioningCache, EmbeddingFolders, EmbeddingProblem, Encoded, EncodedPrompt, EncoderKind, Fallback, Prompt,
    TextModel, TextOptions, TokenIds, Tokenized,
    cache::Key,
    encoder::{Encoder, Encoding, Run},
    recipe::{JoinedEncoding, Recipe},
    sequence::Sequence,
    tokens::{EncoderTokens, tokenize},
};
use crate::{
    Conditioning, Error, ErrorKind, Limits, PatchedRuns, PictureSizes, Precision, Result, Runtime,
    limits::check_at_most,
};
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Text encoders that work together for one diffusion model.
///
/// Without files, with the demonstration model that this crate carries:
///
/// ```
/// use luna_core::{Runtime, text::{Conditioner, TextModel, TextOptions}};
/// let model = TextModel::demo(&Runtime::cpu()?)?;
/// let conditioner = Conditioner::new(&[&model])?;
/// let encoded = conditioner.encode(&["a (red:1.3) fox".into(), "blurry".into()], &TextOptions::default())?;
/// let [positive, negative] = [0, 1].map(|prompt| &encoded.prompts[prompt].conditioning);
/// assert_eq!(positive.shape(), [1, 77, 64]);
/// assert_eq!(negative.pooled().map(<[f32]>::len), Some(64));
/// # Ok::<(), luna_core::Error>(())
/// ```
///
/// SDXL, from two files:
///
/// ```no_run
/// use luna_core::{PictureSizes, Runtime, text::{Conditioner, Prompt, TextModel, TextOptions}};
/// let runtime = Runtime::cpu()?;
/// let clip_l = TextModel::open("clip_l.safetensors", &runtime)?;
/// let clip_g = TextModel::open("clip_g.safetensors", &runtime)?;
/// let sdxl = Conditioner::new(&[&clip_l, &clip_g])?;
/// let prompt = Prompt::new("a lighthouse at dusk").sized(PictureSizes::uncropped(1024, 1024));
/// let encoded = sdxl.encode(&[prompt, Prompt::new("")], &TextOptions::default())?;
/// assert_eq!(encoded.first().shape(), [1, 77, 2048]);
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct Conditioner<'a> {
    recipe: Recipe,
    models: Vec<&'a TextModel>,
    encoders: Vec<&'a Encoder>,
    runtime: &'a Runtime,
    folders: Option<&'a EmbeddingFolders>,
    cache: Option<&'a ConditioningCache>,
}

/// Sequences to run through one encoder, each once.
struct Gathered {
    sequences: Vec<Sequence>,
}

impl Gathered {
    /// The number of a sequence, which is added if it is new.
    fn add(&mut self, sequence: Sequence) -> usize {
        match self.sequences.iter().position(|known| *known == sequence) {
            Some(index) => index,
            None => {
                self.sequences.push(sequence);
                self.sequences.len() - 1
            }
        }
    }
}

impl<'a> Conditioner<'a> {
    /// Puts all text encoders of these models together, for the diffusion model that listens to just them.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or if an encoder is there twice.
    pub fn new(models: &[&'a TextModel]) -> Result<Self> {
        let kinds: Vec<_> = models.iter().flat_map(|model| &model.encoders).map(|encoder| encoder.kind).collect();
        Self::with_recipe(models, Recipe::of(&kinds)?)
    }

    /// Puts the encoders that a recipe uses together; what it does not use is left aside.
    ///
    /// # Errors
    /// `InvalidInput` if one is missing or there twice.
    pub fn with_recipe(models: &[&'a TextModel], recipe: Recipe) -> Result<Self> {
        let mut encoders: Vec<&Encoder> = models
            .iter()
            .flat_map(|model| &model.encoders)
            .filter(|encoder| recipe.encoders().contains(&encoder.kind))
            .collect();
        encoders.sort_by_key(|encoder| encoder.kind);
        let kinds: Vec<_> = encoders.iter().map(|encoder| encoder.kind).collect();
        recipe.check(&kinds)?;
        if let Some(twins) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::new(ErrorKind::InvalidInput, format!("there are two {}", twins[0]))
                .expected("each text encoder once")
                .remedy("state which encoder each file is, or leave one out"));
        }
        let models = models.to_vec();
        let runtime = &models[0].runtime;
        Ok(Self { recipe, models, encoders, runtime, folders: None, cache: None })
    }

    /// Lets prompts use the textual inversions in these folders.
    pub fn with_embeddings(mut self, folders: &'a EmbeddingFolders) -> Self {
        self.folders = Some(folders);
        self
    }

    /// Remembers conditionings. The first call computes the models' digests, unless they were stated.
    pub fn with_cache(mut self, cache: &'a ConditioningCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// What the conditioning is made for.
    pub fn recipe(&self) -> Recipe {
        self.recipe
    }

    /// The encoders that take part.
    pub fn encoders(&self) -> impl ExactSizeIterator<Item = EncoderKind> + '_ {
        self.encoders.iter().map(|encoder| encoder.kind)
    }

    /// Tokenizes a prompt for each encoder, with the vectors of its textual inversions.
    ///
    /// # Errors
    /// `LimitExceeded` for too long a prompt, `InvalidInput` for a weight that is not finite, `NotFound` if an encoder
    /// has no tokenizer.
    pub fn tokenize(&self, prompt: &Prompt, options: &TextOptions) -> Result<Tokenized> {
        tokenize(prompt, self.recipe, &self.encoders, self.folders, options)
    }

    /// Encodes prompts, positive and negative or any others, in one batch.
    ///
    /// # Errors
    /// As [`Conditioner::tokenize`] and [`Conditioner::encode_tokenized`].
    pub fn encode(&self, prompts: &[Prompt], options: &TextOptions) -> Result<Encoded> {
        let start = Instant::now();
        check_batch(prompts.len())?;
        let tokenized: Vec<_> = prompts.iter().map(|prompt| self.tokenize(prompt, options)).collect::<Result<_>>()?;
        let encoded = self.encode_tokenized(&tokenized, options)?;
        Ok(Encoded { elapsed: start.elapsed(), ..encoded })
    }

    /// Encodes what [`Conditioner::tokenize`] gave, in one batch.
    ///
    /// # Errors
    /// `InvalidInput` for no prompts, or a token that the vocabulary lacks; `InvalidFile` for a CLIP without the
    /// projection its pooled output needs; `NonFinite` if a result holds NaN or infinity in f32; `Cancelled`.
    pub fn encode_tokenized(&self, prompts: &[Tokenized], options: &TextOptions) -> Result<Encoded> {
        check_batch(prompts.len())?;
        let inputs: Vec<Input> = prompts.iter().map(Input::Prompt).collect();
        self.encode_inputs(&inputs, options)
    }

    /// Encodes tokens in place of prompts, in one batch, where there is one encoder only.
    ///
    /// # Errors
    /// `InvalidInput` for no tokens, a mask of another length or for a CLIP, or a token that the vocabulary lacks;
    /// `LimitExceeded` for too many; else as [`Conditioner::encode_tokenized`].
    pub fn encode_ids(&self, prompts: &[TokenIds], options: &TextOptions) -> Result<Encoded> {
        check_batch(prompts.len())?;
        let &[encoder] = &*self.encoders else {
            let names: Vec<_> = self.encoders().map(|kind| kind.to_string()).collect();
            return Err(Error::new(ErrorKind::InvalidInput, "tokens can be given to one text encoder only")
                .expected("one encoder")
                .found(names.join(", ")));
        };
        prompts.iter().try_for_each(|tokens| check_ids(tokens, encoder))?;
        let inputs: Vec<Input> = prompts.iter().map(Input::Ids).collect();
        self.encode_inputs(&inputs, options)
    }

    fn encode_inputs(&self, inputs: &[Input], options: &TextOptions) -> Result<Encoded> {
        let start = Instant::now();
        let keys = match self.cache {
            Some(_) => inputs.iter().map(|input| self.key(input, options).map(Some)).collect::<Result<Vec<_>>>()?,
            None => vec![None; inputs.len()],
        };
        let known: Vec<_> = keys.iter().map(|key| self.cache?.get(&(*key)?)).collect();
        let fresh: Vec<&Input> =
            inputs.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(input, _)| input).collect();
        let Computed { made, fallbacks, patched, sequences } = self.compute(&fresh, options)?;
        let mut made = made.into_iter();
        let mut prompts = Vec::with_capacity(inputs.len());
        for ((input, key), known) in inputs.iter().zip(keys).zip(known) {
            let cached = known.is_some();
            let conditioning = match known {
                Some(known) => known,
                None => {
                    let lacks = || Error::new(ErrorKind::Internal, "a prompt was not encoded");
                    let conditioning = Arc::new(made.next().ok_or_else(lacks)?);
                    if let (Some(cache), Some(key)) = (self.cache, key) {
                        cache.put(key, conditioning.clone());
                    }
                    conditioning
                }
            };
            let conditioning = match input.sizes() {
                Some(sizes) => Arc::new(Arc::unwrap_or_clone(conditioning).with_sizes(Some(sizes))),
                None => conditioning,
            };
            prompts.push(EncodedPrompt { conditioning, problems: input.problems().to_vec(), cached });
        }
        Ok(Encoded { prompts, fallbacks, patched, sequences, elapsed: start.elapsed() })
    }

    /// The conditionings of inputs.
    fn compute(&self, inputs: &[&Input], options: &TextOptions) -> Result<Computed> {
        let mut joined: Vec<Vec<JoinedEncoding>> = inputs.iter().map(|_| Vec::new()).collect();
        let (mut fallbacks, mut patched, mut sequences) = (Vec::new(), BTreeMap::new(), 0);
        for (index, encoder) in self.encoders.iter().enumerate() {
            let mut gathered = Gathered { sequences: Vec::new() };
            let plans: Vec<Plan> = inputs.iter().map(|input| Plan::of(input, index, encoder, &mut gathered)).collect();
            let (encodings, runs, fallback) = self.run(encoder, &gathered.sequences, inputs, options)?;
            fallbacks.extend(fallback);
            if !runs.layers.is_empty() {
                patched.insert(encoder.kind, runs);
            }
            sequences += gathered.sequences.len();
            for ((input, plan), joined) in inputs.iter().zip(&plans).zip(&mut joined) {
                let masked = self.masked(encoder.kind, input, options);
                let encoding = plan.join(encoder, &encodings, masked.then_some(&gathered.sequences));
                // The encodings are finite, so only weights can have spoilt them.
                if plan.weighted.is_some() && encoding.values.iter().any(|value| !value.is_finite()) {
                    let message = format!("a prompt weight is too large for {}", encoder.kind);
                    return Err(Error::new(ErrorKind::NonFinite, message)
                        .expected("weights that leave the encoding finite")
                        .remedy("use weights between -10 and 10"));
                }
                joined.push(encoding);
            }
        }
        let made = joined.into_iter().map(|encodings| self.recipe.combine(encodings)).collect::<Result<_>>()?;
        Ok(Computed { made, fallbacks, patched, sequences })
    }

    /// Runs sequences through an encoder, again in f32 if half precision does not suffice.
    fn run(
        &self,
        encoder: &Encoder,
        sequences: &[Sequence],
        inputs: &[&Input],
        options: &TextOptions,
    ) -> Result<(Vec<Encoding>, PatchedRuns, Option<Fallback>)> {
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        let patches = options.patches.get(&encoder.kind).map(|patches| &**patches);
        patches.map_or(Ok(()), |patches| patches.check(&encoder.frozen))?;
        let run = |precision| {
            let run = Run {
                runtime: self.runtime,
                call: &options.call,
                patches,
                precision,
                attention: options.attention,
                wish: self.recipe.wish(encoder.kind, options.clip_skip.map(|skip| skip.get())),
                masked: inputs.iter().any(|input| self.masked(encoder.kind, input, options)),
            };
            let (encodings, runs) = encoder.encode(&sequences, &run)?;
            let non_finite: usize = encodings.iter().map(Encoding::non_finite).sum();
            Ok::<_, Error>((encodings, runs, non_finite))
        };
        let (encodings, runs, non_finite) = run(options.precision)?;
        if non_finite == 0 {
            return Ok((encodings, runs, None));
        }
        let fallback = Fallback::Widened { encoder: encoder.kind, from: options.precision, non_finite };
        let (encodings, runs, non_finite) =
            if options.precision == Precision::F32 { (encodings, runs, non_finite) } else { run(Precision::F32)? };
        if non_finite == 0 {
            return Ok((encodings, runs, Some(fallback)));
        }
        Err(Error::new(ErrorKind::NonFinite, format!("{} gave values that are NaN or infinite", encoder.kind))
            .expected("finite values")
            .found(format!("{non_finite} that are not"))
            .remedy("check the weights of the file"))
    }

    /// Whether an encoder may not look at hidden places of an input.
    fn masked(&self, kind: EncoderKind, input: &Input, options: &TextOptions) -> bool {
        match kind {
            EncoderKind::Qwen3 => true,
            EncoderKind::T5 => options.t5_mask || matches!(input, Input::Ids(TokenIds { mask: Some(_), .. })),
            _ => false,
        }
    }

    /// A digest over all that shapes the conditioning of an input.
    fn key(&self, input: &Input, options: &TextOptions) -> Result<Key> {
        let TextOptions { precision, attention, clip_skip, t5_mask, patches, syntax: _, t5_tokens: _, call: _ } =
            options;
        let mut hasher = blake3::Hasher::new();
        for model in &self.models {
            hasher.update(model.digest()?.as_bytes());
        }
        for encoder in &self.encoders {
            field(&mut hasher, encoder.settings.as_bytes());
        }
        let options = format!("{:?} {precision} {attention} {clip_skip:?} {t5_mask}", self.recipe);
        field(&mut hasher, options.as_bytes());
        // An empty set of patches changes nothing.
        for (kind, patches) in patches.iter().filter(|(_, patches)| !patches.is_empty()) {
            field(&mut hasher, kind.name().as_bytes());
            field(&mut hasher, patches.digest().as_bytes());
        }
        match input {
            Input::Prompt(prompt) => prompt.encoders.iter().for_each(|tokens| tokens.update(&mut hasher)),
            Input::Ids(tokens) => {
                field(&mut hasher, b"ids");
                let ids: Vec<u8> = tokens.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                field(&mut hasher, &ids);
                let mask = tokens.mask.iter().flatten().map(|&seen| u8::from(seen)).collect::<Vec<_>>();
                field(&mut hasher, &mask);
            }
        }
        Ok(hasher.finalize())
    }
}

/// What encoding inputs gave.
struct Computed {
    made: Vec<Conditioning>,
    fallbacks: Vec<Fallback>,
    /// How patched layers ran.
    patched: BTreeMap<EncoderKind, PatchedRuns>,
    /// How many sequences ran.
    sequences: usize,
}

impl std::fmt::Debug for Conditioner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conditioner({}, {:?})", self.recipe.name(), self.encoders().collect::<Vec<_>>())
    }
}

/// Bytes with their length, so that no two lists of them look alike.
fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// What is to be encoded.
enum Input<'a> {
    Prompt(&'a Tokenized),
    Ids(&'a TokenIds),
}

impl Input<'_> {
    fn sizes(&self) -> Option<PictureSizes> {
        match self {
            Self::Prompt(prompt) => prompt.sizes,
            Self::Ids(_) => None,
        }
    }

    fn problems(&self) -> &[EmbeddingProblem] {
        match self {
            Self::Prompt(prompt) => &prompt.problems,
            Self::Ids(_) => &[],
        }
    }
}

/// Which sequences make up one input for one encoder.
struct Plan<'a> {
    chunks: Vec<usize>,
    /// The tokens with weights, and the empty prompt's sequence.
    weighted: Option<(&'a EncoderTokens, usize)>,
}

impl<'a> Plan<'a> {
    fn of(input: &Input<'a>, index: usize, encoder: &Encoder, gathered: &mut Gathered) -> Self {
        match input {
            Input::Prompt(prompt) => {
                let tokens = &prompt.encoders[index];
                let sequences = tokens.sequences(encoder.channels());
                let chunks = sequences.into_iter().map(|sequence| gathered.add(sequence)).collect();
                Self { chunks, weighted: tokens.empty().map(|empty| (tokens, gathered.add(empty))) }
            }
            Input::Ids(ids) => {
                let sequence = Sequence::of_ids(&ids.ids, ids.mask.as_deref(), &encoder.rule());
                Self { chunks: vec![gathered.add(sequence)], weighted: None }
            }
        }
    }

    /// Joins the chunks' encodings, weights applied. The first chunk's pooled output stands for all.
    fn join(&self, encoder: &Encoder, encodings: &[Encoding], masks: Option<&Vec<Sequence>>) -> JoinedEncoding {
        let channels = encoder.channels();
        let mut values = Vec::new();
        for (chunk, &index) in self.chunks.iter().enumerate() {
            let start = values.len();
            values.extend_from_slice(&encodings[index].values);
            if let Some((tokens, empty)) = self.weighted {
                tokens.apply_weights(chunk, &mut values[start..], &encodings[empty].values, channels);
            }
        }
        let mask = masks
            .map(|sequences| self.chunks.iter().flat_map(|&index| sequences[index].visible.iter().copied()).collect());
        JoinedEncoding { kind: encoder.kind, channels, values, pooled: encodings[self.chunks[0]].pooled.clone(), mask }
    }
}

fn check_batch(prompts: usize) -> Result<()> {
    if prompts == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "there is nothing to encode").expected("at least one prompt"));
    }
    check_at_most("prompts in one call", prompts as u64, Limits::default().batch as u64)
}

fn check_ids(tokens: &TokenIds, encoder: &Encoder) -> Result<()> {
    let wrong = |message: &str| Error::new(ErrorKind::InvalidInput, message.to_owned());
    if tokens.ids.is_empty() {
        return Err(wrong("there are no tokens to encode").expected("at least one token id"));
    }
    check_at_most("tokens", tokens.ids.len() as u64, Limits::default().prompt_tokens as u64)?;
    let Some(mask) = &tokens.mask else { return Ok(()) };
    if encoder.kind.is_clip() {
        return Err(wrong("CLIP takes no attention mask").remedy("leave the mask out"));
    }
    if mask.len() != tokens.ids.len() {
        return Err(wrong("the attention mask does not fit the tokens")
            .expected(tokens.ids.len().to_string())
            .found(mask.len().to_string()));
    }
    Ok(())
}
