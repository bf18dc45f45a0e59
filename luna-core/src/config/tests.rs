use super::*;
use crate::{ErrorKind, Result};
use std::{collections::BTreeSet, path::Path};

fn file(text: &str) -> Result<Config> {
    Ok(Config::default().over(Source::File("luna.toml".into()), Layer::parse(text, Path::new("/etc/luna/luna.toml"))?))
}

fn environment(variables: &[(&str, &str)]) -> Layer {
    let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Layer::of_variables(find, |text| text.split(':').map(str::to_owned).collect())
}

#[test]
fn the_table_is_sound() {
    let mut names = BTreeSet::new();
    for entry in keys::ENTRIES {
        assert!(names.insert(entry.name) && names.insert(entry.variable) && names.insert(entry.option), "{entry:?}");
        assert!(entry.variable.starts_with("LUNA_") && entry.option.starts_with("--"), "{entry:?}");
        assert!(!entry.meaning().ends_with('.') && entry.meaning().len() > 10, "{entry:?}");
        assert!(!entry.place().0.is_empty() && !entry.place().1.contains('.'), "{entry:?}");
        match entry.usual {
            Usual::Is("") => assert!(entry.list, "{entry:?}"),
            Usual::Is(text) => entry.check(text).unwrap(),
            Usual::Told(words) => assert!(words.len() > 5 && !entry.list, "{entry:?}"),
        }
    }
    for (name, key) in keys::WORKERS {
        assert_eq!(key.entry.name, format!("pools.{name}"));
    }
    assert_eq!(table().lines().count(), keys::ENTRIES.len() + 2);
}

#[test]
fn the_environment_is_stronger_than_the_file_and_both_than_the_default() {
    let config = file("[daemon]\nqueue = 7\nidle = 3\n[models]\nroots = [\"models\", \"/srv\"]").unwrap();
    assert_eq!(config.get(&keys::QUEUE).unwrap().get(), 7);
    assert_eq!(config.list(&keys::MODEL_ROOTS).unwrap(), [Path::new("/etc/luna/models"), Path::new("/srv")]);
    let config = config.over(Source::Environment, environment(&[("LUNA_QUEUE", "9"), ("LUNA_MODEL_ROOTS", "/a:/b")]));
    assert_eq!(config.get(&keys::QUEUE).unwrap().get(), 9);
    assert_eq!(config.list(&keys::MODEL_ROOTS).unwrap(), [Path::new("/a"), Path::new("/b")]);
    assert_eq!(config.get(&keys::IDLE).unwrap(), Seconds(3));
    assert_eq!(config.get(&keys::DRAIN).unwrap(), Seconds(30));
    assert_eq!(config.shown(&keys::QUEUE.entry), (vec!["9"], Some(&Source::Environment)));
    assert_eq!(config.shown(&keys::IDLE.entry), (vec!["3"], Some(&Source::File("luna.toml".into()))));
    assert_eq!(config.shown(&keys::DRAIN.entry), (vec!["30"], None));
    assert_eq!(config.shown(&keys::THREADS.entry), (vec![], None));
}

#[test]
fn paths_are_relative_to_the_file_and_urls_to_nothing() {
    for (told, meant) in [("out", "/etc/luna/out"), ("/out", "/out"), ("s3://bucket/out", "s3://bucket/out")] {
        let config = file(&format!("output.folder = \"{told}\"")).unwrap();
        assert_eq!(config.get(&keys::OUTPUT).unwrap(), Path::new(meant));
    }
}

#[test]
fn every_type_is_read_from_a_file() {
    let config = file(
        "compute.threads = 3\ncompute.device = \"cuda:1\"\nmodels.memory = \"1.5 GB\"\n\
         daemon.deny_unload = true\npools.vae = \"2..8\"\npools.text = 3\nwatch.listen = \"off\"\n\
         log = { level = \"debug\", format = \"json\" }",
    )
    .unwrap();
    assert_eq!(config.get(&keys::THREADS).unwrap().get(), 3);
    assert_eq!(config.get(&keys::DEVICE).unwrap(), crate::Device::Cuda(1));
    assert_eq!(config.get(&keys::MODEL_MEMORY).unwrap(), Bytes(1_500_000_000));
    assert!(config.get(&keys::DENY_UNLOAD).unwrap() && !config.get(&keys::DENY_SHUTDOWN).unwrap());
    assert_eq!(config.get(&keys::VAE_WORKERS).unwrap(), Workers(2..=8));
    assert_eq!(config.get(&keys::TEXT_WORKERS).unwrap(), Workers(3..=3));
    assert_eq!(config.get(&keys::WATCH_LISTEN).unwrap(), WatchAddress::Off);
    assert_eq!(config.get(&keys::LOG_LEVEL).unwrap(), LogLevel::Debug);
    assert_eq!(config.get(&keys::LOG_FORMAT).unwrap(), LogFormat::Json);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_and_the_line() {
    for (text, line, near) in [
        ("[daemon]\n\nlisten = \"127.0.0.1:1\"\nqeue = 3", 4, "`daemon.queue`"),
        ("[deamon]\nlisten = \"127.0.0.1:1\"", 2, "`daemon.listen`"),
        ("listen = \"127.0.0.1:1\"", 1, "`daemon.listen`"),
        ("[pools]\nvea = \"1..2\"", 2, "`pools.vae`"),
        ("[models]\nrots = []", 2, "`models.roots`"),
        ("[nothing]", 1, "config show"),
        ("[a.b.c]\nxyzzy_plugh = 1", 2, "config show"),
    ] {
        let error = file(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        let words = error.to_string();
        assert!(words.contains(&format!("luna.toml:{line}")) && words.contains(near), "{text}: {words}");
    }
}

#[test]
fn wrong_values_are_refused_with_the_line_and_what_was_expected() {
    for (text, expected) in [
        ("daemon.queue = 0", "at least 1"),
        ("daemon.queue = \"many\"", "many"),
        ("daemon.queue = [1]", "a single value"),
        ("daemon.listen = \"localhost\"", "127.0.0.1"),
        ("models.roots = [[\"a\"]]", "a list of texts"),
        ("models.roots = [\"\"]", "a path"),
        ("models.memory = \"much\"", "2GiB"),
        ("pools.vae = \"3..2\"", "1..4"),
        ("pools.vae = \"1..99999\"", "1024"),
        ("daemon.deny_unload = \"perhaps\"", "true or false"),
        ("daemon.idle = -1", "seconds"),
        ("compute.precision = \"f64\"", "bf16"),
        ("log.level = 3", "debug"),
        ("daemon.queue = 1\ndaemon.queue = 2", "luna.toml:2"),
        ("daemon.queue = ", "luna.toml:1"),
        ("\u{0}", "luna.toml:1"),
    ] {
        let words = file(text).unwrap_err().to_string();
        assert!(words.contains(expected), "{text}: {words}");
    }
}

#[test]
fn a_wrong_variable_is_named_and_disturbs_only_who_asks_for_it() {
    let config = Config::default().over(Source::Environment, environment(&[("LUNA_QUEUE", "0"), ("LUNA_IDLE", "")]));
    assert_eq!(config.get(&keys::IDLE).unwrap(), Seconds(60));
    for error in [config.get(&keys::QUEUE).unwrap_err(), config.check().unwrap_err()] {
        let words = error.to_string();
        assert!(words.contains("LUNA_QUEUE") && words.contains("`0`"), "{words}");
    }
}

#[test]
fn sizes_in_bytes_are_read() {
    for (text, bytes) in
        [("1", 1), ("2GiB", 2 << 30), ("700m", 700 << 20), ("1.5 GB", 1_500_000_000), ("64KiB", 64 << 10), ("12b", 12)]
    {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
    for wrong in ["", "0", "-1", "GiB", "2 parsecs", "1e300", "nan", "inf"] {
        assert!(parse_bytes(wrong).is_err(), "{wrong}");
    }
}
