//! The page's own script, run by a JavaScript engine on what a live daemon says. A browser is not needed; what one makes of
//! the page is looked at in `browser.rs`.

use super::{
    Server,
    watch::{ask, get, listen, next_of, work},
};
use rquickjs::{CatchResultExt, Context, Function, Runtime};
use serde_json::{Value, json};

/// As much of a browser as the script asks for: elements by their ids, one socket, a clock that is wound by hand.
const BROWSER: &str = r#"
var elements = {}, sockets = [], sent = [], timers = [];
var document = { getElementById: (id) => elements[id] ??= { innerHTML: "", textContent: "", className: "" } };
var location = { protocol: "http:", host: "localhost:19284" };
var setTimeout = (run, pause) => timers.push({ run, pause });
class WebSocket {
    constructor(url) { this.url = url; sockets.push(this); }
    send(text) { sent.push(JSON.parse(text).type); }
}
"#;

struct Page {
    context: Context,
    /// The ids that the document has.
    ids: Vec<String>,
}

impl Page {
    /// The script of the page as the daemon serves it.
    fn open(server: &Server) -> Self {
        let (_, _, document) = get(server, "/", "");
        let script = document.split("<script").nth(1).and_then(|rest| rest.split_once('>')).unwrap().1;
        let script = script.split("</script>").next().unwrap();
        let ids = document.split("<script").next().unwrap().split(" id=\"").skip(1);
        let ids = ids.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
        let runtime = Runtime::new().unwrap();
        let context = Context::full(&runtime).unwrap();
        let page = Self { context, ids };
        page.run(BROWSER);
        page.run(script);
        page
    }

    fn run(&self, code: &str) {
        self.context.with(|context| {
            let outcome: rquickjs::Result<rquickjs::Value> = context.eval(code);
            outcome.catch(&context).unwrap_or_else(|error| panic!("{error}"));
        });
    }

    /// The value of an expression.
    fn value(&self, expression: &str) -> Value {
        self.context.with(|context| {
            let code = format!("(() => JSON.stringify({expression}) ?? 'null')");
            let function: Function = context.eval(code).catch(&context).unwrap_or_else(|error| panic!("{error}"));
            let text: String =
                function.call(()).catch(&context).unwrap_or_else(|error| panic!("{expression}: {error}"));
            serde_json::from_str(&text).unwrap()
        })
    }

    /// The daemon says something.
    fn hear(&self, kind: &str, data: &Value) {
        let message = json!({ "type": kind, "data": data }).to_string();
        self.run(&format!("sockets.at(-1).onmessage({{ data: {} }})", json!(message)));
    }

    fn part(&self, id: &str) -> String {
        assert!(self.ids.iter().any(|known| known == id), "the document has no `{id}`: {:?}", self.ids);
        self.value(&format!("elements[{}].innerHTML", json!(id))).as_str().unwrap().to_owned()
    }
}

#[test]
fn the_pages_script_shows_what_the_daemon_says() {
    let server = Server::start("--pool vae=1..3 --idle 1");
    let mut socket = listen(&server);
    let page = Page::open(&server);
    assert_eq!(page.value("sockets[0].url"), "ws://localhost:19284/");
    page.run("sockets[0].onopen()");
    assert_eq!(page.value("sent"), json!(["get_history", "get_details"]));

    work(&server, 24);
    let scaling = next_of(&mut socket, "scaling");
    // Two more seconds, so that the work is in the history.
    let status = (0..3).map(|_| next_of(&mut socket, "status")).last().unwrap();
    for kind in ["history", "details"] {
        ask(&mut socket, &format!("get_{kind}"));
        page.hear(kind, &next_of(&mut socket, kind));
    }
    page.run("sent.length = 0");
    page.hear("status", &status);
    assert_eq!(page.value("sent"), json!(["get_details"]), "each second it asks for all there is");
    page.hear("scaling", &scaling);

    assert_eq!(page.value("elements.state.textContent"), "ok");
    assert_eq!(page.value("elements.state.className"), "pill on");
    assert!(page.part("about").contains(env!("CARGO_PKG_VERSION")), "{}", page.part("about"));
    assert!(page.part("tiles").contains("MiB") && page.part("tiles").contains("requests per second"));
    for id in ["requests", "latency", "memory"] {
        let plot = page.part(id);
        assert!(plot.contains("<path class=\"k0\" d=\"M") && !plot.contains("NaN"), "{id}: {plot}");
    }
    for pool in ["load", "text", "vae", "vision", "diffusion"] {
        assert!(page.part("pools").contains(&format!("<h3>{pool}<small>")), "{pool}");
    }
    assert!(page.part("models").contains("moonlet") && page.part("commands").contains("vae_encode"));
    let scalings = page.part("scalings");
    assert!(scalings.contains("▲ worker 1 started") && scalings.contains("vae"), "{scalings}");
    assert!(!page.part("saves").is_empty() && !page.part("clients").is_empty());
    let shown = page.value("Object.keys(elements)");
    assert!(shown.as_array().unwrap().iter().all(|id| page.ids.contains(&id.as_str().unwrap().to_owned())), "{shown}");
}

#[test]
fn names_that_clients_give_are_text_on_the_page() {
    let server = Server::start("");
    let hostile = "<img src=x onerror=alert(1)>\"'&";
    let mut settings = luna_core::client::ClientSettings::default();
    settings.name = Some(hostile.to_owned());
    let _client = luna_core::client::Client::connect(server.address.clone(), settings).unwrap();
    let mut socket = listen(&server);
    let page = Page::open(&server);
    page.run("sockets[0].onopen()");
    ask(&mut socket, "get_details");
    let details = next_of(&mut socket, "details");
    assert!(details["snapshot"]["clients"].to_string().contains("onerror"));
    page.hear("details", &details);
    let clients = page.part("clients");
    assert!(
        clients.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;") && !clients.contains("<img"),
        "{clients}"
    );
}

#[test]
fn the_page_comes_back_when_the_daemon_does() {
    let server = Server::start("");
    let page = Page::open(&server);
    page.run("sockets[0].onopen(); sockets[0].onclose()");
    assert_eq!(page.value("[elements.state.textContent, elements.state.className]"), json!(["offline", "pill off"]));
    for _ in 0..8 {
        page.run("timers.at(-1).run(); sockets.at(-1).onclose()");
    }
    let pauses = page.value("timers.map((timer) => timer.pause)");
    let pauses: Vec<u64> = serde_json::from_value(pauses).unwrap();
    assert!(pauses[0] == 500 && pauses.is_sorted() && pauses.last() == Some(&10_000), "{pauses:?}");
    page.run("timers.at(-1).run(); sockets.at(-1).onopen()");
    assert_eq!(page.value("[sent.length, sockets.length]"), json!([4, 10]));
}

#[test]
fn numbers_are_told_in_units_that_people_read() {
    let server = Server::start("");
    let page = Page::open(&server);
    for (expression, told) in [
        ("bytes(0)", "0 B"),
        ("bytes(1536)", "1.50 KiB"),
        ("bytes(3 * 2 ** 30)", "3.00 GiB"),
        ("bytes(null)", "–"),
        ("milliseconds(0.0371)", "37 µs"),
        ("milliseconds(7.25)", "7.3 ms"),
        ("milliseconds(1500)", "1.50 s"),
        ("milliseconds(90000)", "1.5 min"),
        ("duration(0.4)", "0 s"),
        ("duration(59)", "59 s"),
        ("duration(3725)", "1 h 2 min"),
        ("duration(86400)", "1 d"),
        ("String(roundUp(0))", "1"),
        ("String(roundUp(120))", "200"),
        ("bytes(roundUpBytes(300 * 2 ** 20))", "500 MiB"),
        ("bytes(roundUpBytes(600 * 2 ** 20))", "1.00 GiB"),
    ] {
        assert_eq!(page.value(expression), told, "{expression}");
    }
}
