//! Latent and picture files, written and read back; files that are wrong.

use super::*;
use luna_core::{Latent, LatentScale, checkpoint::ElementType};

fn file(tensors: &[(&str, &[usize], &[f32])], metadata: &[(&str, &str)]) -> tempfile::NamedTempFile {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|&(name, shape, values)| Tensor { name: name.to_owned(), shape: shape.to_vec(), values })
        .collect();
    let metadata = metadata.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    std::fs::write(file.path(), to_bytes(&tensors, &metadata)).unwrap();
    file
}

#[test]
fn a_latent_comes_back_with_its_scale() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latent.safetensors");
    let latent = Latent::new([1, 2, 1, 2], vec![-1.5, 0.0, 0.25, 3e-7]).unwrap();
    let latent = latent.with_scale(Some(LatentScale::FLUX), false).scaled().unwrap();
    write_latent(&path, &latent, "flux-ae", IfExists::Refuse).unwrap();
    let back = read_latent(&path).unwrap();
    assert_eq!(back.latent, latent);
    assert_eq!((back.source.tensor, back.source.model.as_deref()), ("latent", Some("flux-ae")));
    let first = std::fs::read(&path).unwrap();
    write_latent(&path, &latent, "flux-ae", IfExists::Replace).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "equal latents give equal files");
    assert!(String::from_utf8_lossy(&first).contains(r#""latent_format":"flux""#));
}

#[test]
fn comfyui_latents_are_read_by_their_version() {
    let values = [0.18215; 4];
    let (shape, empty): (&[usize], &[f32]) = (&[1, 4, 1, 1], &[]);
    let new = file(&[("latent_tensor", shape, &values), ("latent_format_version_0", &[0], empty)], &[]);
    let new = read_latent(new.path()).unwrap().latent;
    assert!(!new.is_scaled() && new.scale().is_none());
    let old = file(&[("latent_tensor", shape, &values)], &[]);
    let old = read_latent(old.path()).unwrap().latent.unscaled().unwrap();
    assert!(old.data().iter().all(|value| (value - 1.0).abs() < 1e-6));
    let samples = file(&[("samples", shape, &values)], &[]);
    assert_eq!(read_latent(samples.path()).unwrap().source.tensor, "samples");
}

#[test]
fn wrong_latent_files_say_what_is_wrong() {
    let values = [0.0; 4];
    let kind = |file: &tempfile::NamedTempFile| read_latent(file.path()).unwrap_err().kind();
    let other = file(&[("weight", &[4], &values)], &[]);
    let error = read_latent(other.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`weight`"), "{error}");
    assert_eq!(kind(&file(&[("latent", &[4], &values)], &[])), ErrorKind::InvalidInput);
    for metadata in [("scale_factor", "much"), ("scale_factor", "0"), ("scaled", "yes"), ("shift_factor", "inf")] {
        let file = file(&[("latent", &[1, 4, 1, 1], &values)], &[metadata]);
        assert_eq!(kind(&file), ErrorKind::InvalidFile, "{metadata:?}");
    }
}

#[test]
fn half_precision_is_widened() {
    let bits = half::bf16::from_f32(0.5).to_bits().to_le_bytes();
    let view = TensorView { name: "image", element: ElementType::Bf16, shape: &[1], bytes: &bits };
    assert_eq!(view.to_f32().unwrap(), [0.5]);
    let view = TensorView { name: "image", element: ElementType::U8, shape: &[1], bytes: &[1] };
    assert_eq!(view.to_f32().unwrap_err().kind(), ErrorKind::Unsupported);
}
