//! Prompts and tokens to conditioning.

use super::{
    super::{Daemon, convert, models::TextLease, reply::Reply},
    Caller,
};
use luna_core::{
    PictureSizes,
    protocol::{
        ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, Fault, LoraUse, TextEncoded, TextLoraOutcome,
        TextWish, Tokens, ZimageEncode,
    },
    text::{Conditioner, Encoded, EncoderKind, Prompt, Recipe, TextModel, TextOptions},
    tokenizer::{EmbeddingLookup, LoraTag, NoEmbeddings},
};

/// The encoders of a request at work.
struct Work<'a> {
    models: &'a [TextLease],
    conditioner: Conditioner<'a>,
    options: TextOptions,
    loras: Vec<TextLoraOutcome>,
}

fn with(
    daemon: &Daemon,
    wish: &TextWish,
    usual: Option<Recipe>,
    caller: &Caller,
    work: impl FnOnce(Work) -> Result<Reply, Fault>,
) -> Result<Reply, Fault> {
    let mut options = convert::text_options(wish, &daemon.defaults(caller.client), caller.call.clone())?;
    let models: Vec<TextLease> = daemon.text(&wish.models)?;
    let loras = daemon.loras.for_text(&wish.loras, wish.strict, &models, &mut options)?;
    let encoders: Vec<&TextModel> = models.iter().map(|(_, lease)| &**lease).collect();
    let recipe = wish.recipe.as_deref().map(convert::recipe).transpose()?.or(usual);
    let conditioner = match recipe {
        Some(recipe) => Conditioner::with_recipe(&encoders, recipe)?,
        None => Conditioner::new(&encoders)?,
    };
    let conditioner = conditioner.with_cache(&daemon.conditionings);
    let conditioner = match &daemon.embeddings {
        Some(folders) => conditioner.with_embeddings(folders),
        None => conditioner,
    };
    work(Work { models: &models, conditioner, options, loras })
}

pub fn tokenize(daemon: &Daemon, request: &ClipTokenize, caller: &Caller) -> Result<Reply, Fault> {
    let only: Option<EncoderKind> = request.encoder.as_deref().map(str::parse).transpose()?;
    match only {
        Some(kind) if kind.is_clip() && request.with.models.is_empty() => built_in(daemon, request, kind, caller),
        _ => with(daemon, &request.with, None, caller, |work| {
            let mut prompt = prompt(&request.text, [&request.text_l, &request.text_g, &request.text_t5]);
            if request.with.lora_tags {
                prompt.take_lora_tags();
            }
            let tokenized = work.conditioner.tokenize(&prompt, &work.options)?;
            Ok(Reply::of(&convert::tokens(&tokenized, only))?)
        }),
    }
}

/// By the vocabulary that Luna carries, without a model.
fn built_in(daemon: &Daemon, request: &ClipTokenize, kind: EncoderKind, caller: &Caller) -> Result<Reply, Fault> {
    let options = convert::text_options(&request.with, &daemon.defaults(caller.client), caller.call.clone())?;
    let tokenizer = daemon.tokenizer(kind)?;
    let lookup: Box<dyn EmbeddingLookup + '_> = match &daemon.embeddings {
        Some(folders) => Box::new(folders.lookup(kind)),
        None => Box::new(NoEmbeddings),
    };
    let mut prompt = prompt(&request.text, [&request.text_l, &request.text_g, &request.text_t5]);
    if request.with.lora_tags {
        prompt.take_lora_tags();
    }
    let read = tokenizer.tokenize(prompt.text_for(kind), &options.syntax, Some(&*lookup))?;
    let problems = read.missing.into_iter().map(|name| convert::missing_embedding(name, kind)).collect();
    let tokens = [(kind.name().to_owned(), convert::chunks(&read.chunks))].into();
    Ok(Reply::of(&Tokens { tokens, problems })?)
}

pub fn encode(daemon: &Daemon, request: &ClipEncode, caller: &Caller) -> Result<Reply, Fault> {
    let positive = [&request.positive_l, &request.positive_g, &request.positive_t5];
    let negative = [&request.negative_l, &request.negative_g, &request.negative_t5];
    let mut prompts = vec![prompt(&request.positive, positive)];
    prompts.extend(request.negative.as_ref().map(|text| prompt(text, negative)));
    encode_prompts(daemon, &request.with, None, prompts, caller)
}

/// A text with what CLIP-L, CLIP-G and T5 read in its place.
fn prompt(text: &str, others: [&Option<String>; 3]) -> Prompt {
    let kinds = [EncoderKind::ClipL, EncoderKind::ClipG, EncoderKind::T5];
    let others = kinds.into_iter().zip(others).filter_map(|(kind, text)| Some((kind, text.clone()?)));
    Prompt { others: others.collect(), ..Prompt::new(text) }
}

/// Takes tags out of the prompts where that is asked for: what they said, and the request with their LoRAs in its stack.
fn tagged(wish: &TextWish, prompts: &mut [Prompt]) -> (TextWish, Tagged) {
    let (mut wish, mut told) = (wish.clone(), Tagged::default());
    if wish.lora_tags {
        for found in prompts.iter_mut().map(Prompt::take_lora_tags) {
            let uses = found.tags.into_iter().map(|LoraTag { name, model, clip }| LoraUse { lora: name, model, clip });
            told.uses.extend(uses);
            told.malformed.extend(found.malformed);
        }
        wish.loras.extend(told.uses.iter().cloned());
    }
    (wish, told)
}

/// What tags in prompts said.
#[derive(Default)]
struct Tagged {
    uses: Vec<LoraUse>,
    malformed: Vec<String>,
}

pub fn zimage_encode(daemon: &Daemon, request: &ZimageEncode, caller: &Caller) -> Result<Reply, Fault> {
    let prompts: Vec<Prompt> =
        [Some(&request.text), request.negative_text.as_ref()].into_iter().flatten().map(Prompt::new).collect();
    encode_prompts(daemon, &request.with, Some(Recipe::ZImage), prompts, caller)
}

pub fn encode_sdxl(daemon: &Daemon, request: &ClipEncodeSdxl, caller: &Caller) -> Result<Reply, Fault> {
    let ClipEncodeSdxl { width, height, crop_w, crop_h, target_width, target_height, .. } = *request;
    let sizes = PictureSizes { width, height, crop_w, crop_h, target_width, target_height };
    let sized = |text: &String, clip_l: &Option<String>| prompt(text, [clip_l, &None, &None]).sized(sizes);
    let mut prompts = vec![sized(&request.positive, &request.positive_l)];
    prompts.extend(request.negative.as_ref().map(|negative| sized(negative, &request.negative_l)));
    encode_prompts(daemon, &request.with, Some(Recipe::Sdxl), prompts, caller)
}

fn encode_prompts(
    daemon: &Daemon,
    wish: &TextWish,
    usual: Option<Recipe>,
    mut prompts: Vec<Prompt>,
    caller: &Caller,
) -> Result<Reply, Fault> {
    let (wish, tags) = tagged(wish, &mut prompts);
    with(daemon, &wish, usual, caller, |work| {
        let encoded = work.conditioner.encode(&prompts, &work.options)?;
        let names = [["cond", "pooled", "mask"], ["uncond", "pooled_neg", "mask_neg"]];
        reply(work, &encoded, &names.map(|names| names.map(str::to_owned)), tags)
    })
}

pub fn encode_from_tokens(daemon: &Daemon, request: &ClipEncodeFromTokens, caller: &Caller) -> Result<Reply, Fault> {
    let prompts = convert::token_ids(request)?;
    with(daemon, &request.with, None, caller, |work| {
        let encoded = work.conditioner.encode_ids(&prompts, &work.options)?;
        let names = |index: usize| ["cond", "pooled", "mask"].map(|name| format!("{name}_{index}"));
        reply(work, &encoded, &(0..prompts.len()).map(names).collect::<Vec<_>>(), Tagged::default())
    })
}

/// Conditionings under these names: encoding, pooled output, mask of each.
fn reply(work: Work, encoded: &Encoded, names: &[[String; 3]], tags: Tagged) -> Result<Reply, Fault> {
    let Work { models, conditioner, options, loras } = work;
    let mut reply = Reply::of(&TextEncoded {
        recipe: conditioner.recipe().name().to_owned(),
        encoders: convert::text_encoders(models, &conditioner),
        prompts: convert::prompt_reports(encoded),
        loras,
        lora_tags: tags.uses,
        malformed_tags: tags.malformed,
        sequences: encoded.sequences,
        sizes: encoded.first().sizes().map(convert::sizes),
        precision: options.precision.name().to_owned(),
        attention: options.attention.name().to_owned(),
        seconds: encoded.elapsed.as_secs_f64(),
    })?
    .noting(convert::text_notices(encoded));
    for (prompt, [cond, pooled, mask]) in encoded.prompts.iter().zip(names) {
        let conditioning = &prompt.conditioning;
        reply = reply.with(cond, conditioning.shape(), conditioning.data().to_vec());
        if let (Some(values), Some(channels)) = (conditioning.pooled(), conditioning.pooled_channels()) {
            reply = reply.with(pooled, [conditioning.batch(), channels], values.to_vec());
        }
        if let Some(values) = conditioning.mask() {
            let bytes = values.iter().map(|&visible| u8::from(visible)).collect();
            reply = reply.with_bytes(mask, [conditioning.batch(), conditioning.tokens()], bytes);
        }
    }
    Ok(reply)
}
