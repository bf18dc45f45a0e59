use super::*;
use proptest::prelude::*;
use std::time::{Duration, UNIX_EPOCH};

fn values() -> NameValues {
    NameValues {
        model_path: Some("sdxl\\anime/base v1.0.safetensors".to_owned()),
        index: Some(7),
        seed: Some(42),
        prompt: Some("a moonlit  lake,\nby night: 50%/50% <lora:x>".to_owned()),
    }
}

fn picture() -> PictureValues<'static> {
    let time = Timestamp::new(UNIX_EPOCH + Duration::from_secs(1_000_000_000), 0);
    PictureValues { time, job: "00ff", affix: "RAW", width: 1024, height: 768 }
}

fn name(template: &str) -> Result<Name> {
    Template::parse(template)?.render(&values(), &picture())?.into_name(Vec::new(), "", "png")
}

#[test]
fn every_token_gets_its_value() {
    for (template, file) in [
        ("%model_path%", "sdxl/anime/base v1.0.png"),
        ("%model_dir%/x", "sdxl/anime/x.png"),
        ("%model_name%_%index%_%seed%", "base v1.0_7_42.png"),
        ("%width%x%height%", "1024x768.png"),
        ("%time:YYYY-mm-dd.HH.MM.SS%", "2001-09-09.01.46.40.png"),
        ("%prompt:15%", "a moonlit lake,.png"),
        ("%prompt%", "a moonlit lake, by night_ 50%_50% _lora_x_.png"),
        ("%affix%-%job%", "RAW-00ff.png"),
        ("100%%", "100%.png"),
        ("a/b\\c", "a/b/c.png"),
        ("%counter:5%", "00003.png"),
        ("d/%seed%_%counter:3%_%affix%", "d/42_003_RAW.png"),
    ] {
        let name = name(template).unwrap();
        let number = if name.counter.is_some() { 3 } else { 1 };
        let path = name.folders.iter().cloned().chain([name.file(number)]).collect::<Vec<_>>().join("/");
        assert_eq!(path, file, "{template}");
    }
}

#[test]
fn a_taken_name_gets_a_number_behind_its_suffix() {
    let name = Template::parse("x").unwrap().render(&values(), &picture()).unwrap();
    let name = name.into_name(vec!["sub".to_owned()], "_RAW", "png").unwrap();
    assert_eq!([name.file(1), name.file(2)], ["x_RAW.png", "x_RAW-2.png"]);
}

#[test]
fn numbers_are_found_again_in_files_of_any_extension() {
    let name = name("%seed%_%counter:5%_%affix%").unwrap();
    assert_eq!(name.number_of(&name.file(17)), Some(17));
    assert_eq!(name.number_of("42_00018_OTHER.webp"), Some(18));
    assert_eq!(name.number_of("43_00018.png"), None);
}

#[test]
fn wrong_templates_are_refused() {
    for template in [
        "%sead%",
        "50%",
        "%counter:0%",
        "%counter:19%",
        "%prompt:x%",
        "%counter%/x",
        "%counter%%counter%",
        "../x",
        "/x",
        "C:x",
        "x/",
        "",
        "nul",
        "COM%counter%",
        "%seed:3%",
        "%model_dir%/../../x",
    ] {
        let error = name(template).expect_err(template);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{template}: {error}");
    }
}

#[test]
fn values_that_a_job_lacks_are_named() {
    for (template, what) in [("%seed%", "seed"), ("%prompt%", "prompt"), ("%model_name%", "model")] {
        let error = Template::parse(template).unwrap().render(&NameValues::default(), &picture()).unwrap_err();
        assert!(error.to_string().contains(&format!("the {what}")), "{error}");
    }
}

#[test]
fn a_model_path_cannot_lead_out() {
    let values = NameValues { model_path: Some("../../etc/x.ckpt".to_owned()), ..NameValues::default() };
    let rendered = Template::parse("%model_path%").unwrap().render(&values, &picture()).unwrap();
    assert!(rendered.into_name(Vec::new(), "", "png").is_err());
}

proptest! {
    #[test]
    fn no_values_lead_out_or_grow_too_long(
        prompt in any::<String>(), model in any::<String>(), affix in any::<String>(), number in 0u64..1_000_000_000,
    ) {
        let values = NameValues { prompt: Some(prompt), model_path: Some(model), ..values() };
        let picture = PictureValues { affix: &affix, ..picture() };
        for template in ["%prompt%", "%affix%/%prompt:200%_%counter:5%_%affix%", "%model_path%", "%model_dir%/%counter%"] {
            let rendered = Template::parse(template).unwrap().render(&values, &picture).unwrap();
            let Ok(name) = rendered.into_name(vec!["out".to_owned()], &format!("_{affix}"), "png") else { continue };
            let file = name.file(number);
            prop_assert!(file.len() <= 255, "{} bytes", file.len());
            for part in name.folders.iter().chain([&file]) {
                prop_assert!(!part.contains(['/', '\\', '\0']) && !part.is_empty() && part != ".." && part != ".");
            }
            // What follows the counter may begin with a digit, which only makes the number found too large.
            if name.counter.as_ref().is_some_and(|(_, after)| after.starts_with('_')) {
                prop_assert_eq!(name.number_of(&file), Some(number));
            }
        }
    }

    #[test]
    fn parsing_never_panics_and_keeps_the_text(text in any::<String>()) {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.text(), text);
        }
    }
}
