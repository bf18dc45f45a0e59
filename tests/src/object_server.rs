//! A small S3 server on a free port of this machine, for tests: one bucket in memory; objects are put (also only where
//! none is), got, looked at, listed and deleted. Faults can be ordered. Signatures are not checked, but must be there.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What goes wrong with a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503, nothing taken.
    Unavailable,
    /// 403.
    Forbidden,
    /// The object is taken, and the connection ends without an answer.
    TakenWithoutAnswer,
    /// The connection ends without an answer, nothing taken.
    Cut,
}

/// An object as the server keeps it.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Headers that were put with it: its type and metadata.
    pub headers: Vec<(String, String)>,
    /// How often it was put.
    pub puts: usize,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    faults: VecDeque<Fault>,
}

/// The server; it runs until the process ends.
#[derive(Clone)]
pub struct ObjectServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    key: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl ObjectServer {
    /// Listens on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self { address: listener.local_addr().expect("a port"), state: Arc::default() };
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Orders faults for the next puts.
    pub fn order(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    /// All objects by key.
    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.state.lock().unwrap().objects.clone()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        let mut output = stream;
        loop {
            let request = read(&mut input).ok()??;
            let answer = self.answer(&request);
            output.write_all(&answer?).ok()?;
        }
    }

    /// The answer, or `None` to hang up.
    fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        if !request.headers.get("authorization").is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 ")) {
            return Some(response(403, &[], b"<Error><Code>AccessDenied</Code></Error>", true));
        }
        let mut state = self.state.lock().unwrap();
        let found = state.objects.get(&request.key).cloned();
        match request.method.as_str() {
            "PUT" => {
                let fault = state.faults.pop_front();
                match fault {
                    Some(Fault::Unavailable) => {
                        return Some(response(503, &[], b"<Error><Code>SlowDown</Code></Error>", true));
                    }
                    Some(Fault::Forbidden) => {
                        return Some(response(403, &[], b"<Error><Code>AccessDenied</Code></Error>", true));
                    }
                    Some(Fault::Cut) => return None,
                    Some(Fault::TakenWithoutAnswer) | None => {}
                }
                if found.is_some() && request.headers.get("if-none-match").is_some_and(|value| value == "*") {
                    return Some(response(412, &[], b"<Error><Code>PreconditionFailed</Code></Error>", true));
                }
                let kept = |name: &str| name == "content-type" || name.starts_with("x-amz-meta-");
                let headers = request.headers.iter().filter(|(name, _)| kept(name));
                let object = Object {
                    bytes: request.body.clone(),
                    headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
                    puts: found.map_or(0, |object| object.puts) + 1,
                };
                state.objects.insert(request.key.clone(), object);
                fault.is_none().then(|| response(200, &[("etag".to_owned(), "\"1\"".to_owned())], b"", true))
            }
            "GET" if request.key.is_empty() => Some(response(200, &[], list(&state, &request.query).as_bytes(), true)),
            "GET" | "HEAD" => match found {
                Some(object) => {
                    let mut headers = object.headers;
                    headers.push(("etag".to_owned(), "\"1\"".to_owned()));
                    headers.push(("last-modified".to_owned(), "Sat, 01 Jan 2000 00:00:00 GMT".to_owned()));
                    Some(response(200, &headers, &object.bytes, request.method == "GET"))
                }
                None => Some(response(404, &[], b"<Error><Code>NoSuchKey</Code></Error>", request.method == "GET")),
            },
            "DELETE" => {
                state.objects.remove(&request.key);
                Some(response(204, &[], b"", true))
            }
            _ => Some(response(400, &[], b"", true)),
        }
    }
}

fn read(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    // The path is /BUCKET/KEY.
    let key = path.trim_start_matches('/').split_once('/').map_or(String::new(), |(_, key)| decode(key));
    Ok(Some(Request { method, key, query: query.to_owned(), headers, body }))
}

fn response(status: u16, headers: &[(String, String)], body: &[u8], with_body: bool) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        out += &format!("{name}: {value}\r\n");
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    if with_body && status != 204 {
        out.extend(body);
    }
    out
}

/// The keys right below `prefix`, as ListObjectsV2 tells them.
fn list(state: &State, query: &str) -> String {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).map(decode).unwrap_or_default();
    let keys = state.objects.keys().filter(|key| key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')));
    let contents = keys.map(|key| {
        let key = key.replace('&', "&amp;").replace('<', "&lt;");
        format!(
            "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2000-01-01T00:00:00.000Z</LastModified></Contents>"
        )
    });
    format!(
        "<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        contents.collect::<Vec<_>>().concat()
    )
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let pair = (byte == b'%').then(|| [bytes.next(), bytes.next()]);
        let decoded = pair.and_then(|[high, low]| {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            Some((digit(high)? * 16 + digit(low)?) as u8)
        });
        out.push(decoded.unwrap_or(byte));
    }
    String::from_utf8_lossy(&out).into_owned()
}
