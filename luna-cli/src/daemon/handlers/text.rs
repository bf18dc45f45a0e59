//! Prompts and tokens to conditioning.

use super::super::{
    Daemon,
    convert::{self, TextCall},
    reply::Reply,
};
use luna_core::{
    Call, PictureSizes,
    protocol::{
        ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, Fault, TextEncoded, TextWish, ZimageEncode,
    },
    registry::Lease,
    text::{Conditioner, Encoded, EncoderKind, Prompt, Recipe, TextModel, TokenIds},
};

/// The encoders of a request at work.
fn with<T>(
    daemon: &Daemon,
    wish: &TextWish,
    usual: Option<Recipe>,
    work: impl FnOnce(&Conditioner) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let leases: Vec<Lease<TextModel>> = daemon.text(&wish.models)?;
    let models: Vec<&TextModel> = leases.iter().map(|lease| &**lease).collect();
    let recipe = wish.recipe.as_deref().map(convert::recipe).transpose()?.or(usual);
    let conditioner = match recipe {
        Some(recipe) => Conditioner::with_recipe(&models, recipe)?,
        None => Conditioner::new(&models)?,
    };
    let conditioner = conditioner.with_cache(&daemon.conditionings);
    work(&match &daemon.embeddings {
        Some(folders) => conditioner.with_embeddings(folders),
        None => conditioner,
    })
}

pub fn tokenize(daemon: &Daemon, request: &ClipTokenize, call: Call) -> Result<Reply, Fault> {
    let options = convert::text_options(&request.with, &daemon.defaults(), call)?;
    with(daemon, &request.with, None, |conditioner| {
        let tokenized = conditioner.tokenize(&Prompt::new(&request.text), &options)?;
        Ok(Reply::of(&convert::tokens(&tokenized))?)
    })
}

pub fn encode(daemon: &Daemon, request: &ClipEncode, call: Call) -> Result<Reply, Fault> {
    let prompts: Vec<Prompt> =
        [Some(&request.positive), request.negative.as_ref()].into_iter().flatten().map(Prompt::new).collect();
    encode_prompts(daemon, &request.with, None, &prompts, call)
}

pub fn zimage_encode(daemon: &Daemon, request: &ZimageEncode, call: Call) -> Result<Reply, Fault> {
    let prompts: Vec<Prompt> =
        [Some(&request.text), request.negative_text.as_ref()].into_iter().flatten().map(Prompt::new).collect();
    encode_prompts(daemon, &request.with, Some(Recipe::ZImage), &prompts, call)
}

pub fn encode_sdxl(daemon: &Daemon, request: &ClipEncodeSdxl, call: Call) -> Result<Reply, Fault> {
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
    encode_prompts(daemon, &request.with, Some(Recipe::Sdxl), &prompts, call)
}

fn encode_prompts(
    daemon: &Daemon,
    wish: &TextWish,
    usual: Option<Recipe>,
    prompts: &[Prompt],
    call: Call,
) -> Result<Reply, Fault> {
    let options = convert::text_options(wish, &daemon.defaults(), call)?;
    with(daemon, wish, usual, |conditioner| {
        let encoded = conditioner.encode(prompts, &options)?;
        reply(
            conditioner,
            &encoded,
            &[["cond", "pooled", "mask"], ["uncond", "pooled_neg", "mask_neg"]].map(|names| names.map(str::to_owned)),
        )
    })
}

pub fn encode_from_tokens(daemon: &Daemon, request: &ClipEncodeFromTokens, call: Call) -> Result<Reply, Fault> {
    let options = convert::text_options(&request.with, &daemon.defaults(), call)?;
    let prompts: Vec<_> = request.tokens.iter().map(|ids| TokenIds { ids: ids.clone(), mask: None }).collect();
    with(daemon, &request.with, None, |conditioner| {
        let encoded = conditioner.encode_ids(&prompts, &options)?;
        let names: Vec<_> =
            (0..prompts.len()).map(|index| ["cond", "pooled", "mask"].map(|name| format!("{name}_{index}"))).collect();
        reply(conditioner, &encoded, &names)
    })
}

/// Conditionings under these names: encoding, pooled output, mask of each.
fn reply(conditioner: &Conditioner, encoded: &Encoded, names: &[[String; 3]]) -> Result<Reply, Fault> {
    let TextCall { problems, notices } = convert::text_call(encoded);
    let mut reply = Reply::of(&TextEncoded {
        recipe: conditioner.recipe().name().to_owned(),
        encoders: conditioner.encoders().map(|kind| kind.name().to_owned()).collect(),
        problems,
        cached: encoded.prompts.iter().filter(|prompt| prompt.cached).count(),
        sizes: encoded.first().sizes().map(convert::sizes),
        seconds: encoded.elapsed.as_secs_f64(),
    })?
    .noting(notices);
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
