//! A vision-language model of one file, loaded and frozen. Enters: a checkpoint; then pictures and words. Leaves:
//! prepared prompts and, through `generation`, text.

use super::{
    GenerateOptions, Generated, Patches, Piece, Question, VlmInput, VlmLoadOptions,
    decoder::{Decoder, Usual},
    eyes::Eyes,
    llava::Llava,
    prompt,
    qwen3_vl::{PictureRules, Tower},
};
use crate::{
    Error, ErrorKind, Image, Limits, Result, Runtime,
    checkpoint::{Checkpoint, Component, ComponentKind, Family, Recognition, dialect, fitting_projectors},
    nn::{FrozenWeights, Weights},
    tokenizer::{ChatFormat, ChatMessage, FileTokenizer},
    vision::PixelValues,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The families of vision-language models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VlmFamily {
    /// Qwen3-VL, dense.
    Qwen3Vl,
    /// LLaVA 1.5.
    Llava,
}

impl VlmFamily {
    /// A stable name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qwen3Vl => "qwen3_vl",
            Self::Llava => "llava",
        }
    }

    /// How its conversations are written.
    const fn format(self) -> ChatFormat {
        match self {
            Self::Qwen3Vl => ChatFormat::Qwen,
            Self::Llava => ChatFormat::Llava15,
        }
    }

    /// The token that holds a picture's places.
    const fn picture_token(self) -> &'static str {
        match self {
            Self::Qwen3Vl => "<|image_pad|>",
            Self::Llava => "<image>",
        }
    }

    /// Tokens that end a turn, where no file says.
    const fn end_tokens(self) -> &'static [&'static str] {
        match self {
            Self::Qwen3Vl => &["<|im_end|>", "<|endoftext|>"],
            Self::Llava => &["</s>"],
        }
    }

    const fn usual(self) -> Usual {
        match self {
            Self::Qwen3Vl => Usual { eps: 1e-6, rotary_base: 5e6, context: 262_144 },
            Self::Llava => Usual { eps: 1e-5, rotary_base: 1e4, context: 4096 },
        }
    }
}

/// What is known of a vision-language model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VlmInfo {
    /// Its family.
    pub family: VlmFamily,
    /// Layers of the language model.
    pub layers: usize,
    /// Layers of the vision part that are used.
    pub vision_layers: usize,
    /// Length of a token's embedding.
    pub channels: usize,
    /// Number of logits.
    pub vocabulary: usize,
    /// Tokens that it was trained for.
    pub context: usize,
    /// The id that holds a picture's places in a prepared prompt.
    pub picture_id: u32,
    /// Whether there is a tokenizer.
    pub has_tokenizer: bool,
    /// Tensors of the component that the model does not use.
    pub unused: Vec<String>,
}

/// A frozen vision-language model. Any number of threads may generate with it at once, each with a memory of its own.
///
/// ```no_run
/// use luna_core::{Limits, Runtime, picture::read_picture, vlm::{GenerateOptions, Question, VlmModel}};
/// let model = VlmModel::open("Qwen3-VL-2B-Instruct", &Runtime::cpu()?)?;
/// let photo = read_picture("photo.jpg".as_ref(), &Limits::default())?;
/// let question = Question::new("Describe this picture.");
/// let answer = model.describe(&[photo], &question, &GenerateOptions::default(), &mut |piece| print!("{}", piece.text))?;
/// println!("{:?} after {} tokens", answer.finish, answer.ids.len());
/// # Ok::<(), luna_core::Error>(())
/// ```
pub struct VlmModel {
    family: VlmFamily,
    pub(super) decoder: Decoder,
    pub(super) eyes: Eyes,
    /// The id that holds a picture's places.
    pub(super) picture: u32,
    /// Ids that end a turn.
    pub(super) ends: Vec<u32>,
    pub(super) tokenizer: Option<FileTokenizer>,
    pub(super) runtime: Runtime,
    pub(super) limits: Limits,
    frozen: FrozenWeights,
    unused: Vec<String>,
}

impl VlmModel {
    /// Opens a model's folder or file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`VlmModel::load`].
    pub fn open(path: impl AsRef<Path>, runtime: &Runtime) -> Result<Self> {
        Self::open_with(path, runtime, &VlmLoadOptions::default())
    }

    /// As [`VlmModel::open`], with options.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`VlmModel::load`].
    pub fn open_with(path: impl AsRef<Path>, runtime: &Runtime, options: &VlmLoadOptions) -> Result<Self> {
        let checkpoint = match &options.projector {
            Some(projector) => Checkpoint::open_with_projector(path, projector, &options.limits)?,
            None => Checkpoint::open(path, &options.limits)?,
        };
        Self::load(&checkpoint, runtime, options)
    }

    /// Builds the model of an opened checkpoint.
    ///
    /// # Errors
    /// `Unsupported` if it holds none; `InvalidFile` if it is incomplete, its shapes disagree or a file beside it states
    /// other sizes; `InvalidInput` if the tokenizer belongs to another model.
    pub fn load(checkpoint: &Checkpoint, runtime: &Runtime, options: &VlmLoadOptions) -> Result<Self> {
        let found = checkpoint.recognise();
        let load = || {
            let component = found.component(ComponentKind::VisionLanguage);
            let component = component.ok_or_else(|| no_vlm(checkpoint, &found, &options.limits))?;
            Self::load_component(checkpoint, component, runtime, options)
        };
        // Packing weights is work for the runtime's threads.
        runtime.run(load).map_err(|error| error.at(checkpoint.path().display()))
    }

    fn load_component(
        checkpoint: &Checkpoint,
        component: &Component,
        runtime: &Runtime,
        options: &VlmLoadOptions,
    ) -> Result<Self> {
        let family = if component.family == Family::Llava { VlmFamily::Llava } else { VlmFamily::Qwen3Vl };
        let config = checkpoint.config(&component.prefix);
        let part = |name: &str| config.map(|config| &config[name]).filter(|part| part.is_object());
        let processor = checkpoint.processor(&options.limits)?;
        let weights =
            Weights::new(checkpoint, runtime, component.device_precision(), dialect::vlm(checkpoint, component));
        let decoder = Decoder::load(&weights, part("text_config"), family.usual())?;
        let eyes = match family {
            VlmFamily::Qwen3Vl => {
                let tower = Tower::load(&weights.at("visual"), part("vision_config"))?;
                let rules = PictureRules::stated(processor.as_ref(), tower.patch, tower.frames, tower.merge)?;
                Eyes::Qwen3Vl { tower, rules, sections: sections(part("text_config"), decoder.head) }
            }
            VlmFamily::Llava => Eyes::Llava(Llava::load(&weights, config, processor.as_ref())?),
        };
        let tokenizer = tokenizer(checkpoint, options)?;
        if let Some(tokenizer) = &tokenizer {
            tokenizer.check_rows(decoder.table.entries())?;
        }
        let token = |text: &str| tokenizer.as_ref().and_then(|tokenizer| tokenizer.token_id(text));
        let stated = ["image_token_id", "image_token_index"]
            .into_iter()
            .find_map(|name| config.and_then(|config| config[name].as_u64()));
        let picture = stated.and_then(|id| u32::try_from(id).ok()).or_else(|| token(family.picture_token()));
        // Vocabularies of before there were pictures have no such token: an id of its own stands in for it.
        let picture = picture.unwrap_or(decoder.table.entries() as u32);
        let mut ends = checkpoint.json_beside("generation_config.json", &options.limits)?.map_or(vec![], |c| ends(&c));
        ends.extend([config, part("text_config")].into_iter().flatten().flat_map(self::ends));
        ends.extend(family.end_tokens().iter().filter_map(|text| token(text)));
        let roots = component.roots();
        let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
        let unused = weights.leftovers(&roots);
        Ok(Self {
            family,
            decoder,
            eyes,
            picture,
            ends,
            tokenizer,
            runtime: runtime.clone(),
            limits: options.limits.clone(),
            frozen: weights.into_frozen(),
            unused,
        })
    }

    /// What is known of it.
    pub fn info(&self) -> VlmInfo {
        VlmInfo {
            family: self.family,
            layers: self.decoder.layers(),
            vision_layers: self.eyes.layers(),
            channels: self.decoder.table.channels(),
            vocabulary: self.decoder.vocabulary(),
            context: self.decoder.context,
            picture_id: self.picture,
            has_tokenizer: self.tokenizer.is_some(),
            unused: self.unused.clone(),
        }
    }

    /// Its layers, for those who resolve patches.
    pub(crate) fn frozen(&self) -> &FrozenWeights {
        &self.frozen
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// BLAKE3 of its weights as they are held, read anew: no use of the model changes it.
    ///
    /// # Errors
    /// Those of the device that the weights are read back from.
    pub fn weights_digest(&self) -> Result<blake3::Hash> {
        self.runtime.run(|| self.frozen.digest())
    }

    /// Bytes of its weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.frozen.bytes()
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// `NotFound` if there was no `tokenizer.json`.
    pub fn tokenizer(&self) -> Result<&FileTokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no tokenizer.json for this model")
                .expected("tokenizer.json beside the weights, or its path")
                .remedy("put the tokenizer.json of the model beside its weights, or give ids instead of text")
        })
    }

    /// Answers a question about pictures, or without any, and tells `listener` each token as it comes.
    ///
    /// # Errors
    /// As [`VlmModel::prompt`] and [`VlmModel::generate`].
    pub fn describe(
        &self,
        pictures: &[Image],
        question: &Question,
        options: &GenerateOptions,
        listener: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<Generated> {
        let count = pictures.iter().map(Image::batch).sum();
        self.generate(&self.prompt(&question.messages(count), pictures)?, options, listener)
    }

    /// Prepares a conversation with its pictures.
    ///
    /// # Errors
    /// `NotFound` without a tokenizer; `InvalidInput` if places and pictures differ in number, or a picture is too long
    /// and thin; `LimitExceeded` for too many bytes, pictures or patches; `NonFinite` for a NaN among the pixels.
    pub fn prompt(&self, messages: &[ChatMessage], pictures: &[Image]) -> Result<VlmInput> {
        let tokenizer = self.tokenizer()?;
        let patches = self.runtime.run(|| self.patches(pictures))?;
        let tokens: Vec<usize> = patches.grids.iter().map(|&grid| self.eyes.tokens(grid)).collect();
        Ok(VlmInput { ids: prompt::encode(tokenizer, self.family.format(), messages, &tokens, self.picture)?, patches })
    }

    /// Cuts pictures that were resized and normalised already, for a model whose pictures are all of one size.
    ///
    /// # Errors
    /// `InvalidInput` for another size, or a model whose pictures differ in size.
    pub fn cut(&self, pictures: &PixelValues) -> Result<Patches> {
        let (mut grids, mut data) = (Vec::new(), Vec::new());
        self.eyes.cut(pictures, &mut grids, &mut data)?;
        Patches::new(grids, self.eyes.length(), data)
    }

    /// Cuts pictures into the patches that the vision part looks at.
    ///
    /// # Errors
    /// As [`VlmModel::prompt`].
    pub fn patches(&self, pictures: &[Image]) -> Result<Patches> {
        let (mut grids, mut data) = (Vec::new(), Vec::new());
        for image in pictures {
            self.eyes.prepare(image, &mut grids, &mut data)?;
        }
        if grids.is_empty() {
            return Ok(Patches::none());
        }
        Patches::new(grids, self.eyes.length(), data)
    }
}

impl std::fmt::Debug for VlmModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.decoder.table.channels();
        write!(f, "VlmModel({}, {} layers of {width})", self.family.name(), self.decoder.layers())
    }
}

/// The tokenizer that was named, else the one beside the weights, else the one in the weights' own file, where there is
/// one.
fn tokenizer(weights: &Checkpoint, options: &VlmLoadOptions) -> Result<Option<FileTokenizer>> {
    match &options.tokenizer {
        Some(path) => FileTokenizer::from_file(path, &options.limits).map(Some),
        None => match FileTokenizer::beside(weights.path(), &options.limits) {
            Ok(tokenizer) => Ok(Some(tokenizer)),
            Err(error) if error.kind() == ErrorKind::NotFound => FileTokenizer::in_gguf(weights),
            Err(error) => Err(error),
        },
    }
}

/// How many pairs of a head turn by time, height and width: what is stated, else shares of 6, 5 and 5 sixteenths.
fn sections(config: Option<&Value>, head: usize) -> [usize; 3] {
    let nested = |name: &str| config.and_then(|config| config[name]["mrope_section"].as_array());
    let list = nested("rope_parameters").or(nested("rope_scaling"));
    let numbers = list.map(|list| list.iter().filter_map(|number| number.as_u64().map(|n| n as usize)).collect());
    let stated = numbers.and_then(|numbers: Vec<usize>| <[usize; 3]>::try_from(numbers).ok());
    stated.unwrap_or([head * 3 / 16, head * 5 / 32, head * 5 / 32])
}

/// Ids that end a turn, as a configuration states them: one or a list.
fn ends(config: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &config["eos_token_id"] {
        Value::Array(list) => list.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

fn no_vlm(checkpoint: &Checkpoint, found: &Recognition, limits: &Limits) -> Error {
    if checkpoint.shape("token_embd.weight").is_some() {
        return no_projector(checkpoint, limits);
    }
    let expected = "Qwen3-VL or LLaVA 1.5 with transformers' names, or a GGUF file of one with its mmproj file";
    found.lacks("vision-language model", expected)
}

/// A GGUF file that is only a language model.
fn no_projector(checkpoint: &Checkpoint, limits: &Limits) -> Error {
    let error = Error::new(ErrorKind::NotFound, "this GGUF file holds only a language model, not the part that sees");
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let fitting: Vec<String> = fitting_projectors(checkpoint, checkpoint.path(), limits)
        .map(|paths| paths.iter().filter_map(name).collect())
        .unwrap_or_default();
    match &*fitting {
        [] => error
            .expected("a file mmproj-….gguf of the same Qwen3-VL or LLaVA 1.5 in its folder")
            .found("none that fits")
            .remedy("put it there, or name it"),
        several => error
            .expected("one file mmproj-….gguf in its folder that fits")
            .found(several.join(", "))
            .remedy("name the one to use"),
    }
}
