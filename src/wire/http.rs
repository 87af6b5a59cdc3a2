//! HTTP/1.1 as the WireServer and the metadata service speak it.
//!
//! One request at a time over one connection, no TLS, no redirects, no proxies, no content codings.
//! Heads are parsed by `httparse`; what frames the body (RFC 9112, 6.3) is decided here.

use alloc::string::String;
use core::fmt::Write as _;
use core::ops::Range;

/// The largest request we make: a health report with a description of 4096 bytes.
const MAX_REQUEST: usize = 8192;
/// No server that we talk to sends nearly as many header fields.
const MAX_FIELDS: usize = 48;

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Request(String);

impl Request {
    /// Writes a request; `None` if it is longer than 8 KiB.
    ///
    /// `fields` are whole header fields without the line end. A body is announced by its length.
    pub fn new(
        method: &str,
        path: &str,
        host: core::net::Ipv4Addr,
        fields: &[&str],
        body: Option<&str>,
    ) -> Option<Self> {
        let mut request = String::new();
        write!(
            request,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}/{}\r\n",
            crate::NAME,
            crate::VERSION
        )
        .ok()?;
        for field in fields {
            request.push_str(field);
            request.push_str("\r\n");
        }
        let body = match body {
            Some(body) => {
                write!(request, "Content-Length: {}\r\n", body.len()).ok()?;
                body
            }
            None => "",
        };
        if request.len().saturating_add(body.len()) > MAX_REQUEST {
            return None;
        }
        request.push_str("\r\n");
        request.push_str(body);
        Some(Request(request))
    }

    /// Returns the bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Where the body lies in the buffer that was parsed.
    pub body: Range<usize>,
    /// Tells whether the server is ready for another request on this connection.
    pub keep_alive: bool,
    /// The seconds of `Retry-After`, when it is a number.
    pub retry_after: Option<u32>,
}

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpFault {
    /// It is not HTTP.
    Malformed,
    /// The connection ended in the middle of it.
    Truncated,
    /// It does not fit into the buffer.
    TooLarge,
}

/// Reads a response from what has arrived so far; `Ok(None)` asks for more.
///
/// `ended` tells that nothing more will come. A chunked body is joined in place, so a buffer that
/// gave a response must not be parsed again.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
pub fn parse(buffer: &mut [u8], ended: bool) -> Result<Option<Response>, HttpFault> {
    let more = if ended {
        Err(HttpFault::Truncated)
    } else {
        Ok(None)
    };
    let mut start = 0;
    // Interim responses (1xx) are skipped; a server that sends nothing else is cut short.
    for _ in 0..8 {
        let rest = buffer.get(start..).unwrap_or_default();
        let Some(head) = Head::parse(rest)? else {
            return more;
        };
        let body = start.checked_add(head.length).ok_or(HttpFault::Malformed)?;
        if (100..200).contains(&head.status) {
            start = body;
            continue;
        }
        let end = match head.framing {
            _ if matches!(head.status, 204 | 304) => Some(body),
            Framing::Length(length) => {
                let end = body.checked_add(length).ok_or(HttpFault::TooLarge)?;
                (end <= buffer.len()).then_some(end)
            }
            Framing::Chunked => join_chunks(buffer, body)?,
            Framing::UntilEnd => ended.then_some(buffer.len()),
        };
        let Some(end) = end else { return more };
        return Ok(Some(Response {
            status: head.status,
            body: body..end,
            keep_alive: head.keep_alive && head.framing != Framing::UntilEnd && !ended,
            retry_after: head.retry_after,
        }));
    }
    Err(HttpFault::Malformed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

struct Head {
    length: usize,
    status: u16,
    framing: Framing,
    keep_alive: bool,
    retry_after: Option<u32>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, HttpFault> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HttpFault::Malformed),
        };
        let mut head = Head {
            length,
            status: response.code.ok_or(HttpFault::Malformed)?,
            framing: Framing::UntilEnd,
            keep_alive: response.version == Some(1),
            retry_after: None,
        };
        let mut closes = false;
        for field in response.headers.iter() {
            let value = field.value.trim_ascii();
            let number = core::str::from_utf8(value).unwrap_or("");
            let named = |name: &str| field.name.eq_ignore_ascii_case(name);
            if named("Content-Length") {
                let length = number.parse().map_err(|_| HttpFault::Malformed)?;
                match head.framing {
                    // Two lengths that differ: nobody can tell where the response ends.
                    Framing::Length(other) if other != length => return Err(HttpFault::Malformed),
                    Framing::Chunked => {}
                    _ => head.framing = Framing::Length(length),
                }
            } else if named("Transfer-Encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpFault::Malformed);
                }
                head.framing = Framing::Chunked;
            } else if named("Connection") {
                for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    closes |= word.eq_ignore_ascii_case(b"close");
                    head.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if named("Retry-After") {
                head.retry_after = number.parse().ok();
            }
        }
        head.keep_alive &= !closes;
        Ok(Some(head))
    }
}

/// Joins a chunked body in place and returns its end; `Ok(None)` if the last chunk is missing.
fn join_chunks(buffer: &mut [u8], body: usize) -> Result<Option<usize>, HttpFault> {
    // Look before leaping: nothing is moved until the whole body is there.
    let whole = walk_chunks(buffer, body, &mut |_, _, _| {})?;
    if whole.is_none() {
        return Ok(None);
    }
    let mut end = body;
    walk_chunks(buffer, body, &mut |buffer, from, length| {
        let upto = from.saturating_add(length);
        if upto <= buffer.len() {
            buffer.copy_within(from..upto, end);
            end = end.saturating_add(length);
        }
    })?;
    Ok(Some(end))
}

/// Calls `each` with where a chunk's data starts and how long it is, in order.
fn walk_chunks(
    buffer: &mut [u8],
    mut at: usize,
    each: &mut dyn FnMut(&mut [u8], usize, usize),
) -> Result<Option<()>, HttpFault> {
    loop {
        let rest = buffer.get(at..).unwrap_or_default();
        let (head, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HttpFault::Malformed),
        };
        let size = usize::try_from(size).map_err(|_| HttpFault::TooLarge)?;
        let data = at.checked_add(head).ok_or(HttpFault::TooLarge)?;
        if size == 0 {
            // Trailer fields, which nobody sends, end at an empty line like the head does.
            return Ok(Some(()));
        }
        let end = data.checked_add(size).ok_or(HttpFault::TooLarge)?;
        let next = end.checked_add(2).ok_or(HttpFault::TooLarge)?;
        match buffer.get(end..next) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(HttpFault::Malformed),
        }
        each(buffer, data, size);
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn read(text: &str, ended: bool) -> Result<Option<(u16, Vec<u8>, bool)>, HttpFault> {
        let mut buffer = text.as_bytes().to_vec();
        let response = parse(&mut buffer, ended)?;
        Ok(response.map(|r| (r.status, buffer[r.body].to_vec(), r.keep_alive)))
    }

    #[test]
    fn length_frames_the_body_and_the_connection_stays() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA";
        assert_eq!(read(text, false), Ok(Some((200, b"hello".to_vec(), true))));
    }

    #[test]
    fn every_prefix_of_a_response_asks_for_more() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ] {
            for cut in 0..text.len() - 4 {
                assert_eq!(read(&text[..cut], false), Ok(None), "{cut}");
                assert_eq!(read(&text[..cut], true), Err(HttpFault::Truncated), "{cut}");
            }
        }
    }

    #[test]
    fn chunks_are_joined() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                    3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(read(text, false), Ok(Some((200, b"hello".to_vec(), true))));
    }

    #[test]
    fn end_of_connection_frames_a_body_without_length() {
        let text = "HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello";
        assert_eq!(read(text, false), Ok(None));
        assert_eq!(read(text, true), Ok(Some((200, b"hello".to_vec(), false))));
    }

    #[test]
    fn interim_responses_are_skipped() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(text, false), Ok(Some((201, Vec::new(), true))));
    }

    #[test]
    fn close_is_heeded_in_any_case_and_among_others() {
        for field in ["Connection: close", "connection: Foo, CLOSE"] {
            let text = std::format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{field}\r\n\r\n");
            assert_eq!(read(&text, false), Ok(Some((200, Vec::new(), false))));
        }
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(old, false), Ok(Some((200, Vec::new(), false))));
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhelxx",
        ] {
            assert_eq!(read(text, false), Err(HttpFault::Malformed), "{text}");
        }
    }

    #[test]
    fn a_length_near_the_end_of_numbers_is_no_overflow() {
        let text = std::format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", usize::MAX);
        assert_eq!(read(&text, false), Err(HttpFault::TooLarge));
    }

    #[test]
    fn mutated_responses_never_panic() {
        let good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nRetry-After: 3\r\n\r\n\
                     5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        let mut random = crate::engine::backoff::Random::new(11);
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..=random.bits() % 4 {
                let at = random.bits() as usize % bytes.len();
                bytes[at] = random.bits() as u8;
            }
            bytes.truncate(random.bits() as usize % (bytes.len() + 1));
            let _ = parse(&mut bytes, random.bits().is_multiple_of(2));
        }
    }
}
