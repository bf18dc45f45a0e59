//! One list of cases for every door: the crate, the C ABI, Python and a daemon. Enters: a folder for models. Leaves: the
//! cases, the models they name, and what the crate answers.

use crate::{diffusion, lora, model_case::ModelCase, text, workspace};
use luna_core::{
    ArrayView, AttentionMode, Call, Error, ErrorKind, Image, Latent, Precision, Result, Runtime,
    diffusion::{CacheOptions, Control, Denoiser, FirstBlockCache, ForwardInput, ForwardOptions},
    lora::{ApplyMode, LoraFile, LoraFolders, LoraStack, MergedCopies, ResolveOptions},
    picture::Format,
    save::{Fate, JobStatus, SaveConfig, SaveImage, SaveJob, SavePool, Template},
    text::{Conditioner, EncoderKind, Prompt, TextModel, TextOptions, TokenIds},
    tokenizer::{ChatMessage, MessagePart, Role},
    vae::{DecodeOptions, EncodeOptions, Posterior, SizeRule, TileChoice, Tiling, Vae},
    vision::{PictureView, Region, VisionModel, VisionOptions},
    vlm::{GenerateOptions, Patches, Question, Sampling, VlmInput, VlmModel},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// `[name, answer]` for every case: shapes with sums, ids, digests, or the kind of the error.
pub type Answers = Vec<(String, String)>;

/// One case of the list.
#[derive(Debug, Clone)]
pub struct Case(pub Value);

/// Every case.
///
/// # Panics
/// If the list cannot be read, or is short.
pub fn cases() -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(&workspace::text("tests/fixtures/conformance.json")).unwrap();
    assert!(cases.len() >= 50, "{}", cases.len());
    cases.into_iter().map(Case).collect()
}

impl Case {
    /// A text; empty where the case has none.
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// A whole number; 0 where the case has none.
    pub fn whole(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or(0)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.0[key].as_f64()
    }

    /// A list of whole numbers; empty where the case has none.
    pub fn list(&self, key: &str) -> Vec<usize> {
        let list = self.0[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(|side| side.as_u64().unwrap_or_default() as usize).collect()
    }

    /// A list of token ids; empty where the case has none.
    pub fn ids(&self, key: &str) -> Vec<u32> {
        self.list(key).into_iter().map(|id| id as u32).collect()
    }

    /// The turns of a conversation: the role of each and its words.
    pub fn turns(&self) -> Vec<(&str, &str)> {
        let list = self.0["turns"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|turn| turn.as_str()?.split_once(": ")).collect()
    }

    /// Whether the case says so.
    pub fn says(&self, key: &str) -> bool {
        self.0[key] == true
    }

    /// The timesteps of a step.
    pub fn timesteps(&self) -> Vec<f32> {
        let list = self.0["timesteps"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(|time| time.as_f64().unwrap_or_default() as f32).collect()
    }

    /// The position of a name among those that are known; 0 if the case does not say.
    pub fn choice(&self, key: &str, known: &[&str]) -> usize {
        known.iter().position(|known| *known == self.text(key)).unwrap_or(0)
    }

    fn precision(&self) -> Precision {
        self.text("precision").parse().unwrap_or_default()
    }

    fn attention(&self) -> AttentionMode {
        self.text("attention").parse().unwrap_or_default()
    }
}

/// The numbers that an array of this shape is filled with.
pub fn values(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>()).map(|i| (((i * 37) % 101) as f64 / 100.0) as f32).collect()
}

/// A shape and FNV-1a over the bits of the values.
pub fn answer(shape: &[usize], values: &[f32]) -> String {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let sum = values.iter().flat_map(|value| value.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step);
    format!("{shape:?} {sum:016x}")
}

/// Writes a vision encoder.
///
/// # Panics
/// If the system refuses.
pub fn vision(folder: &Path) -> PathBuf {
    ModelCase::read(&fixture("vision/clip_transformers.safetensors")).write(folder)
}

/// Writes a vision-language model with its tokenizer, which takes small pictures.
///
/// # Panics
/// If the system refuses.
pub fn vlm(folder: &Path) -> PathBuf {
    let path = ModelCase::read(&fixture("vlm/qwen3_vl.safetensors")).write(folder);
    fs::copy(fixture("tokenizer/qwen/tokenizer.json"), path.join("tokenizer.json")).unwrap();
    let small = r#"{"size": {"shortest_edge": 576, "longest_edge": 4096}}"#;
    fs::write(path.join("preprocessor_config.json"), small).unwrap();
    path
}

fn fixture(path: &str) -> PathBuf {
    workspace::root().join("tests/fixtures").join(path)
}

/// Models and LoRAs on the disk, by the names that cases give them.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Writes them.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn write(folder: &Path) -> Self {
        let place = |from: PathBuf, name: &str| fs::rename(from, folder.join(name)).unwrap();
        fs::write(folder.join("ink.safetensors"), text::kohya_lora()).unwrap();
        place(diffusion::case("sd15_ldm").write(folder), "denoiser.safetensors");
        place(vision(folder), "vision");
        place(vlm(folder), "vlm");
        fs::create_dir(folder.join("output")).unwrap();
        Self { folder: folder.to_owned() }
    }

    /// The folder that they lie in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that a door saves pictures below.
    pub fn output(&self, door: &str) -> PathBuf {
        self.folder.join("output").join(door)
    }

    /// A model by name.
    pub fn model(&self, name: &str) -> PathBuf {
        self.folder.join(if name == "denoiser" { "denoiser.safetensors" } else { name })
    }

    /// The LoRA of a case, if it has one.
    pub fn lora(&self, case: &Case) -> Option<PathBuf> {
        Some(match case.text("lora") {
            "" => return None,
            "ink" => self.folder.join("ink.safetensors"),
            "peft" => lora::path("qwen3_vl", "peft"),
            "missing" => self.folder.join("missing.safetensors"),
            name => lora::path("sd15_ldm", name),
        })
    }
}

/// The crate's models.
struct Crate<'a> {
    files: &'a Files,
    vae: Vae,
    text: TextModel,
    denoiser: Denoiser,
    vision: VisionModel,
    vlm: VlmModel,
    saver: SavePool,
    runtime: Runtime,
    merged: MergedCopies,
}

/// What the crate answers.
///
/// # Panics
/// If a model cannot be loaded, or a case asks for something unknown.
pub fn through_the_crate(files: &Files) -> Answers {
    let runtime = Runtime::cpu().unwrap();
    let door = Crate {
        vae: Vae::moonlet(&runtime).unwrap(),
        text: TextModel::demo(&runtime).unwrap(),
        denoiser: Denoiser::open(files.model("denoiser"), &runtime).unwrap(),
        vision: VisionModel::open(files.model("vision"), &runtime).unwrap(),
        vlm: VlmModel::open(files.model("vlm"), &runtime).unwrap(),
        saver: SavePool::new(SaveConfig::new(files.output("crate"))).unwrap(),
        merged: MergedCopies::new(1 << 30),
        runtime,
        files,
    };
    let answer = |case: &Case| door.run(case).unwrap_or_else(|error| error.kind().name().to_owned());
    cases().iter().map(|case| (case.text("name").to_owned(), answer(case))).collect()
}

fn four(case: &Case) -> Result<[usize; 4]> {
    case.list("shape").try_into().map_err(|_| Error::new(ErrorKind::InvalidInput, "not four sides"))
}

fn image(case: &Case) -> Result<Image> {
    Image::new(four(case)?, values(&case.list("shape")))
}

impl Crate<'_> {
    fn run(&self, case: &Case) -> Result<String> {
        match case.text("op") {
            "encode" => self.encode(case),
            "decode" => self.decode(case),
            "text" => self.text(case),
            "ids" => self.ids(case),
            "tokenize" => {
                let tokens =
                    Conditioner::new(&[&self.text])?.tokenize(&case.text("prompt").into(), &TextOptions::default())?;
                let ids = tokens.encoders.iter().flat_map(|encoder| encoder.chunks.iter().flatten());
                Ok(format!("{:?}", ids.map(|token| token.id().map_or(-1, i64::from)).collect::<Vec<_>>()))
            }
            "load" => Vae::open(case.text("path"), &self.runtime).map(|_| "loaded".to_owned()),
            "forward" => self.forward(case),
            "vision" => self.vision(case),
            "vlm" | "chat" | "prepared" => self.vlm(case),
            "save" => self.save(case),
            other => panic!("what is {other}?"),
        }
    }

    fn encode(&self, case: &Case) -> Result<String> {
        let sizes = [SizeRule::Crop, SizeRule::Pad, SizeRule::Refuse];
        let options = EncodeOptions {
            precision: case.precision(),
            tiles: tiles(case),
            posterior: case.0["seed"].as_u64().map_or(Posterior::Mean, |seed| Posterior::Sample { seed }),
            sizes: sizes[case.choice("sizes", &["crop", "pad", "refuse"])],
            ..EncodeOptions::default()
        };
        let latent = self.vae.encode(&image(case)?, &options)?.latent;
        let latent = if case.says("scaled") { latent.scaled()? } else { latent };
        Ok(answer(&latent.shape(), latent.data()))
    }

    fn decode(&self, case: &Case) -> Result<String> {
        let latent = Latent::new(four(case)?, values(&case.list("shape")))?;
        let latent = latent.with_scale(self.vae.latent_scale(), case.says("scaled"));
        let options = DecodeOptions { precision: case.precision(), tiles: tiles(case), ..DecodeOptions::default() };
        let image = self.vae.decode(&latent, &options)?.image;
        Ok(answer(&image.shape(), image.data()))
    }

    /// The stack of a case, if it has one; at one strength for all.
    fn stack(&self, case: &Case) -> Result<Option<LoraStack>> {
        let Some(path) = self.files.lora(case) else { return Ok(None) };
        let strength = case.number("strength").unwrap_or(1.0);
        let file = LoraFile::open(path, &luna_core::Limits::default())?;
        LoraStack::new().with(Arc::new(file), strength, strength).map(Some)
    }

    fn text(&self, case: &Case) -> Result<String> {
        let clip_skip = (case.whole("clip_skip") as usize).try_into().ok();
        let mut options = TextOptions {
            precision: case.precision(),
            attention: case.attention(),
            clip_skip,
            ..TextOptions::default()
        };
        let mut prompt = Prompt::new(case.text("prompt"));
        for kind in [EncoderKind::ClipL, EncoderKind::T5] {
            prompt.others.extend(case.0[kind.name()].as_str().map(|text| (kind, text.to_owned())));
        }
        let mut stack = self.stack(case)?;
        if case.says("lora_tags") {
            let folders = LoraFolders::new([self.files.folder()])?;
            for tag in prompt.take_lora_tags().tags {
                let file = LoraFile::open(folders.find(&tag.name)?, &luna_core::Limits::default())?;
                stack = Some(stack.unwrap_or_default().with(Arc::new(file), tag.model, tag.clip)?);
            }
        }
        if let Some(stack) = stack {
            options.patches = stack.resolve_text(&self.text, &ResolveOptions::default())?.patches;
        }
        let encoded = Conditioner::new(&[&self.text])?.encode(&[prompt], &options)?;
        Ok(answer(&encoded.first().shape(), encoded.first().data()))
    }

    fn ids(&self, case: &Case) -> Result<String> {
        let mask = Some(case.list("mask")).filter(|mask| !mask.is_empty());
        let mask = mask.map(|mask| mask.into_iter().map(|flag| flag != 0).collect());
        let row = TokenIds { ids: case.ids("ids"), mask };
        let encoded = Conditioner::new(&[&self.text])?.encode_ids(&[row], &TextOptions::default())?;
        Ok(answer(&encoded.first().shape(), encoded.first().data()))
    }

    fn forward(&self, case: &Case) -> Result<String> {
        let (shape, context) = (case.list("shape"), case.list("context"));
        let (x, tokens, timesteps) = (values(&shape), values(&context), case.timesteps());
        let control = case.list("control");
        let middle = values(&control);
        let mut input = ForwardInput::new(ArrayView::new(&shape, &x)?, &timesteps, ArrayView::new(&context, &tokens)?);
        if !control.is_empty() {
            let middle = vec![Some(ArrayView::new(&control, &middle)?)];
            input.control = Control { middle, ..Control::default() };
        }
        let mut options = ForwardOptions {
            precision: case.precision(),
            attention: Some(case.attention()),
            ..ForwardOptions::default()
        };
        if let Some(stack) = self.stack(case)? {
            let patches = stack.resolve(&self.denoiser, &ResolveOptions::default())?.patches;
            let mode = if case.text("mode") == "merged" { ApplyMode::Merged } else { ApplyMode::Functional };
            options.patches = Some(self.merged.prepare(&self.denoiser, &patches, mode, &Call::new())?.patches);
        }
        if !case.text("cache").is_empty() {
            let cache = FirstBlockCache::new(1 << 24);
            options.cache = Some(cache.sequence(case.text("cache"), CacheOptions::default()));
            self.denoiser.forward(&input, &options)?;
        }
        let predicted = self.denoiser.forward(&input, &options)?;
        let hit = predicted.report.cache.is_some_and(|cache| cache.hit);
        let prediction = predicted.prediction;
        Ok(answer(&prediction.shape(), prediction.data()) + if hit { " hit" } else { "" })
    }

    fn vision(&self, case: &Case) -> Result<String> {
        let image = image(case)?;
        let view = match case.list("part")[..] {
            [top, left, height, width] => PictureView::part(&image, Region { top, left, height, width }),
            _ => PictureView::whole(&image),
        };
        let options = VisionOptions { precision: case.precision(), ..VisionOptions::default() };
        let encoded = self.vision.encode(&[view], &options)?;
        let embeds = encoded.image_embeds.expect("a CLIP");
        let last = encoded.last_hidden_state;
        Ok(format!("{} {}", answer(last.shape(), last.data()), answer(embeds.shape(), embeds.data())))
    }

    fn vlm(&self, case: &Case) -> Result<String> {
        let images = if case.list("shape").is_empty() { Vec::new() } else { vec![image(case)?] };
        let system = Some(case.text("system")).filter(|text| !text.is_empty());
        let question = Question { prompt: case.text("prompt").to_owned(), system: system.map(str::to_owned) };
        let sampling = Sampling {
            temperature: case.number("temperature").unwrap_or(0.0) as f32,
            top_k: case.whole("top_k") as usize,
            seed: case.whole("seed"),
            ..Sampling::default()
        };
        let max_tokens = case.whole("max_tokens") as usize;
        let mut options = GenerateOptions { sampling, max_tokens, ..GenerateOptions::default() };
        if let Some(stack) = self.stack(case)? {
            options.lora = Some(stack.resolve_vlm(&self.vlm, &ResolveOptions::default())?.patches);
        }
        let input = match case.text("op") {
            "chat" => self.vlm.prompt(&conversation(case, images.len())?, &images)?,
            "prepared" => VlmInput { ids: case.ids("ids"), patches: Patches::none() },
            _ => self.vlm.prompt(&question.messages(images.len()), &images)?,
        };
        let generated = self.vlm.generate(&input, &options, &mut |_| {})?;
        Ok(format!("{:?} {}", generated.ids, generated.finish.name()))
    }

    fn save(&self, case: &Case) -> Result<String> {
        let formats = [Format::PNG, Format::WebpLossless, Format::JPEG];
        let format = formats[case.choice("format", &["png", "webp-lossless", "jpeg"])];
        let mut job = SaveJob::new(vec![SaveImage::new(image(case)?, format)]);
        job.name = Template::parse(case.text("file"))?;
        let id = self.saver.submit(job)?;
        Ok(saved(&self.saver.wait(id, None)?))
    }
}

/// The turns of a case, the pictures before the words of the first.
fn conversation(case: &Case, pictures: usize) -> Result<Vec<ChatMessage>> {
    let mut pictures = vec![MessagePart::Image; pictures];
    let turn = |(role, text): (&str, &str)| {
        let mut parts = std::mem::take(&mut pictures);
        parts.push(MessagePart::Text(text.to_owned()));
        let role = Role::ALL.into_iter().find(|known| known.name() == role).expect("a role");
        ChatMessage { role, parts }
    };
    let turns: Vec<_> = case.turns().into_iter().map(turn).collect();
    if turns.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "no turns"));
    }
    Ok(turns)
}

fn tiles(case: &Case) -> TileChoice {
    match case.whole("tile") as usize {
        0 => TileChoice::Auto,
        tile => TileChoice::Tiles(Tiling::with_tile(tile)),
    }
}

fn saved(status: &JobStatus) -> String {
    let pictures = status.pictures.iter().map(|picture| match &picture.fate {
        Fate::Written(file) => {
            format!("{} {}", file.path.file_name().unwrap_or_default().to_string_lossy(), file.sha256_hex())
        }
        other => format!("{other:?}"),
    });
    pictures.collect::<Vec<_>>().join(" ")
}
