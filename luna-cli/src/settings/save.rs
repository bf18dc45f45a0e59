//! What `save` is to do. Unlike the other settings these need the local time, which the environment decides as well.

use super::{DaemonAddress, Environment};
use crate::args::{EncodingArgs, ExistsArg, FormatArg, GateArg, GateArgs, MetadataArgs, NamingArgs, SaveArgs};
use luna_core::{
    Error, ErrorKind, Result,
    files::IfExists,
    picture::{BitDepth, Effort, Format},
    save::{Gate, GateMode, NameValues, Rejects, Target, Template, Timestamp},
};
use std::{num::NonZeroUsize, path::PathBuf, time::SystemTime};

/// Settings of `save`.
#[derive(Debug)]
pub struct Save {
    pub inputs: Vec<PathBuf>,
    pub output: Target,
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
    /// The daemon that does the work.
    pub daemon: Option<DaemonAddress>,
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
    pub fn new(args: SaveArgs, environment: &Environment) -> Result<Self> {
        let NamingArgs { template, affix, subfolder, model, seed, index, prompt, exists } = args.naming;
        let daemon = DaemonAddress::of_command(args.connect, environment)?;
        if daemon.is_some() && (args.spool.is_some() || args.threads.is_some()) {
            return Err(Error::new(ErrorKind::InvalidInput, "--spool and --threads have no effect on a daemon")
                .remedy("give them to `luna-cli serve`"));
        }
        let mut values = NameValues::default();
        (values.model_path, values.seed, values.index, values.prompt) = (model, seed, index, prompt);
        Ok(Self {
            inputs: args.inputs,
            output: target(args.output, environment)?,
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
            daemon,
        })
    }
}

/// Variables that say how to reach a store, as each provider's own programs read them.
const STORE_VARIABLES: [(&str, &[&str]); 3] = [
    (
        "s3://",
        &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_ENDPOINT_URL",
            "AWS_ALLOW_HTTP",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        ],
    ),
    ("gs://", &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"]),
    (
        "az://",
        &[
            "AZURE_STORAGE_ACCOUNT_NAME",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_SAS_KEY",
            "AZURE_STORAGE_CLIENT_ID",
            "AZURE_STORAGE_CLIENT_SECRET",
            "AZURE_STORAGE_TENANT_ID",
        ],
    ),
];

/// A store where the output is a URL, else a folder.
pub(super) fn target(output: PathBuf, environment: &Environment) -> Result<Target> {
    let Some(url) = output.to_str().filter(|text| text.contains("://")) else { return Ok(output.into()) };
    let variables =
        STORE_VARIABLES.iter().find(|(scheme, _)| url.starts_with(scheme)).map_or(&[][..], |(_, names)| *names);
    let value = |name: &&str| (environment.variable)(name).filter(|value| !value.is_empty());
    Target::store(url, variables.iter().filter_map(|name| Some((name.to_ascii_lowercase(), value(name)?))))
}

fn format(args: EncodingArgs) -> Result<Format> {
    let EncodingArgs { format, level, quality } = args;
    let name = format!("{format:?}").to_ascii_lowercase();
    let png = matches!(format, FormatArg::Png | FormatArg::Png16);
    let lossy = matches!(format, FormatArg::Webp | FormatArg::Jpeg | FormatArg::Avif);
    let unfit = |option: &str, fit: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("{option} has no meaning for {name}"))
            .remedy(format!("leave it out, or choose {fit}")))
    };
    if level.is_some() && !png {
        return unfit("--level", "a PNG format");
    }
    if quality.is_some() && !lossy {
        return unfit("--quality", "jpeg, webp or avif");
    }
    let effort = level.as_deref().map_or(Ok(Effort::default()), effort)?;
    let quality = quality.unwrap_or(if matches!(format, FormatArg::Avif) { 80 } else { 90 });
    let format = match format {
        FormatArg::Png => Format::Png { effort, bits: BitDepth::Eight },
        FormatArg::Png16 => Format::Png { effort, bits: BitDepth::Sixteen },
        FormatArg::Webp => Format::WebpLossy { quality },
        FormatArg::WebpLossless => Format::WebpLossless,
        FormatArg::Jpeg => Format::Jpeg { quality },
        FormatArg::Avif => Format::Avif { quality },
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
        Save::new(*args, &Environment::new(None, &|name| (name == "AWS_REGION").then(|| "here".to_owned()))?)
    }

    #[test]
    fn an_output_that_is_a_url_is_a_store() {
        assert!(matches!(save(&["-o", "a/b"]).unwrap().output, Target::Folder(path) if path.ends_with("a/b")));
        for url in ["s3://bucket/x", "gs://bucket"] {
            match save(&["-o", url]) {
                Ok(settings) => assert_eq!(settings.output.to_string(), url),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
            }
            assert_eq!(save(&["-o", url]).is_ok(), cfg!(feature = "object-store"));
        }
        assert_eq!(save(&["-o", "https://example.org"]).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[cfg(feature = "object-store")]
    #[test]
    fn every_variable_is_an_option_of_its_store() {
        for (scheme, names) in STORE_VARIABLES {
            let all = |name: &str| names.contains(&name).then(|| "true".to_owned());
            let target = target(format!("{scheme}bucket").into(), &Environment::new(None, &all).unwrap());
            assert!(matches!(target, Ok(Target::Store(_))), "{target:?}");
        }
    }

    #[test]
    fn formats_take_their_own_options_only() {
        let fast = Format::Png { effort: Effort::Fast, bits: BitDepth::Sixteen };
        assert_eq!(save(&["--format", "png16", "--level", "fast"]).unwrap().format, fast);
        assert_eq!(save(&["--format", "webp"]).unwrap().format, Format::WEBP);
        assert_eq!(save(&["--format", "avif"]).is_ok(), cfg!(feature = "avif"));
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
