//! A daemon's text encoders.

use super::{Daemon, Reading, not_remote, report};
use crate::{
    call::Watch,
    coverage::Fate,
    error::Result,
    options::{attention_of, luna_report},
    tokens::{ProblemItem, TokenItem},
};
use luna_core::{
    Conditioning,
    client::TextEncodings,
    protocol::{ClipEncode, ClipEncodeFromTokens, ClipTokenize, LoraUse, TextEncoderInfo, TextProblem, TextWish},
    text::{EncoderKind, Prompt, TextOptions, TokenIds},
};
use std::sync::Arc;

/// Text encoders of a daemon that work together.
pub(crate) struct RemoteText {
    daemon: Arc<Daemon>,
    models: Vec<String>,
    recipe: Option<String>,
}

/// What a call of text encoders asks for beside the prompts.
pub(crate) struct TextAsked<'a> {
    pub(crate) options: &'a TextOptions,
    pub(crate) loras: Vec<LoraUse>,
    pub(crate) strict: bool,
}

/// One prompt's conditioning, and what it did without.
pub(crate) type Prompted = (Conditioning, Vec<ProblemItem>);

/// What a call gave.
pub(crate) struct RemoteEncoded {
    pub(crate) prompts: Vec<Prompted>,
    pub(crate) report: luna_report,
    /// What became of LoRAs on each model.
    pub(crate) fates: Vec<Fate>,
}

/// What an encoder reads in place of the prompt.
fn other(prompt: &Prompt, kind: EncoderKind) -> Option<String> {
    prompt.others.get(&kind).cloned()
}

fn problems(told: &[TextProblem]) -> Vec<ProblemItem> {
    told.iter().map(|problem| ProblemItem::of(&problem.name, &problem.encoder, &problem.message)).collect()
}

impl RemoteText {
    pub(crate) fn load(daemon: &Arc<Daemon>, paths: &[(&str, Reading)], recipe: Option<&str>) -> Result<Self> {
        let models = paths.iter().map(|(path, reading)| daemon.model_read(path, *reading)).collect::<Result<_>>()?;
        let loaded = Self { daemon: daemon.clone(), models, recipe: recipe.map(str::to_owned) };
        // Whether these encoders work together is told now, as it is in this process.
        let asked = TextAsked { options: &TextOptions::default(), loras: Vec::new(), strict: false };
        let trial = ClipTokenize { with: loaded.wish(&asked), ..ClipTokenize::default() };
        daemon.client.clip_tokenize(&trial, &Default::default())?;
        Ok(loaded)
    }

    fn wish(&self, asked: &TextAsked) -> TextWish {
        let options = asked.options;
        TextWish {
            models: self.models.clone(),
            recipe: self.recipe.clone(),
            clip_skip: options.clip_skip.map(Into::into),
            precision: Some(options.precision.name().to_owned()),
            attention: Some(options.attention.name().to_owned()),
            loras: asked.loras.clone(),
            strict: asked.strict,
            break_chunks: options.syntax.break_chunks,
            square_brackets: options.syntax.square_brackets,
            t5_mask: options.t5_mask,
            t5_tokens: options.t5_tokens.map(Into::into),
            // Tags are taken out here, where the stack was made.
            lora_tags: false,
        }
    }

    /// Facts of the encoders, which a daemon tells with a prompt's answer.
    pub(crate) fn encoders(&self) -> Result<Vec<TextEncoderInfo>> {
        let asked = TextAsked { options: &TextOptions::default(), loras: Vec::new(), strict: false };
        let request = ClipEncode { with: self.wish(&asked), ..ClipEncode::default() };
        Ok(self.daemon.client.clip_encode(&request, &Default::default())?.1.reply.encoders)
    }

    pub(crate) fn tokenize(
        &self,
        prompt: &Prompt,
        asked: &TextAsked,
        watch: &Watch,
    ) -> Result<(Vec<TokenItem>, Vec<ProblemItem>)> {
        let request = ClipTokenize {
            text: prompt.text.clone(),
            encoder: None,
            text_l: other(prompt, EncoderKind::ClipL),
            text_g: other(prompt, EncoderKind::ClipG),
            text_t5: other(prompt, EncoderKind::T5),
            with: self.wish(asked),
        };
        let told = self.daemon.client.clip_tokenize(&request, &watch.request())?.reply;
        Ok((
            told.tokens.iter().flat_map(|(encoder, chunks)| TokenItem::told(encoder, chunks)).collect(),
            problems(&told.problems),
        ))
    }

    /// Encodes prompts, two with each request.
    pub(crate) fn encode(&self, prompts: &[Prompt], asked: &TextAsked, watch: &Watch) -> Result<RemoteEncoded> {
        let mut all: Option<RemoteEncoded> = None;
        for pair in prompts.chunks(2) {
            let (positive, negative) = (&pair[0], pair.get(1));
            let not = |kind| negative.and_then(|negative| other(negative, kind));
            let request = ClipEncode {
                positive: positive.text.clone(),
                negative: negative.map(|negative| negative.text.clone()),
                positive_l: other(positive, EncoderKind::ClipL),
                negative_l: not(EncoderKind::ClipL),
                positive_g: other(positive, EncoderKind::ClipG),
                negative_g: not(EncoderKind::ClipG),
                positive_t5: other(positive, EncoderKind::T5),
                negative_t5: not(EncoderKind::T5),
                with: self.wish(asked),
            };
            let one = read(self.daemon.client.clip_encode(&request, &watch.request())?, watch);
            all = Some(match all {
                Some(all) => all.and(one),
                None => one,
            });
        }
        all.ok_or_else(|| crate::error::wrong("there is no prompt").into())
    }

    /// Encodes rows of token ids; all have a mask, or none has.
    pub(crate) fn encode_ids(&self, rows: &[TokenIds], asked: &TextAsked, watch: &Watch) -> Result<RemoteEncoded> {
        let tokens = rows.iter().map(|row| row.ids.clone()).collect();
        let masks = rows.iter().map(|row| row.mask.clone()).collect();
        let request = ClipEncodeFromTokens { tokens, masks, with: self.wish(asked) };
        Ok(read(self.daemon.client.clip_encode_from_tokens(&request, &watch.request())?, watch))
    }
}

/// What cannot be had from a daemon's text encoders.
pub(crate) fn refuse_folders(count: usize) -> Result<()> {
    if count == 0 { Ok(()) } else { Err(not_remote("folders of textual inversions").into()) }
}

fn read((conditionings, answer): TextEncodings, watch: &Watch) -> RemoteEncoded {
    let reply = answer.reply;
    let mut report = report(&answer.head, &reply.precision, reply.seconds, watch);
    report.cached = reply.prompts.iter().filter(|prompt| prompt.cached).count() as u32;
    report.sequences = reply.sequences as u32;
    report.attention = attention_of(&reply.attention);
    let prompts = conditionings.into_iter().zip(&reply.prompts).map(|(made, told)| (made, problems(&told.problems)));
    RemoteEncoded {
        prompts: prompts.collect(),
        report,
        fates: reply.loras.into_iter().map(|told| Fate::new(&told.model, told.coverage)).collect(),
    }
}

impl RemoteEncoded {
    /// With what a later request of the same call gave.
    fn and(mut self, other: Self) -> Self {
        self.prompts.extend(other.prompts);
        self.report.fallbacks |= other.report.fallbacks;
        self.report.cached += other.report.cached;
        self.report.sequences += other.report.sequences;
        self.report.nanoseconds += other.report.nanoseconds;
        self.report.queue_nanoseconds += other.report.queue_nanoseconds;
        self
    }
}
