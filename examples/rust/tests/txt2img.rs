//! The example makes the picture that ComfyUI's own loop makes on the same tiny weights, from the same noise.

use luna_core::{Limits, checkpoint::Checkpoint, picture::read_picture};
use luna_tests::{random, safetensors_file, workspace};
use std::{collections::BTreeMap, fs, process::Command};

#[test]
fn the_picture_is_what_comfyui_makes() {
    for case in ["sd15", "sdxl"] {
        let fixture = workspace::root().join("tests/fixtures/txt2img").join(case).with_extension("safetensors");
        let expected = Checkpoint::open(&fixture, &Limits::default()).unwrap();
        let asked: serde_json::Value = serde_json::from_str(&expected.metadata()["case"]).unwrap();
        let names: BTreeMap<String, Vec<usize>> = serde_json::from_str(&expected.metadata()["tensors"]).unwrap();
        let tensors: Vec<_> = names
            .iter()
            .map(|(name, shape)| safetensors_file::f16_tensor(name, shape, &random::parameter(name, shape)))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let (model, out) = (folder.path().join("model.safetensors"), folder.path().join("out.png"));
        fs::write(&model, safetensors_file::file(&tensors, &[])).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_txt2img"));
        command.arg(&model).arg(asked["prompt"].as_str().unwrap()).arg(&out).arg("--noise").arg(&fixture);
        command.arg("--negative").arg(asked["negative"].as_str().unwrap());
        for number in ["width", "height", "steps", "cfg"] {
            command.arg(format!("--{number}")).arg(asked[number].to_string());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        let picture = read_picture(&out, &Limits::default()).unwrap();
        let theirs = expected.tensor("picture").unwrap();
        assert_eq!(picture.shape()[1..], *theirs.shape, "{case}");
        // Both programs cut values off to whole steps of 8 bits, ComfyUI when it saves.
        let step = |value: f32| (255.0 * value).floor() as i32;
        let ours = picture.data().iter().map(|value| (255.0 * value).round() as i32);
        let differences: Vec<i32> =
            ours.zip(theirs.to_f32().unwrap()).map(|(ours, theirs)| (ours - step(theirs)).abs()).collect();
        let most = differences.iter().copied().max().unwrap();
        let unequal = differences.iter().filter(|difference| **difference > 0).count() * 100 / differences.len();
        assert!(most <= 1 && unequal < 3, "{case}: {most} steps at most, {unequal} % are not the same");
    }
}
