//! File names from templates. Enters: a template such as `%model_name%/%time:YYYY-mm-dd%_%counter:5%` and the values
//! of a job. Leaves: safe folders and a file name, with a place for a counter. It never looks at the disk.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    name::{cut, path_value, relative, without_separators},
};
use crate::{Error, ErrorKind, Result};

/// What a template may ask for. A template that asks for a value the job lacks is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NameValues {
    /// The model's path below its models folder, such as `sdxl/base.safetensors`: `%model_path%` (without the
    /// extension), `%model_name%` (its last part), `%model_dir%` (the parts before).
    pub model_path: Option<String>,
    /// The caller's own number: `%index%`; 0 if none.
    pub index: Option<u64>,
    /// The seed: `%seed%`.
    pub seed: Option<u64>,
    /// The prompt: `%prompt:40%` for its first 40 characters.
    pub prompt: Option<String>,
}

/// What differs from picture to picture, or is known only when the job is taken in.
#[derive(Debug, Clone, Copy)]
pub(super) struct PictureValues<'a> {
    pub(super) time: Timestamp,
    pub(super) job: &'a str,
    pub(super) affix: &'a str,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// A template, parsed.
///
/// | token | becomes |
/// |---|---|
/// | `%model_path%`, `%model_name%`, `%model_dir%` | the model's path without extension, its last part, the parts before |
/// | `%index%`, `%seed%`, `%width%`, `%height%` | numbers |
/// | `%time:YYYY-mm-dd.HH.MM.SS%` | the moment the job was handed in; `mm` is the month, `MM` the minute |
/// | `%prompt:40%`, `%prompt%` | the prompt's first 40 characters, or 80 |
/// | `%counter:5%`, `%counter%` | the first number that is free in the folder, 5 digits wide; pictures of one job that are written at the same time take theirs in any order |
/// | `%affix%` | the picture's affix |
/// | `%job%` | the job's id |
/// | `%%` | a percent sign |
///
/// `/` makes folders. Only `%model_path%` and `%model_dir%` may bring folders of their own.
///
/// ```
/// use luna_core::save::Template;
/// assert!(Template::parse("%time:YYYY-mm-dd%/%seed%_%counter:5%").is_ok());
/// let error = Template::parse("%sead%").unwrap_err();
/// assert!(error.to_string().contains("%seed%"), "{error}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    ModelPath,
    ModelName,
    ModelDir,
    Index,
    Seed,
    Width,
    Height,
    Time(String),
    Prompt(usize),
    Counter(usize),
    Affix,
    Job,
}

const TOKENS: &str = "%model_path%, %model_name%, %model_dir%, %index%, %seed%, %width%, %height%, \
                      %time:YYYY-mm-dd.HH.MM.SS%, %prompt:40%, %counter:5%, %affix%, %job%, or %% for a percent sign";
const DEFAULT_TIME: &str = "YYYY-mm-dd.HH.MM.SS";
const DEFAULT_PROMPT: usize = 80;
/// Bytes behind a counter, and of a suffix.
const MOST_AFTER: usize = 40;

/// A template with a job's values put in; not safe yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendered {
    before: String,
    /// The counter's width and what comes after it, where the template has one.
    counter: Option<(usize, String)>,
}

/// Where a picture goes: folders, and a file name that may have a place for a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) folders: Vec<String>,
    pub(super) before: String,
    /// The counter's width, where the template has one; the name goes on after it.
    pub(super) counter: Option<(usize, String)>,
    pub(super) suffix: String,
    pub(super) extension: &'static str,
}

impl Default for Template {
    /// `%time:YYYY-mm-dd.HH.MM.SS%`.
    fn default() -> Self {
        Self { text: format!("%time:{DEFAULT_TIME}%"), parts: vec![Part::Time(DEFAULT_TIME.to_owned())] }
    }
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown token (the message lists the known ones), a percent sign without a partner, two
    /// counters, a counter in a folder, or a path that leads out of the output folder.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::InvalidInput, message).at(format!("template {text:?}"));
        crate::limits::check_at_most("bytes in a template", text.len() as u64, 4096)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, token)) = rest.split_once('%') {
            let unpaired = || wrong("a percent sign has no partner".to_owned()).remedy("write %% for a percent sign");
            let (token, after) = token.split_once('%').ok_or_else(unpaired)?;
            push_text(&mut parts, before);
            match token {
                "" => push_text(&mut parts, "%"),
                _ => parts
                    .push(parse_token(token).ok_or_else(|| {
                        wrong(format!("%{token}% is not known")).expected(format!("one of {TOKENS}"))
                    })?),
            }
            rest = after;
        }
        push_text(&mut parts, rest);
        let template = Self { text: text.to_owned(), parts };
        template.check_counter().map_err(|error| error.at(format!("template {text:?}")))?;
        Ok(template)
    }

    /// The template of no folder at all.
    pub fn empty() -> Self {
        Self { text: String::new(), parts: Vec::new() }
    }

    fn check_counter(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::InvalidInput, message));
        let is_counter = |part: &Part| matches!(part, Part::Counter(_));
        let Some(at) = self.parts.iter().position(is_counter) else { return Ok(()) };
        let after = &self.parts[at + 1..];
        if after.iter().any(is_counter) {
            return wrong("there may be one counter");
        }
        let parts_a_path = |part: &Part| match part {
            Part::Text(text) => text.contains(['/', '\\']),
            part => matches!(part, Part::ModelPath | Part::ModelDir),
        };
        if after.iter().any(parts_a_path) {
            return wrong("the counter may stand in the file's name only, not in a folder's");
        }
        Ok(())
    }

    /// The template's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn has_affix(&self) -> bool {
        self.parts.contains(&Part::Affix)
    }

    /// The template with these values.
    ///
    /// # Errors
    /// `InvalidInput` for a value that the job lacks.
    pub(super) fn render(&self, values: &NameValues, picture: &PictureValues<'_>) -> Result<Rendered> {
        let mut out = Rendered { before: String::new(), counter: None };
        for part in &self.parts {
            if let Part::Counter(width) = part {
                out.counter = Some((*width, String::new()));
                continue;
            }
            let text = part.render(values, picture).map_err(|error| error.at(format!("template {:?}", self.text)))?;
            match &mut out.counter {
                Some((_, after)) => after.push_str(&text),
                None => out.before.push_str(&text),
            }
        }
        Ok(out)
    }
}

impl Rendered {
    /// As folders.
    ///
    /// # Errors
    /// `InvalidInput` for a counter and for paths that lead out or are reserved.
    pub(super) fn into_folders(self) -> Result<Vec<String>> {
        if self.counter.is_some() {
            return Err(Error::new(ErrorKind::InvalidInput, "the counter may stand in the file's name only"));
        }
        relative(&self.before)
    }

    /// As a file's name below `folders`, with `suffix` behind it.
    ///
    /// # Errors
    /// `InvalidInput` for paths that lead out or are reserved, and where no name is left.
    pub(super) fn into_name(self, mut folders: Vec<String>, suffix: &str, extension: &'static str) -> Result<Name> {
        let Self { before, counter } = self;
        if before.ends_with(['/', '\\']) && counter.is_none() || before.is_empty() && counter.is_none() {
            let error = Error::new(ErrorKind::InvalidInput, "the template gives no file name");
            return Err(error.found(format!("{before:?}")));
        }
        // Checked with a digit in the counter's place, so that no device's name comes together there.
        let mut parts = relative(&if counter.is_some() { format!("{before}1") } else { before })?;
        let mut before = parts.pop().unwrap_or_else(|| "_".to_owned());
        folders.extend(parts);
        let counter = counter.map(|(width, after)| {
            before.truncate(before.strip_suffix('1').map_or(before.len(), str::len));
            (width, cut(without_separators(&after), MOST_AFTER))
        });
        let suffix = cut(without_separators(suffix), MOST_AFTER);
        Ok(Name { folders, before, counter, suffix, extension })
    }
}

impl Name {
    /// The file's name with this number: in the counter's place, or behind the name from 2 on.
    pub(super) fn file(&self, number: u64) -> String {
        let Self { before, counter, suffix, extension, .. } = self;
        match counter {
            Some((width, after)) => format!("{before}{number:0width$}{after}{suffix}.{extension}"),
            None if number <= 1 => format!("{before}{suffix}.{extension}"),
            None => format!("{before}{suffix}-{number}.{extension}"),
        }
    }

    /// The number that a file of this folder has by this name's counter, whatever its extension.
    pub(super) fn number_of(&self, file: &str) -> Option<u64> {
        let digits = file.strip_prefix(&self.before)?;
        let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn parse_token(token: &str) -> Option<Part> {
    let (name, option) = token.split_once(':').map_or((token, None), |(name, option)| (name, Some(option)));
    let number = |default: usize, most: usize| match option {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|number| (1..=most).contains(number)),
    };
    Some(match name {
        "time" => Part::Time(option.unwrap_or(DEFAULT_TIME).to_owned()),
        "prompt" => Part::Prompt(number(DEFAULT_PROMPT, 200)?),
        "counter" => Part::Counter(number(1, 18)?),
        _ if option.is_some() => return None,
        "model_path" => Part::ModelPath,
        "model_name" => Part::ModelName,
        "model_dir" => Part::ModelDir,
        "index" => Part::Index,
        "seed" => Part::Seed,
        "width" => Part::Width,
        "height" => Part::Height,
        "affix" => Part::Affix,
        "job" => Part::Job,
        _ => return None,
    })
}

impl Part {
    fn render(&self, values: &NameValues, picture: &PictureValues<'_>) -> Result<String> {
        let lacking = |what: &str| {
            Error::new(ErrorKind::InvalidInput, format!("the template asks for the {what}, and the job has none"))
        };
        let model = || values.model_path.as_deref().map(model_parts).ok_or_else(|| lacking("model"));
        Ok(match self {
            Self::Text(text) => text.clone(),
            Self::ModelPath => model()?.join("/"),
            Self::ModelName => model()?.pop().unwrap_or_default(),
            Self::ModelDir => {
                let mut parts = model()?;
                parts.pop();
                parts.join("/")
            }
            Self::Index => values.index.unwrap_or(0).to_string(),
            Self::Seed => values.seed.ok_or_else(|| lacking("seed"))?.to_string(),
            Self::Width => picture.width.to_string(),
            Self::Height => picture.height.to_string(),
            Self::Time(pattern) => without_separators(&picture.time.format(pattern)),
            Self::Prompt(most) => {
                let prompt = values.prompt.as_deref().ok_or_else(|| lacking("prompt"))?;
                let words: Vec<_> = prompt.split_whitespace().collect();
                without_separators(words.join(" ").chars().take(*most).collect::<String>().trim_end())
            }
            // It has no value before the folder is looked at.
            Self::Counter(_) => String::new(),
            Self::Affix => without_separators(picture.affix),
            Self::Job => picture.job.to_owned(),
        })
    }
}

/// A model's path in safe parts, without the extension of a weights file.
fn model_parts(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path_value(path);
    if let Some(name) = parts.last_mut()
        && let Some((stem, extension)) = name.rsplit_once('.')
        && matches!(extension.to_ascii_lowercase().as_str(), "safetensors" | "ckpt" | "pt" | "pth" | "bin" | "gguf")
    {
        *name = stem.to_owned();
    }
    parts
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

#[cfg(test)]
mod tests;
