//! The page for people. Enters: nothing. Leaves: one document that needs nothing from elsewhere and is told so: the browser
//! loads nothing for it, and runs no script but its own.

use super::http::Answer;
use rand::Rng;

const DOCUMENT: &str = include_str!("page/dashboard.html");
const STYLE: &str = include_str!("page/dashboard.css");
const SCRIPT: &str = include_str!("page/dashboard.js");

/// The page, with its style and script in it.
pub fn dashboard() -> Answer {
    // Only what bears this number runs.
    let nonce = format!("{:032x}", rand::rng().random::<u128>());
    let body =
        DOCUMENT.replace("/* style */", STYLE).replace("/* script */", SCRIPT).replace("{nonce}", &nonce).into_bytes();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Answer { status: 200, kind: "text/html; charset=utf-8", fields: Vec::new(), body }
        .with("Content-Security-Policy", policy)
        .with("X-Frame-Options", "DENY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        let answer = dashboard();
        let page = String::from_utf8(answer.body).unwrap();
        assert!(page.contains("new WebSocket(") && page.contains("prefers-color-scheme"));
        for left in ["/* style */", "/* script */", "{nonce}", "src=", "@import", "url(", "//cdn", "https://", "fetch("]
        {
            assert!(!page.contains(left), "the page has {left}");
        }
        assert_ne!(page, String::from_utf8(dashboard().body).unwrap(), "each page has a number of its own");
    }
}
