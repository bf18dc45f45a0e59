//! The client of PROTOCOL.md, as it stands there.

use super::Server;
use luna_tests::workspace;
use std::process::Command;

#[test]
fn the_documents_python_client_works() {
    let server = Server::start("");
    let text = workspace::text("PROTOCOL.md");
    let code = text.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let port = server.address.rsplit(':').next().unwrap();
    let output = Command::new("python3").args(["-c", code, port]).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "True\nAutoencoderKL [1, 16, 2, 3]\n[1, 16, 24, 3]\n", "{wrong}");
}
