//! Text, token by token. Enters: a prepared prompt. Leaves: ids and text as they come, and how it ended. A [`Session`]
//! owns what one generation remembers; nothing of it is shared.

use super::{
    Fallback, GenerateOptions, Piece, VlmInput, VlmModel, decoder::Step, qwen3_vl::rotary_angles, sampler::Sampler,
    stops::Stops,
};
use crate::{
    Call, Error, ErrorKind, PatchedRuns, Patches, Precision, Progress, Result,
    limits::check_at_most,
    nn::{KvCache, Pass, RotaryLayout, RotaryTable},
    tokenizer::TextStream,
};
use std::time::{Duration, Instant};

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop string was reached.
    StopString,
    /// As many tokens as were asked for.
    MaxTokens,
    /// As many tokens as the model was trained for.
    ContextFull,
}

impl FinishReason {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndOfTurn => "end_of_turn",
            Self::StopString => "stop_string",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
        }
    }
}

/// Where the time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Reading pictures and prompt, up to the first token.
    pub prompt: Duration,
    /// All tokens after the first.
    pub tokens: Duration,
}

/// What was generated and how.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// The text without special tokens and stop strings; `None` without a tokenizer.
    pub text: Option<String>,
    /// All ids that were generated, the one that ended the turn included.
    pub ids: Vec<u32>,
    /// Tokens of the prompt, pictures included.
    pub prompt_tokens: usize,
    /// Tokens of pictures.
    pub picture_tokens: usize,
    /// Why it ended.
    pub finish: FinishReason,
    /// The precision that was used in the end.
    pub precision: Precision,
    /// What was done otherwise than asked for.
    pub fallbacks: Vec<Fallback>,
    /// How the layers ran that LoRAs change, in all passes together.
    pub patched: PatchedRuns,
    /// Bytes that remembering the tokens took.
    pub cache_bytes: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// One generation's memory: keys and values of its tokens, and the next place.
pub(super) struct Session<'a> {
    model: &'a VlmModel,
    cache: KvCache,
    next: u32,
    precision: Precision,
    patches: Option<&'a Patches>,
    patched: PatchedRuns,
    call: Call,
}

impl<'a> Session<'a> {
    /// For about `expected` tokens.
    fn new(model: &'a VlmModel, options: &'a GenerateOptions, expected: usize) -> Self {
        // Layers tell their progress to nobody: what a caller hears of is tokens.
        let call = Call::new().cancelled_by(options.call.cancel_token());
        let (precision, patches) = (options.precision, options.lora.as_deref());
        let cache = KvCache::new(model.decoder.layers(), expected);
        Self { model, cache, next: 0, precision, patches, patched: PatchedRuns::default(), call }
    }

    /// Reads a prompt, then more tokens of the model's own: logits of the last `rows` of all of them.
    pub(super) fn read(&mut self, input: &VlmInput, more: &[u32], rows: usize) -> Result<Vec<f32>> {
        let model = self.model;
        let pass = Pass::new(&model.runtime, &self.call, 0).with_patches(self.patches);
        let (x, deep, places, next) = model.embed(input, more, self.precision, &pass)?;
        let sections = model.eyes.sections();
        let angles = rotary_angles(&places, model.decoder.head, model.decoder.rotary_base, sections);
        let rotary = RotaryTable::new(&angles, places.len(), RotaryLayout::HalfSplit, model.runtime.handle())?;
        self.next = next;
        let logits = model.decoder.forward(x, Step { rotary: &rotary, deep: &deep, rows }, &mut self.cache, &pass)?;
        self.patched.add(pass.patched_runs(model.frozen()));
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// Reads one token: the logits of the next.
    fn step(&mut self, id: u32) -> Result<Vec<f32>> {
        let model = self.model;
        let pass = Pass::new(&model.runtime, &self.call, 0).with_patches(self.patches);
        let sections = model.eyes.sections();
        let angles = rotary_angles(&[[self.next; 3]], model.decoder.head, model.decoder.rotary_base, sections);
        let rotary = RotaryTable::new(&angles, 1, RotaryLayout::HalfSplit, model.runtime.handle())?;
        let x = model.decoder.embed(&[id], self.precision, &pass)?;
        self.next += 1;
        let logits = model.decoder.forward(x, Step { rotary: &rotary, deep: &[], rows: 1 }, &mut self.cache, &pass)?;
        self.patched.add(pass.patched_runs(model.frozen()));
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

impl VlmModel {
    /// Generates text for a prepared prompt and tells `listener` each token as it comes.
    ///
    /// # Errors
    /// `LimitExceeded` if the prompt is longer than the model was trained for, with the counts; `InvalidInput` if ids are
    /// not in the vocabulary, places and pictures disagree, or sampling is out of range; `NotFound` for stop strings
    /// without a tokenizer; `NonFinite` if logits are NaN in f32; `Cancelled`.
    pub fn generate(
        &self,
        input: &VlmInput,
        options: &GenerateOptions,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Generated> {
        self.check(input)?;
        options.lora.as_ref().map_or(Ok(()), |patches| patches.check(self.frozen()))?;
        if !options.stop.is_empty() {
            self.tokenizer()?;
        }
        self.runtime.run(|| Run::new(self, input, options)?.run(listener))
    }

    /// The logits of every token of a prompt, `[ids, vocabulary]`: what comes after each.
    ///
    /// # Errors
    /// As [`VlmModel::generate`].
    pub fn logits(&self, input: &VlmInput, precision: Precision, call: &Call) -> Result<Vec<f32>> {
        let options = GenerateOptions { precision, call: call.clone(), ..GenerateOptions::default() };
        self.logits_with(input, &options)
    }

    /// As [`VlmModel::logits`], with the precision, the LoRAs and the call of `options`.
    ///
    /// # Errors
    /// As [`VlmModel::generate`].
    pub fn logits_with(&self, input: &VlmInput, options: &GenerateOptions) -> Result<Vec<f32>> {
        self.check(input)?;
        options.lora.as_ref().map_or(Ok(()), |patches| patches.check(self.frozen()))?;
        let rows = input.ids.len();
        self.runtime.run(|| Session::new(self, options, rows).read(input, &[], rows))
    }

    /// Refuses prompts that the model cannot read.
    fn check(&self, input: &VlmInput) -> Result<()> {
        let tokens = input.ids.len();
        if tokens == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "the prompt is empty").expected("at least one token"));
        }
        let pictures = input.ids.iter().filter(|&&id| id == self.picture).count();
        if tokens >= self.decoder.context {
            return Err(Error::new(ErrorKind::LimitExceeded, "the prompt is too long for this model")
                .expected(format!("fewer than {} tokens", self.decoder.context))
                .found(format!("{tokens}, of which {pictures} are of pictures"))
                .remedy("shorten it, or use fewer or smaller pictures"));
        }
        check_at_most("tokens in the prompt", tokens as u64, self.limits.prompt_tokens as u64)?;
        let wanted: usize = input.patches.grids.iter().map(|&grid| self.eyes.tokens(grid)).sum();
        if pictures != wanted {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "places for pictures in the prompt do not fit the pictures",
            )
            .expected(format!("{wanted} tokens for {} pictures", input.patches.grids.len()))
            .found(pictures.to_string()));
        }
        input.patches.grids.iter().try_for_each(|&grid| self.eyes.check(grid, input.patches.length))
    }
}

/// One generation on its way.
struct Run<'a> {
    model: &'a VlmModel,
    input: &'a VlmInput,
    options: &'a GenerateOptions,
    session: Session<'a>,
    sampler: Sampler,
    stream: Option<TextStream<'a>>,
    stops: Stops<'a>,
    ids: Vec<u32>,
    text: String,
    fallbacks: Vec<Fallback>,
}

impl<'a> Run<'a> {
    fn new(model: &'a VlmModel, input: &'a VlmInput, options: &'a GenerateOptions) -> Result<Self> {
        // A cache that is never filled would be memory for nothing.
        let expected = input.ids.len() + options.max_tokens.min(1024);
        Ok(Self {
            session: Session::new(model, options, expected),
            sampler: Sampler::new(options.sampling, model.decoder.vocabulary(), &input.ids)?,
            stream: model.tokenizer.as_ref().map(|tokenizer| tokenizer.stream()),
            stops: Stops::new(&options.stop),
            ids: Vec::new(),
            text: String::new(),
            fallbacks: Vec::new(),
            model,
            input,
            options,
        })
    }

    fn run(mut self, listener: &mut (dyn FnMut(Piece) + Send)) -> Result<Generated> {
        let start = Instant::now();
        let mut first = Duration::ZERO;
        let room = self.model.decoder.context - self.input.ids.len();
        let most = self.options.max_tokens.min(room);
        let mut finish =
            if most < self.options.max_tokens { FinishReason::ContextFull } else { FinishReason::MaxTokens };
        let mut logits = if most > 0 { self.session.read(self.input, &[], 1)? } else { Vec::new() };
        for done in 1..=most {
            if self.options.call.cancel_token().is_cancelled() {
                return Err(Error::cancelled());
            }
            let mut finite = self.finite(logits)?;
            let id = self.sampler.choose(&mut finite);
            if done == 1 {
                first = start.elapsed();
            }
            self.ids.push(id);
            self.options.call.report(Progress { done, total: most });
            if self.tell(id, listener)? {
                finish = FinishReason::StopString;
                break;
            }
            if self.options.stop_at_end && self.model.ends.contains(&id) {
                finish = FinishReason::EndOfTurn;
                break;
            }
            logits = if done < most { self.session.step(id)? } else { Vec::new() };
        }
        self.finish(finish, Timings { prompt: first, tokens: start.elapsed() - first }, listener)
    }

    /// The logits, if they are finite; else those of the same place in f32.
    fn finite(&mut self, logits: Vec<f32>) -> Result<Vec<f32>> {
        let finite = |logits: &[f32]| logits.iter().all(|logit| logit.is_finite());
        if finite(&logits) {
            return Ok(logits);
        }
        if self.session.precision != Precision::F32 {
            self.fallbacks.push(Fallback::Widened { from: self.session.precision, token: self.ids.len() });
            let expected = self.input.ids.len() + self.options.max_tokens.min(1024);
            let patched = std::mem::take(&mut self.session.patched);
            self.session =
                Session { precision: Precision::F32, patched, ..Session::new(self.model, self.options, expected) };
            let wide = self.session.read(self.input, &self.ids, 1)?;
            if finite(&wide) {
                return Ok(wide);
            }
        }
        Err(Error::new(ErrorKind::NonFinite, "the language model gave logits that are NaN or infinite")
            .expected("finite logits")
            .found(format!("others for token {}", self.ids.len()))
            .remedy("check the pixel values and the weights of the file"))
    }

    /// Hands a token to the listener; whether a stop string was reached.
    fn tell(&mut self, id: u32, listener: &mut (dyn FnMut(Piece) + Send)) -> Result<bool> {
        let text = self.stream.as_mut().map(|stream| stream.push(id)).transpose()?.unwrap_or_default();
        let (text, stopped) = self.stops.push(&text);
        self.text.push_str(&text);
        listener(Piece { id, text: &text });
        Ok(stopped)
    }

    fn finish(
        mut self,
        mut finish: FinishReason,
        timings: Timings,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Generated> {
        let has_text = self.stream.is_some();
        if finish != FinishReason::StopString
            && let Some(&last) = self.ids.last()
        {
            // Half a character that nothing completed, then what might have become a stop string.
            let unfinished = self.stream.map(TextStream::finish).transpose()?.unwrap_or_default();
            let (mut rest, stopped) = self.stops.push(&unfinished);
            if stopped {
                finish = FinishReason::StopString;
            } else {
                rest += &self.stops.finish();
            }
            if !rest.is_empty() {
                listener(Piece { id: last, text: &rest });
                self.text += &rest;
            }
        }
        let eyes = &self.model.eyes;
        Ok(Generated {
            text: has_text.then_some(self.text),
            ids: self.ids,
            prompt_tokens: self.input.ids.len(),
            picture_tokens: self.input.patches.grids.iter().map(|&grid| eyes.tokens(grid)).sum(),
            finish,
            precision: self.session.precision,
            fallbacks: self.fallbacks,
            cache_bytes: self.session.cache.bytes(),
            patched: self.session.patched,
            timings,
        })
    }
}
