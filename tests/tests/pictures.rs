//! Picture files of every kind, made by other programs, read and compared with what those programs see in them.

use std::{collections::BTreeSet, fs, path::PathBuf};

use luna_core::{Limits, picture::read_picture};
use safetensors::{Dtype, SafeTensors};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/pictures")
}

/// How far decoders of one lossy file may be apart: mean and worst, in steps of 1/255.
fn tolerance(name: &str) -> (f32, f32) {
    match name {
        // Half the colour resolution is brought back by one of several customary filters.
        "subsampled.jpg" | "lossy.webp" | "alpha.webp" => (1.5, 8.0),
        _ if name.ends_with(".jpg") => (0.6, 3.0),
        _ => (0.0, 0.0),
    }
}

#[test]
fn every_kind_of_picture_is_read_as_other_programs_read_it() {
    let bytes = fs::read(folder().join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".py") && !name.ends_with(".safetensors"))
        .collect();
    assert!(files.len() > 40, "only {} fixtures", files.len());
    assert_eq!(files, expected.names().into_iter().map(str::to_owned).collect());
    for name in files {
        let expected = expected.tensor(&name).unwrap();
        let values: Vec<f32> = match expected.dtype() {
            Dtype::U8 => expected.data().iter().map(|&value| f32::from(value) / 255.0).collect(),
            _ => expected
                .data()
                .chunks(2)
                .map(|pair| f32::from(u16::from_le_bytes([pair[0], pair[1]])) / 65535.0)
                .collect(),
        };
        let image = read_picture(&folder().join(&name), &Limits::default()).unwrap();
        assert_eq!(image.shape()[1..], *expected.shape(), "{name}");
        let apart = image.data().iter().zip(&values).map(|(a, b)| (a - b).abs() * 255.0);
        let (mean, worst) = (apart.clone().sum::<f32>() / values.len() as f32, apart.fold(0.0, f32::max));
        let (most_mean, most_worst) = tolerance(&name);
        assert!(mean <= most_mean && worst <= most_worst, "{name}: mean {mean}, worst {worst}");
    }
}
