//! The fixtures of `fixtures/vlm/make.py`.

use luna_core::{
    Image, Result, Runtime,
    vision::PixelValues,
    vlm::{GenerateOptions, Generated, Patches, VlmInput, VlmLoadOptions, VlmModel},
};
use luna_tests::{model_case::ModelCase, random::uniform, workspace};
use std::{fs, path::PathBuf, sync::LazyLock};

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::cpu().unwrap());
pub const CASES: [&str; 4] = ["qwen3_vl", "qwen3_vl_tied", "llava", "llava_before_5"];

pub fn case(name: &str) -> ModelCase {
    ModelCase::read(&workspace::root().join("tests/fixtures/vlm").join(name).with_extension("safetensors"))
}

pub fn tokenizer() -> PathBuf {
    workspace::root().join("tests/fixtures/tokenizer/qwen/tokenizer.json")
}

/// The model of a fixture with weights stored in this type.
pub fn load(case: &ModelCase, stored: &'static str) -> Result<VlmModel> {
    let folder = tempfile::tempdir().unwrap();
    let path = case.write_instead(folder.path(), &case.model_stored(stored));
    if case.says("processor") {
        fs::write(path.join("preprocessor_config.json"), case.said("processor").to_string()).unwrap();
    }
    let tokenizer = case.name.starts_with("qwen").then(tokenizer);
    VlmModel::open_with(path, &RUNTIME, &VlmLoadOptions { tokenizer, ..VlmLoadOptions::default() })
}

/// The Qwen3-VL of the fixtures.
pub static QWEN: LazyLock<VlmModel> = LazyLock::new(|| load(&case("qwen3_vl"), "F16").unwrap());

/// As `picture` in make.py.
pub fn picture(name: &str, [height, width, channels]: [usize; 3]) -> Image {
    let noise: Vec<f64> = uniform(name, height * width * channels).collect();
    let coarse: Vec<f64> = uniform(&format!("{name}.coarse"), channels * 64).collect();
    let mut values = Vec::with_capacity(noise.len());
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for channel in 0..channels {
            let coarse = coarse[(y * 8 / height * 8 + x * 8 / width) * channels + channel];
            let noise = noise[(y * width + x) * channels + channel];
            values.push((255.999 * (0.7 * coarse + 0.3 * noise)).floor() as f32 / 255.0);
        }
    }
    Image::new([1, height, width, channels], values).unwrap()
}

/// One prompt of a fixture.
pub struct Prompt {
    pub system: Option<String>,
    pub user: Option<String>,
    pub pictures: Vec<Image>,
    pub input: VlmInput,
    pub logits: Vec<f32>,
    pub generated: Vec<u32>,
}

pub fn prompts(case: &ModelCase, model: &VlmModel) -> Vec<Prompt> {
    let list = case.said("prompts");
    let list = list.as_array().unwrap();
    assert!(!list.is_empty());
    list.iter().enumerate().map(|(index, about)| prompt(case, model, index, about)).collect()
}

fn prompt(case: &ModelCase, model: &VlmModel, index: usize, about: &serde_json::Value) -> Prompt {
    let name = format!("{}/{index}", case.name);
    let ids = |kind: &str| -> Vec<u32> {
        case.integers(&format!("{index}/{kind}")).into_iter().map(|id| id.try_into().unwrap()).collect()
    };
    let text = |key: &str| about[key].as_str().map(str::to_owned);
    let sizes: Vec<[usize; 3]> = serde_json::from_value(about["pictures"].clone()).unwrap_or_default();
    let draw = |count| uniform(&name, count).map(|value| (2.0 * value - 1.0) as f32).collect::<Vec<_>>();
    let grids = format!("{index}/grids");
    let patches = if case.has(&grids) {
        let grids: Vec<usize> = case.integers(&grids).into_iter().map(|side| side.try_into().unwrap()).collect();
        let grids = grids.as_chunks().0.to_vec();
        let count: usize = grids.iter().map(|grid: &[usize; 3]| grid.iter().product::<usize>()).sum();
        let vision = &case.config.as_ref().unwrap()["vision_config"];
        let side = vision["patch_size"].as_u64().unwrap() as usize;
        let length = 3 * side * side * vision["temporal_patch_size"].as_u64().unwrap() as usize;
        let data =
            if about["drawn"].is_null() { case.floats(&format!("{index}/pixel_values")) } else { draw(count * length) };
        Patches::new(grids, length, data).unwrap()
    } else {
        match about["ids"].as_array().map_or(0, |ids| ids.iter().filter(|id| id.is_string()).count()) {
            0 => Patches::none(),
            pictures => {
                let side = case.config.as_ref().unwrap()["vision_config"]["image_size"].as_u64().unwrap() as usize;
                let values = draw(pictures * 3 * side * side);
                model.cut(&PixelValues::new([pictures, 3, side, side], values).unwrap()).unwrap()
            }
        }
    };
    Prompt {
        system: text("system"),
        user: text("user"),
        pictures: sizes.iter().enumerate().map(|(at, &size)| picture(&format!("{name}/{at}"), size)).collect(),
        input: VlmInput { ids: ids("ids"), patches },
        logits: case.floats(&format!("{index}/logits")),
        generated: ids("generated"),
    }
}

/// Generates greedily, to this many tokens, end tokens like any other.
pub fn generate(model: &VlmModel, input: &VlmInput, max_tokens: usize) -> Generated {
    let options = GenerateOptions { max_tokens, stop_at_end: false, ..GenerateOptions::default() };
    model.generate(input, &options, &mut |_| ()).unwrap()
}
