//! Settings, in lines that are a configuration file themselves.

use crate::commands::{ConfigCheckOutcome, ConfigOutcome, SettingOutcome};
use std::io::{self, Write};

/// Every setting with its value; one whose default is decided later as a comment.
pub fn show(out: &mut impl Write, outcome: &ConfigOutcome) -> io::Result<()> {
    match (&outcome.file, &outcome.usual_file) {
        (Some(file), _) => writeln!(out, "# read from {}", file.display())?,
        (None, Some(file)) => writeln!(out, "# no file; it is looked for at {}", file.display())?,
        (None, None) => writeln!(out, "# no file, and no place to look for one")?,
    }
    let mut section = "";
    for setting in &outcome.settings {
        let (of, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if of != section {
            section = of;
            writeln!(out, "\n[{section}]")?;
        }
        writeln!(out, "# {}", setting.meaning)?;
        match (setting.values.as_slice(), setting.list) {
            ([], false) => writeln!(out, "# {key} =  # {}", setting.default)?,
            (values, list) => writeln!(out, "{key} = {}  # {}", value(values, list), source(setting))?,
        }
    }
    Ok(())
}

pub fn checked(out: &mut impl Write, outcome: &ConfigCheckOutcome) -> io::Result<()> {
    match &outcome.file {
        Some(file) => writeln!(out, "{}: {} settings, all right", file.display(), outcome.settings),
        None => writeln!(out, "no configuration file; the environment is all right"),
    }
}

fn source(setting: &SettingOutcome) -> String {
    match setting.source.as_str() {
        "environment" => setting.variable.to_owned(),
        source => source.to_owned(),
    }
}

fn value(values: &[String], list: bool) -> String {
    if list {
        let items: Vec<_> = values.iter().map(|text| quoted(text)).collect();
        return format!("[{}]", items.join(", "));
    }
    let text = values.first().map_or("", String::as_str);
    let plain = matches!(text, "true" | "false") || (!text.starts_with('0') && text.parse::<u32>().is_ok());
    if plain { text.to_owned() } else { quoted(text) }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use luna_core::config::{Config, Layer, keys};

    #[test]
    fn what_is_shown_is_a_configuration_again() {
        let hostile = "a \"b\" \\c\n\u{7f}";
        let outcome = ConfigOutcome {
            file: None,
            usual_file: None,
            settings: vec![
                setting("models.vae", &[hostile], false),
                setting("models.register", &["x=1", hostile], true),
                setting("daemon.queue", &["7"], false),
                setting("daemon.deny_unload", &["true"], false),
                setting("log.file", &[], false),
            ],
        };
        let mut text = Vec::new();
        show(&mut text, &outcome).unwrap();
        let text = String::from_utf8(text).unwrap();
        let layer = Layer::parse(&text, "luna.toml".as_ref()).unwrap();
        assert_eq!(layer.len(), 4, "{text}");
        let config = Config::default().over(luna_core::config::Source::Environment, layer);
        assert_eq!(config.get(&keys::VAE).unwrap(), hostile);
        assert_eq!(config.list(&keys::MODELS).unwrap(), ["x=1", hostile]);
        assert_eq!(config.get(&keys::QUEUE).unwrap().get(), 7);
    }

    fn setting(key: &'static str, values: &[&str], list: bool) -> SettingOutcome {
        SettingOutcome {
            key,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            source: "default".to_owned(),
            default: "none",
            meaning: "x",
            list,
            option: "",
            variable: "",
        }
    }
}
