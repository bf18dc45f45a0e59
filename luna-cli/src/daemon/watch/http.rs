//! Just enough of HTTP/1.1: one request a connection, with a head and no body. Enters: bytes of whoever connects. Leaves: a
//! request whose head is no larger than the bounds and came in time, or the status that refuses it; answers as bytes.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

/// The most bytes of a head.
pub const HEAD_BYTES: usize = 8 << 10;
/// The most fields of a head.
const FIELDS: usize = 64;
/// So long and so much is read of what a client still sends when it has its answer.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 64 << 10);

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    fields: Vec<(String, String)>,
    /// What came behind the head.
    pub rest: Vec<u8>,
}

/// Why a request has no other answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub why: &'static str,
}

impl Refusal {
    pub const fn new(status: u16, why: &'static str) -> Self {
        Self { status, why }
    }
}

impl Request {
    /// Reads a head from a stream.
    ///
    /// # Errors
    /// The refusal, or none where nobody is there to read it.
    pub fn read(stream: &mut TcpStream, patience: Duration) -> Result<Self, Option<Refusal>> {
        let until = Instant::now() + patience;
        let mut head = Vec::with_capacity(1024);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Some(Refusal::new(408, "the request did not come in time")));
            }
            stream.set_read_timeout(Some(left)).map_err(|_| None)?;
            let start = head.len();
            head.resize(HEAD_BYTES, 0);
            match stream.read(&mut head[start..]) {
                Ok(0) => return Err(None),
                Ok(read) => head.truncate(start + read),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    head.truncate(start);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    head.truncate(start);
                    continue;
                }
                Err(_) => return Err(None),
            }
            if let Some(request) = Self::parse(&head)? {
                return Ok(request);
            }
            if head.len() >= HEAD_BYTES {
                return Err(Some(Refusal::new(431, "the request's head is too large")));
            }
        }
    }

    /// Reads a head from its bytes; `None` if it is not yet whole.
    ///
    /// # Errors
    /// The refusal.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "the request has too many fields")),
            Err(_) => return Err(Refusal::new(400, "this is no HTTP request")),
        };
        let wrong = Refusal::new(400, "the request's head is wrong");
        let target = request.path.filter(|path| path.starts_with('/')).ok_or(wrong)?;
        let field = |field: &httparse::Header<'_>| {
            let value = std::str::from_utf8(field.value).map_err(|_| wrong)?;
            Ok((field.name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Some(Self {
            method: request.method.unwrap_or_default().to_owned(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            fields: request.headers.iter().map(field).collect::<Result<_, _>>()?,
            rest: bytes[length..].to_vec(),
        }))
    }

    /// The value of a field that may stand once.
    ///
    /// # Errors
    /// A refusal where it stands twice: two readers could take different ones.
    pub fn field(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Refusal::new(400, "a field of the request stands twice")),
        }
    }

    /// Whether a field that is a list holds a word, however it is written.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        values.any(|(_, value)| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
    }
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub kind: &'static str,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(status: u16, text: &str) -> Self {
        let body = format!("{text}\n").into_bytes();
        Self { status, kind: "text/plain; charset=utf-8", fields: Vec::new(), body }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Writes it and ends the connection; `body` says whether more than the head is wanted.
    pub fn send(&self, stream: &mut TcpStream, body: bool) -> io::Result<()> {
        let mut text = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n",
            self.status,
            reason(self.status),
            self.kind,
            self.body.len()
        )
        .into_bytes();
        for (name, value) in &self.fields {
            text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        if body {
            text.extend_from_slice(&self.body);
        }
        stream.write_all(&text)?;
        linger(stream)
    }
}

/// Reads a little of what still comes: a connection that is closed with unread bytes loses the answer on its way.
fn linger(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let until = Instant::now() + LINGER.0;
    let (mut rest, mut buffer) = (LINGER.1, [0; 4096]);
    while rest > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => rest = rest.saturating_sub(read),
        }
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Bad Request",
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal { status, why }: Refusal) -> Self {
        let answer = Self::text(status, why);
        match status {
            401 => answer.with("WWW-Authenticate", "Basic realm=\"luna\", charset=\"UTF-8\""),
            405 => answer.with("Allow", "GET, HEAD"),
            426 => answer.with("Sec-WebSocket-Version", "13"),
            _ => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_whole_or_refused() {
        let text = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nX-List: b, Upgrade\r\n\r\nmore";
        for length in 0..text.len() - 4 {
            assert_eq!(Request::parse(&text[..length]), Ok(None), "{length}");
        }
        let request = Request::parse(text).unwrap().unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.rest.as_slice()),
            ("GET", "/metrics", &b"more"[..])
        );
        assert_eq!(request.field("host"), Ok(Some("a")));
        assert_eq!(request.field("origin"), Ok(None));
        assert!(request.lists("x-list", "upgrade") && !request.lists("x-list", "grade"));
        for (wrong, status) in [
            ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/9\r\n\r\n", 400),
            ("\u{16}\u{3}\u{1}", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ] {
            assert_eq!(Request::parse(wrong.as_bytes()).unwrap_err().status, status, "{wrong:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS + 1));
        assert_eq!(Request::parse(many.as_bytes()).unwrap_err().status, 431);
        let twice = Request::parse(b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n").unwrap().unwrap();
        assert_eq!(twice.field("host").unwrap_err().status, 400);
    }
}
