//! What `text` and `tokenize` are to do.

use super::{Compute, DaemonAddress, Environment, Loras, compute, if_exists, refuse_local};
use crate::args::{EncoderArgs, ReadingArgs, SizeArgs, SyntaxArgs, TextArgs, TokenizeArgs};
use luna_core::{
    AttentionMode, Error, ErrorKind, PictureSizes, Result,
    config::keys,
    files::IfExists,
    text::{EncoderKind, Recipe},
    tokenizer::PromptOptions,
};
use std::{num::NonZeroUsize, path::PathBuf, str::FromStr};

/// Settings of `text`.
#[derive(Debug)]
pub struct Text {
    pub input: TextInput,
    pub output: PathBuf,
    pub encoders: Encoders,
    pub reading: Reading,
    /// Which layer of a CLIP, 1 for the last.
    pub clip_skip: Option<NonZeroUsize>,
    pub t5_mask: bool,
    /// Whether prompts are searched for tags of LoRAs.
    pub tags: bool,
    pub loras: Loras,
    pub sizes: Option<PictureSizes>,
    pub attention: AttentionMode,
    pub compute: Compute,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
    pub if_exists: IfExists,
}

/// What is encoded.
#[derive(Debug, PartialEq, Eq)]
pub enum TextInput {
    Prompts { positive: PromptSource, negative: Option<PromptSource> },
    Tokens(PathBuf),
}

/// Where a prompt comes from; files are not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptSource {
    Typed(String),
    File(PathBuf),
}

/// Which text encoders work together.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoders {
    /// Files with the only encoder that is wanted of them; none for all. No file at all means the demonstration model.
    pub files: Vec<(Option<EncoderKind>, PathBuf)>,
    pub tokenizer: Option<PathBuf>,
    pub recipe: Option<Recipe>,
}

/// How prompts become tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    pub embeddings: Vec<PathBuf>,
    pub syntax: PromptOptions,
    pub t5_tokens: Option<NonZeroUsize>,
}

/// Settings of `tokenize`.
#[derive(Debug)]
pub struct Tokenize {
    pub prompt: PromptSource,
    pub encoder: EncoderKind,
    pub tokenizer: Option<PathBuf>,
    pub reading: Reading,
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
}

impl Text {
    pub fn new(args: TextArgs, environment: &Environment) -> Result<Self> {
        let ReadingArgs { clip_skip, t5_mask } = args.reading;
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local(daemon.as_ref(), &args.compute)?;
        refuse_local_files(daemon.as_ref(), &args.syntax, args.encoders.tokenizer.is_some())?;
        Ok(Self {
            input: match args.tokens {
                Some(file) => TextInput::Tokens(file),
                None => TextInput::Prompts {
                    positive: source(args.prompt.prompt, args.prompt.prompt_file).unwrap_or_default(),
                    negative: source(args.negative, args.negative_file),
                },
            },
            output: args.output,
            encoders: Encoders::new(args.encoders),
            reading: Reading::new(args.syntax, environment)?,
            clip_skip: clip_skip.map(layer_from_end).transpose()?,
            t5_mask,
            tags: args.lora_tags,
            loras: Loras::new(args.lora, args.lora_tags, environment)?,
            sizes: sizes(&args.sizes)?,
            attention: args.attention.attention.unwrap_or_default(),
            compute: compute(args.compute, environment)?,
            daemon,
            if_exists: if_exists(args.write.no_clobber),
        })
    }
}

impl Tokenize {
    pub fn new(args: TokenizeArgs, environment: &Environment) -> Result<Self> {
        if args.tokenizer.is_some() && args.encoder.is_clip() {
            return Err(Error::new(ErrorKind::InvalidInput, "--tokenizer has no meaning for a CLIP")
                .remedy("leave it out: CLIP's vocabulary is built in; or choose --encoder t5 or qwen3"));
        }
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        refuse_local_files(daemon.as_ref(), &args.syntax, args.tokenizer.is_some())?;
        Ok(Self {
            daemon,
            prompt: source(args.prompt, args.prompt_file).unwrap_or_default(),
            encoder: args.encoder,
            tokenizer: args.tokenizer,
            reading: Reading::new(args.syntax, environment)?,
        })
    }
}

impl Default for PromptSource {
    fn default() -> Self {
        Self::Typed(String::new())
    }
}

fn source(typed: Option<String>, file: Option<PathBuf>) -> Option<PromptSource> {
    typed.map(PromptSource::Typed).or(file.map(PromptSource::File))
}

impl Encoders {
    pub fn new(args: EncoderArgs) -> Self {
        let EncoderArgs { clip_l, clip_g, checkpoint, t5, qwen3, tokenizer, recipe } = args;
        let files = [
            (None, checkpoint),
            (Some(EncoderKind::ClipL), clip_l),
            (Some(EncoderKind::ClipG), clip_g),
            (Some(EncoderKind::T5), t5),
            (Some(EncoderKind::Qwen3), qwen3),
        ];
        let files = files.into_iter().filter_map(|(kind, file)| Some((kind, file?))).collect();
        Self { files, tokenizer, recipe }
    }
}

impl Reading {
    fn new(args: SyntaxArgs, environment: &Environment) -> Result<Self> {
        let SyntaxArgs { embeddings, break_chunks, square_brackets, t5_tokens } = args;
        Ok(Self {
            embeddings: environment.list(embeddings, &keys::EMBEDDINGS)?,
            syntax: PromptOptions { break_chunks, square_brackets },
            t5_tokens,
        })
    }
}

/// Folders and files that a daemon reads by itself, if at all.
fn refuse_local_files(daemon: Option<&DaemonAddress>, syntax: &SyntaxArgs, tokenizer: bool) -> Result<()> {
    let refused = |option: &str, remedy: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("{option} has no effect on a daemon")).remedy(remedy))
    };
    match daemon {
        Some(_) if tokenizer => refused("--tokenizer", "put the tokenizer.json beside the model's weights"),
        Some(_) if !syntax.embeddings.is_empty() => {
            refused("--embeddings", "give the folder to `luna-cli serve --embeddings FOLDER`")
        }
        _ => Ok(()),
    }
}

/// 1 or −1 is the last layer, 2 or −2 the one before.
fn layer_from_end(typed: i32) -> Result<NonZeroUsize> {
    NonZeroUsize::new(typed.unsigned_abs() as usize).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "--clip-skip 0 names no layer")
            .expected("1 for the last layer, 2 for the one before, and so on")
    })
}

fn sizes(args: &SizeArgs) -> Result<Option<PictureSizes>> {
    let Some(picture) = &args.picture_size else { return Ok(None) };
    let (width, height) = pair("--picture-size", picture, 'x', "1024x768")?;
    let (crop_w, crop_h) = args.crop.as_ref().map_or(Ok((0, 0)), |crop| pair("--crop", crop, ',', "0,64"))?;
    let target = args.target_size.as_ref().map(|target| pair("--target-size", target, 'x', "1024x768")).transpose()?;
    let (target_width, target_height) = target.unwrap_or((width, height));
    Ok(Some(PictureSizes { width, height, crop_w, crop_h, target_width, target_height }))
}

fn pair<T: FromStr>(option: &str, text: &str, between: char, example: &str) -> Result<(T, T)> {
    let read = || {
        let (first, second) = text.split_once(between)?;
        Some((first.trim().parse().ok()?, second.trim().parse().ok()?))
    };
    read().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("{option} is wrong"))
            .expected(format!("two whole numbers, such as {example}"))
            .found(format!("`{text}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn parsed(words: &[&str]) -> std::result::Result<Command, clap::Error> {
        Args::try_parse_from(["luna-cli"].iter().chain(words)).map(|args| args.command)
    }

    fn text(options: &[&str]) -> Result<Text> {
        let words: Vec<_> = ["text", "-o", "c.safetensors"].iter().chain(options).copied().collect();
        let Command::Text(args) = parsed(&words).unwrap() else { panic!("not text") };
        Text::new(*args, &Environment::new(None, &|name| (name == "LUNA_EMBEDDINGS").then(|| "a".to_owned()))?)
    }

    #[test]
    fn layers_count_from_the_end_in_both_ways() {
        for (typed, layer) in [("1", 1), ("-1", 1), ("-2", 2), ("12", 12)] {
            assert_eq!(text(&["x", "--clip-skip", typed]).unwrap().clip_skip, NonZeroUsize::new(layer), "{typed}");
        }
        assert_eq!(text(&["x", "--clip-skip", "0"]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(text(&["x"]).unwrap().clip_skip, None);
    }

    #[test]
    fn sizes_are_read_and_completed() {
        let sizes = text(&["x", "--picture-size", "1024x768", "--crop", "8,16"]).unwrap().sizes.unwrap();
        assert_eq!((sizes.width, sizes.crop_w, sizes.crop_h, sizes.target_height), (1024, 8, 16, 768));
        for wrong in ["1024", "x", "-1x5", "1e3x7", "99999999999x1"] {
            let option = format!("--picture-size={wrong}");
            assert_eq!(text(&["x", &option]).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
        assert!(parsed(&["text", "x", "-o", "c", "--crop", "1,1"]).is_err(), "a crop of nothing");
    }

    #[test]
    fn what_is_encoded_is_said_once() {
        let typed = |words: &str| PromptSource::Typed(words.to_owned());
        let TextInput::Prompts { positive, negative } = text(&["--negative", "", "--", "-x"]).unwrap().input else {
            panic!("tokens")
        };
        assert_eq!((positive, negative), (typed("-x"), Some(typed(""))));
        assert_eq!(text(&["--tokens", "t"]).unwrap().input, TextInput::Tokens("t".into()));
        for wrong in [
            &[][..],
            &["x", "--prompt-file", "p"],
            &["x", "--tokens", "t"],
            &["--tokens", "t", "--negative", "n"],
            &["x", "--negative", "n", "--negative-file", "n"],
        ] {
            let words: Vec<_> = ["text", "-o", "c"].iter().chain(wrong).copied().collect();
            assert!(parsed(&words).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn folders_of_embeddings_come_from_the_environment_unless_typed() {
        assert_eq!(text(&["x"]).unwrap().reading.embeddings, [PathBuf::from("a")]);
        let typed = text(&["x", "--embeddings", "b", "--embeddings", "c"]).unwrap();
        assert_eq!(typed.reading.embeddings, [PathBuf::from("b"), PathBuf::from("c")]);
    }

    #[test]
    fn a_tokenizer_file_goes_with_the_encoders_that_have_one() {
        let tokenize = |options: &[&str]| {
            let words: Vec<_> = ["tokenize", "x"].iter().chain(options).copied().collect();
            let Command::Tokenize(args) = parsed(&words).unwrap() else { panic!("not tokenize") };
            Tokenize::new(*args, &Environment::new(None, &|_| None)?)
        };
        assert_eq!(tokenize(&[]).unwrap().encoder, EncoderKind::ClipL);
        assert!(tokenize(&["--encoder", "t5", "--tokenizer", "t"]).is_ok());
        assert_eq!(tokenize(&["--tokenizer", "t"]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(parsed(&["tokenize", "x", "--encoder", "bert"]).is_err());
    }
}
