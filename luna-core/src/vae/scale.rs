//! The scale and shift factors of a VAE's latents, as far as its file or its neighbours tell them.

use crate::{
    LatentScale,
    checkpoint::{Checkpoint, Component, ComponentKind, Dialect, Family, Recognition},
};

/// In order: the file's own metadata, config.json, the model that shares the checkpoint.
pub(super) fn of(checkpoint: &Checkpoint, found: &Recognition, vae: &Component) -> Option<LatentScale> {
    from_metadata(checkpoint).or_else(|| from_config(checkpoint, vae)).or_else(|| from_neighbours(checkpoint, found))
}

fn from_metadata(checkpoint: &Checkpoint) -> Option<LatentScale> {
    let number = |key: &str| checkpoint.metadata().get(key)?.parse().ok();
    Some(LatentScale { scale: number("scale_factor")?, shift: number("shift_factor").unwrap_or(0.0) })
}

fn from_config(checkpoint: &Checkpoint, vae: &Component) -> Option<LatentScale> {
    let config = checkpoint.config(&vae.prefix)?;
    let scale = config["scaling_factor"].as_f64()? as f32;
    Some(LatentScale { scale, shift: config["shift_factor"].as_f64().unwrap_or(0.0) as f32 })
}

fn from_neighbours(checkpoint: &Checkpoint, found: &Recognition) -> Option<LatentScale> {
    let openclip_second = |c: &Component| c.dialect == Dialect::OpenClip && c.prefix.starts_with("conditioner.");
    if found.components.iter().any(openclip_second) {
        return Some(LatentScale::SDXL);
    }
    if checkpoint.shape("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight").is_some() {
        return Some(LatentScale::SD3);
    }
    let denoiser = found.component(ComponentKind::Diffusion)?;
    match denoiser.family {
        Family::Flux | Family::ZImage => Some(LatentScale::FLUX),
        Family::SdUnet => {
            let labels = format!("{}label_emb.0.0.weight", denoiser.prefix);
            let sdxl = checkpoint.shape(&labels).is_some();
            Some(if sdxl { LatentScale::SDXL } else { LatentScale::SD15 })
        }
        _ => None,
    }
}
