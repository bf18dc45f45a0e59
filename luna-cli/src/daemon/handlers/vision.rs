//! Pictures to embeddings, and to text.

use super::{
    super::{Daemon, convert, reply::Reply},
    Caller,
};
use luna_core::{
    Error, ErrorKind, Image,
    protocol::{EncodeVision, EventKind, Fault, Message, VisionEncoded, VlmGenerate},
    vision::{Features, PictureView, VisionOptions},
    vlm::{VlmInput, VlmModel},
};

pub fn encode(daemon: &Daemon, request: &EncodeVision, message: &Message, caller: &Caller) -> Result<Reply, Fault> {
    let precision = convert::precision(request.precision.as_deref(), &daemon.defaults(caller.client))?;
    let options = VisionOptions { precision, call: caller.call.clone() };
    let (name, model) = daemon.vision(request.model.as_deref())?;
    let encoded = match convert::pixel_values(message)? {
        convert::Pictures::Prepared(pixels) if request.regions.is_empty() => model.encode_pixels(&pixels, &options)?,
        convert::Pictures::Prepared(_) => {
            return Err(Error::new(ErrorKind::InvalidInput, "`pixel_values` go in whole")
                .remedy("drop `regions`")
                .into());
        }
        convert::Pictures::Images(images) => {
            let regions: Vec<_> = request.regions.iter().copied().map(convert::region).collect();
            let parts = |image| regions.iter().map(move |&region| PictureView::part(image, region));
            let views: Vec<PictureView> = match &*regions {
                [] => images.iter().map(PictureView::whole).collect(),
                _ => images.iter().flat_map(parts).collect(),
            };
            model.encode(&views, &options)?
        }
    };
    let reply = Reply::of(&VisionEncoded {
        model: convert::vision_info(&name, &model),
        precision: encoded.precision.name().to_owned(),
        seconds: encoded.elapsed.as_secs_f64(),
    })?;
    let all: [(&str, Option<&Features>); 4] = [
        ("last_hidden_state", Some(&encoded.last_hidden_state)),
        ("penultimate", Some(&encoded.penultimate)),
        ("pooler_output", encoded.pooler_output.as_ref()),
        ("image_embeds", encoded.image_embeds.as_ref()),
    ];
    check_outputs(&request.outputs, &all)?;
    let wanted = |name: &str| request.outputs.is_empty() || request.outputs.iter().any(|output| output == name);
    let chosen = all.into_iter().filter(|(name, _)| wanted(name));
    let add = |reply: Reply, (name, features): (&str, &Features)| {
        reply.with(name, features.shape().to_vec(), features.data().to_vec())
    };
    let reply = chosen.filter_map(|(name, features)| Some((name, features?))).fold(reply, add);
    Ok(reply.noting(convert::vision_notices(&encoded.fallbacks)))
}

/// What is asked for and not given is no silent omission.
fn check_outputs(outputs: &[String], all: &[(&str, Option<&Features>)]) -> Result<(), Fault> {
    let has = |output: &String| all.iter().any(|(name, features)| name == output && features.is_some());
    match outputs.iter().find(|output| !has(output)) {
        None => Ok(()),
        Some(lacking) => {
            let names: Vec<_> = all.iter().filter(|(_, features)| features.is_some()).map(|(name, _)| *name).collect();
            Err(Error::new(ErrorKind::InvalidInput, "this model gives no such output")
                .expected(names.join(", "))
                .found(format!("`{lacking}`"))
                .into())
        }
    }
}

pub fn generate(daemon: &Daemon, request: &VlmGenerate, message: &Message, caller: &Caller) -> Result<Reply, Fault> {
    let defaults = daemon.defaults(caller.client);
    let (name, model) = daemon.vlm(request.model.as_deref())?;
    let (patches, loras) = daemon.loras.for_vlm(request, &model, &caller.call)?.unzip();
    let options = convert::generate_options(request, &defaults, patches, caller.call.clone())?;
    let input = prepare(request, message, &model)?;
    let generated = model.generate(&input, &options, &mut |piece| {
        if request.stream {
            (caller.tell)(EventKind::Text { token: piece.id, text: piece.text.to_owned() });
        }
    })?;
    let notices = convert::vlm_notices(&generated.fallbacks);
    Ok(Reply::of(&convert::vlm_generated(&name, &model, generated, loras))?.noting(notices))
}

fn prepare(request: &VlmGenerate, message: &Message, model: &VlmModel) -> Result<VlmInput, Fault> {
    let chat = || {
        let images = convert::pictures(message)?;
        let count = images.iter().map(Image::batch).sum();
        Ok(model.prompt(&convert::conversation(request, count)?, &images)?)
    };
    match (request.prompt.is_some(), !request.messages.is_empty(), &request.ids) {
        (true, false, None) => chat(),
        (false, true, None) if request.system.is_none() => chat(),
        (false, false, Some(ids)) => {
            Ok(VlmInput { ids: ids.clone(), patches: convert::patches(request, message, model)? })
        }
        _ => Err(Error::new(ErrorKind::InvalidInput, "it is not clear what the model shall read")
            .expected("`prompt` with `system`, or `messages`, or `ids`")
            .into()),
    }
}
