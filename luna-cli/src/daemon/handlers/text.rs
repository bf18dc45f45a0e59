//! Prompts and tokens to conditioning.

use super::{
    super::{Daemon, convert, models::TextLease, reply::Reply},
    Caller,
};
use luna_core::{
    PictureSizes,
    protocol::{
        ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, Fault, TextEncoded, TextLoraOutcome, TextWish,
        Tokens, ZimageEncode,
    },
    text::{Conditioner, Encoded, EncoderKind, Prompt, Recipe, TextModel, TextOptions},
    tokenizer::{EmbeddingLookup, NoEmbeddings},
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
            let tokenized = work.conditioner.tokenize(&Prompt::new(&request.text), &work.options)?;
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
    let read = tokenizer.tokenize(&request.text, &options.syntax, Some(&*lookup))?;
    let problems = read.missing.into_iter().map(|name| convert::missing_embedding(name, kind)).collect();
    let tokens = [(kind.name().to_owned(), convert::chunks(&read.chunks))].into();
    Ok(Reply::of(&Tokens { tokens, problems })?)
}

pub fn encode(daemon: &Daemon, request: &ClipEncode, caller: &Caller) -> Result<Reply, Fault> {
    let prompts: Vec<Prompt> =
        [Some(&request.positive), request.negative.as_ref()].into_iter().flatten().map(Prompt::new).collect();
    encode_prompts(daemon, &request.with, None, &prompts, caller)
}

pub fn zimage_encode(daemon: &Daemon, request: &ZimageEncode, caller: &Caller) -> Result<Reply, Fault> {
    let prompts: Vec<Prompt> =
        [Some(&request.text), request.negative_text.as_ref()].into_iter().flatten().map(Prompt::new).collect();
    encode_prompts(daemon, &request.with, Some(Recipe::ZImage), &prompts, caller)
}

pub fn encode_sdxl(daemon: &Daemon, request: &ClipEncodeSdxl, caller: &Caller) -> Result<Reply, Fault> {
    let ClipEncodeSdxl { width, height, crop_w, crop_h, target_width, target_height, .. } = *request;
    let sizes = PictureSizes { width, height, crop_w, crop_h, target_width, target_height };
    let prompt = |text: &String, clip_l: &Option<String>| {
        let prompt = Prompt::new(text).sized(sizes);
        match clip_l {
            Some(other) => prompt.for_encoder(EncoderKind::ClipL, other),
            None => prompt,
        }
    };
    let mut prompts = vec![prompt(&request.positive, &request.positive_l)];
    prompts.extend(request.negative.as_ref().map(|negative| prompt(negative, &request.negative_l)));
    encode_prompts(daemon, &request.with, Some(Recipe::Sdxl), &prompts, caller)
}

fn encode_prompts(
    daemon: &Daemon,
    wish: &TextWish,
    usual: Option<Recipe>,
    prompts: &[Prompt],
    caller: &Caller,
) -> Result<Reply, Fault> {
    with(daemon, wish, usual, caller, |work| {
        let encoded = work.conditioner.encode(prompts, &work.options)?;
        let names = [["cond", "pooled", "mask"], ["uncond", "pooled_neg", "mask_neg"]];
        reply(work, &encoded, &names.map(|names| names.map(str::to_owned)))
    })
}

pub fn encode_from_tokens(daemon: &Daemon, request: &ClipEncodeFromTokens, caller: &Caller) -> Result<Reply, Fault> {
    let prompts = convert::token_ids(request)?;
    with(daemon, &request.with, None, caller, |work| {
        let encoded = work.conditioner.encode_ids(&prompts, &work.options)?;
        let names = |index: usize| ["cond", "pooled", "mask"].map(|name| format!("{name}_{index}"));
        reply(work, &encoded, &(0..prompts.len()).map(names).collect::<Vec<_>>())
    })
}

/// Conditionings under these names: encoding, pooled output, mask of each.
fn reply(work: Work, encoded: &Encoded, names: &[[String; 3]]) -> Result<Reply, Fault> {
    let Work { models, conditioner, options, loras } = work;
    let mut reply = Reply::of(&TextEncoded {
        recipe: conditioner.recipe().name().to_owned(),
        encoders: convert::text_encoders(models, &conditioner),
        prompts: convert::prompt_reports(encoded),
        loras,
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
