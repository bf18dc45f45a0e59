//! Who may look. Enters: a request, and the address that it came in at. Leaves: nothing, or a refusal.
//!
//! A page of another site that a browser shows must not see the daemon. DNS rebinding lends such a page a host name of its
//! own that means this machine: so only the names that this machine has are answered. A script of a page says where it comes
//! from: so that must be the page that was loaded from here.

use super::http::{Refusal, Request};
use crate::settings::WatchSettings;
use std::net::{IpAddr, SocketAddr};

/// Whether a request may be answered.
///
/// # Errors
/// 400, 421 or 403.
pub fn check(request: &Request, at: SocketAddr, settings: &WatchSettings) -> Result<(), Refusal> {
    let host = request.field("host")?.ok_or(Refusal::new(400, "the request names no host"))?;
    if !is_ours(host, at.ip(), &settings.hosts) {
        return Err(Refusal::new(421, "the daemon is not known by this name; `--watch-host NAME` allows one"));
    }
    match request.field("origin")? {
        None => Ok(()),
        Some(origin) if is_of(origin, host) => Ok(()),
        Some(_) => Err(Refusal::new(403, "pages of other sites may not look here")),
    }
}

/// Whether a `Host` means this machine by a name that nobody else can give it: its own address, `localhost`, or a name from
/// the settings. The port may be another one, as behind a tunnel.
fn is_ours(host: &str, at: IpAddr, names: &[String]) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return address.is_loopback() || address.to_canonical() == at.to_canonical();
    }
    name.eq_ignore_ascii_case("localhost") || names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.rsplit_once(':') {
        // The colons within an IPv6 address.
        Some((_, rest)) if rest.contains(']') => (host, None),
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (fits && !name.is_empty()).then_some(name)
}

/// Whether an `Origin` is the site of this host.
fn is_of(origin: &str, host: &str) -> bool {
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    site.is_some_and(|site| site.eq_ignore_ascii_case(host))
}

/// Whether a request brings the token, as a bearer or as the password that a browser asks its user for.
///
/// # Errors
/// 401.
pub fn authorize(request: &Request, token: Option<&blake3::Hash>) -> Result<(), Refusal> {
    let Some(token) = token else { return Ok(()) };
    let given = request.field("authorization")?.and_then(|text| {
        let (scheme, value) = text.split_once(' ')?;
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(value.trim().as_bytes().to_vec()),
            "basic" => {
                let pair = data_encoding::BASE64.decode(value.trim().as_bytes()).ok()?;
                let colon = pair.iter().position(|&byte| byte == b':')?;
                Some(pair[colon + 1..].to_vec())
            }
            _ => None,
        }
    });
    // Digests compare in constant time.
    match given {
        Some(given) if blake3::hash(&given) == *token => Ok(()),
        _ => Err(Refusal::new(401, "the daemon asks for its token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &str) -> Request {
        Request::parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()).unwrap().unwrap()
    }

    fn status(fields: &str, at: &str) -> Option<u16> {
        let settings =
            WatchSettings { listen: at.parse().unwrap(), hosts: vec!["luna.example".to_owned()], connections: 1 };
        check(&request(fields), at.parse().unwrap(), &settings).err().map(|refusal| refusal.status)
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["127.0.0.1:19284", "localhost", "LocalHost:8080", "[::1]:19284", "luna.example", "127.0.0.2"] {
            assert_eq!(status(&format!("Host: {host}\r\n"), "127.0.0.1:19284"), None, "{host}");
        }
        assert_eq!(status("Host: 192.0.2.7:19284\r\n", "192.0.2.7:19284"), None);
        assert_eq!(status("Host: 192.0.2.7\r\n", "[::ffff:192.0.2.7]:19284"), None);
        for host in [
            "evil.example:19284",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.7",
            "localhost:x",
            "localhost.",
            ":80",
            "",
            "luna.example.evil",
            "user@localhost",
        ] {
            assert_eq!(status(&format!("Host: {host}\r\n"), "127.0.0.1:19284"), Some(421), "{host}");
        }
        assert_eq!(status("", "127.0.0.1:19284"), Some(400));
        assert_eq!(status("Host: localhost\r\nHost: localhost\r\n", "127.0.0.1:19284"), Some(400));
    }

    #[test]
    fn only_scripts_of_this_page_are_answered() {
        let origin =
            |origin: &str| status(&format!("Host: localhost:19284\r\nOrigin: {origin}\r\n"), "127.0.0.1:19284");
        assert_eq!(origin("http://localhost:19284"), None);
        assert_eq!(origin("https://localhost:19284"), None);
        for other in [
            "http://localhost:3000",
            "http://evil.example",
            "null",
            "http://localhost:19284.evil.example",
            "localhost:19284",
            "",
        ] {
            assert_eq!(origin(other), Some(403), "{other}");
        }
    }

    #[test]
    fn the_token_is_a_bearer_or_a_password() {
        let token = blake3::hash(b"0123456789abcdef");
        let ask = |field: &str| authorize(&request(field), Some(&token)).is_ok();
        assert!(ask("Authorization: Bearer 0123456789abcdef\r\n"));
        assert!(ask("Authorization: basic dXNlcjowMTIzNDU2Nzg5YWJjZGVm\r\n"));
        for wrong in
            ["", "Authorization: Bearer 0123456789abcdeg\r\n", "Authorization: Basic ###\r\n", "Authorization: x\r\n"]
        {
            assert!(!ask(wrong), "{wrong}");
        }
        assert!(authorize(&request(""), None).is_ok());
    }
}
