//! What `save` is to do. Unlike the other settings these need the local time, which the environment decides as well.

use crate::args::{EncodingArgs, ExistsArg, FormatArg, GateArg, GateArgs, MetadataArgs, NamingArgs, SaveArgs};
use luna_core::{
    Error, ErrorKind, Result,
    files::IfExists,
    picture::{BitDepth, Effort, Format},
    save::{Gate, GateMode, NameValues, Rejects, Template, Timestamp},
};
use std::{num::NonZeroUsize, path::PathBuf, time::SystemTime};

/// Settings of `save`.
#[derive(Debug)]
pub struct Save {
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    pub name: Template,
    pub values: NameValues,
    pub affix: String,
    pub subfolder: bool,
    pub if_exists: IfExists,
    pub format: Format,
    pub metadata: MetadataSource,
    pub gate: Gate,
    pub time: Timestamp,
    pub spool: Option<PathBuf>,
    pub threads: Option<NonZeroUsize>,
}

/// Where the metadata comes from; the files are not read yet.
#[derive(Debug, Default)]
pub struct MetadataSource {
    /// Key and file.
    pub files: Vec<(&'static str, PathBuf)>,
    /// Key and text.
    pub texts: Vec<(String, String)>,
    pub xmp: Option<PathBuf>,
}

impl Save {
    pub fn new(args: SaveArgs) -> Result<Self> {
        let NamingArgs { template, affix, subfolder, model, seed, index, prompt, exists } = args.naming;
        let mut values = NameValues::default();
        (values.model_path, values.seed, values.index, values.prompt) = (model, seed, index, prompt);
        Ok(Self {
            inputs: args.inputs,
            output: args.output,
            name: template.map_or_else(|| Ok(Template::default()), |text| Template::parse(&text))?,
            values,
            affix,
            subfolder,
            if_exists: match exists {
                ExistsArg::Number => IfExists::Number,
                ExistsArg::Replace => IfExists::Replace,
                ExistsArg::Refuse => IfExists::Refuse,
            },
            format: format(args.encoding)?,
            metadata: metadata(args.metadata)?,
            gate: gate(args.gate)?,
            time: Timestamp::new(SystemTime::now(), chrono::Local::now().offset().local_minus_utc() / 60),
            spool: args.spool,
            threads: args.threads,
        })
    }
}

fn format(args: EncodingArgs) -> Result<Format> {
    let EncodingArgs { format, level, quality } = args;
    let name = format!("{format:?}").to_ascii_lowercase();
    let png = matches!(format, FormatArg::Png | FormatArg::Png16);
    let lossy = matches!(format, FormatArg::Webp | FormatArg::Jpeg);
    let unfit = |option: &str, fit: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("{option} has no meaning for {name}"))
            .remedy(format!("leave it out, or choose {fit}")))
    };
    if level.is_some() && !png {
        return unfit("--level", "a PNG format");
    }
    if quality.is_some() && !lossy {
        return unfit("--quality", "jpeg or webp");
    }
    let effort = level.as_deref().map_or(Ok(Effort::default()), effort)?;
    let quality = quality.unwrap_or(90);
    let format = match format {
        FormatArg::Png => Format::Png { effort, bits: BitDepth::Eight },
        FormatArg::Png16 => Format::Png { effort, bits: BitDepth::Sixteen },
        FormatArg::Webp => Format::WebpLossy { quality },
        FormatArg::WebpLossless => Format::WebpLossless,
        FormatArg::Jpeg => Format::Jpeg { quality },
    };
    format.check().map(|()| format)
}

fn effort(text: &str) -> Result<Effort> {
    match (text, text.parse()) {
        ("fast", _) => Ok(Effort::Fast),
        (_, Ok(level)) => Ok(Effort::Level(level)),
        _ => Err(Error::new(ErrorKind::InvalidInput, "--level is wrong")
            .expected("0 to 9, or fast")
            .found(format!("`{text}`"))),
    }
}

fn metadata(args: MetadataArgs) -> Result<MetadataSource> {
    let files = [("prompt", args.comfy_prompt), ("workflow", args.comfy_workflow)];
    let mut texts: Vec<_> = args.parameters.map(|text| ("parameters".to_owned(), text)).into_iter().collect();
    for field in args.meta {
        let Some((key, text)) = field.split_once('=') else {
            return Err(Error::new(ErrorKind::InvalidInput, "--meta is wrong").expected("KEY=TEXT").found(field));
        };
        texts.push((key.to_owned(), text.to_owned()));
    }
    let files = files.into_iter().filter_map(|(key, file)| Some((key, file?))).collect();
    Ok(MetadataSource { files, texts, xmp: args.xmp })
}

fn gate(args: GateArgs) -> Result<Gate> {
    let mode = match args.gate {
        GateArg::Disabled => GateMode::Disabled,
        GateArg::Variance => GateMode::Variance,
        GateArg::EdgeDensity => GateMode::EdgeDensity,
        GateArg::Both => GateMode::Both,
    };
    let mut gate = Gate::new(mode);
    gate.threshold = args.threshold;
    gate.rejects = if args.drop_rejects { Rejects::Drop } else { Rejects::Keep };
    gate.check().map(|()| gate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn save(options: &[&str]) -> Result<Save> {
        let line = ["luna-cli", "save", "a.png"].iter().chain(options);
        let Command::Save(args) = Args::try_parse_from(line).unwrap().command else { panic!("not save") };
        Save::new(*args)
    }

    #[test]
    fn formats_take_their_own_options_only() {
        let fast = Format::Png { effort: Effort::Fast, bits: BitDepth::Sixteen };
        assert_eq!(save(&["--format", "png16", "--level", "fast"]).unwrap().format, fast);
        assert_eq!(save(&["--format", "webp"]).unwrap().format, Format::WEBP);
        for wrong in [
            &["--level", "10"][..],
            &["--level", "quick"],
            &["--quality", "80"],
            &["--format", "jpeg", "--level", "3"],
            &["--format", "jpeg", "--quality", "0"],
            &["--format", "webp-lossless", "--quality", "9"],
        ] {
            assert_eq!(save(wrong).expect_err(&wrong.join(" ")).kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn fields_templates_and_thresholds_are_checked() {
        let settings = save(&["--meta", "a=b=c", "--parameters", "x"]).unwrap();
        assert_eq!(settings.metadata.texts[1], ("a".to_owned(), "b=c".to_owned()));
        for wrong in [["--meta", "novalue"], ["--template", "%sead%"], ["--threshold", "2"]] {
            assert!(save(&wrong).is_err(), "{wrong:?}");
        }
    }
}
