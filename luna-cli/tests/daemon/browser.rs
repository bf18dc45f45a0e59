//! The page in a real browser, which not every machine has: named in `LUNA_TEST_BROWSER`, or `chromium` on the path.
//!
//! `cargo test --workspace --test daemon -- --ignored browser`

use super::{Server, watch::work};
use luna_core::{Limits, picture::read_picture};
use std::{
    path::Path,
    process::{Command, Output},
};

/// Lets a headless Chromium look at the page for some seconds of its own clock.
fn browse(server: &Server, folder: &Path, options: &[&str]) -> Output {
    let browser = std::env::var_os("LUNA_TEST_BROWSER").unwrap_or_else(|| "chromium".into());
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=6000", &profile])
        .args(["--enable-logging=stderr", "--window-size=1200,1400"])
        .args(options)
        .arg(format!("http://{}/", server.watch))
        .output()
        .expect("a Chromium; LUNA_TEST_BROWSER names one");
    // What the page's own policy forbids, and errors of its script, are told there.
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !log.contains("CONSOLE"), "{log}");
    output
}

#[test]
#[ignore = "needs a Chromium"]
fn a_browser_shows_the_page_in_light_and_in_dark() {
    let (server, folder) = (Server::start(""), tempfile::tempdir().unwrap());
    work(&server, 3);
    let document = String::from_utf8(browse(&server, folder.path(), &["--dump-dom"]).stdout).unwrap();
    let shown = document.split("<script").next().unwrap();
    for part in [r#"id="state" class="pill on""#, "moonlet", "vae_encode", "<path class=\"k0\" d=\"M"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(!shown.contains("NaN") && !shown.contains("undefined"), "{shown}");
    let [dark, light] = [0, 1].map(|scheme| {
        let path = folder.path().join(format!("{scheme}.png"));
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        browse(&server, folder.path(), &[&scheme, &format!("--screenshot={}", path.display())]);
        let seen = read_picture(&path, &Limits::default()).unwrap();
        seen.data().iter().sum::<f32>() / seen.data().len() as f32
    });
    assert!(dark < 0.25 && light > 0.75, "brightness {dark} in the dark, {light} in the light");
}
