//! One HTTP connection as a server sees it: bytes in, bytes out, no transport and no clock.
//!
//! It serves both the platform's own TCP and sockets of the desk's kernel. Follows RFC 9112.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::frame::Mac;
use super::http::{self, Door, Request, Response, State};
use super::journal::Entry;

/// More head than this is refused.
const MAX_HEAD: usize = 16 * 1024;
/// More body than this is refused.
const MAX_BODY: usize = 1024 * 1024;
const MAX_HEADERS: usize = 64;

/// What is to be done with the transport now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send bytes.
    Send(Vec<u8>),
    /// End our half of the connection.
    Close,
    /// Break the connection.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    door: Door,
    mac: Mac,
    peer: SocketAddr,
    /// Breaks the connection at the first byte.
    resets: bool,
    input: Vec<u8>,
    ended: bool,
    steps: VecDeque<(Duration, Step)>,
    /// Nothing more is read: an answer that ends the connection is on its way.
    last: bool,
}

/// What reading the next request came to.
enum Read {
    More,
    Whole(Request),
    Refused(Response),
}

impl Connection {
    pub(super) fn new(door: Door, mac: Mac, peer: SocketAddr, resets: bool) -> Self {
        Self {
            door,
            mac,
            peer,
            resets,
            input: Vec::new(),
            ended: false,
            steps: VecDeque::new(),
            last: false,
        }
    }

    /// Takes bytes of the client.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        if !self.last {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Learns that the client sends no more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// When the next step is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.steps.front().map(|(due, _)| *due)
    }

    /// Works off what has arrived. Requests are answered one after the other, as RFC 9112 (9.3) wants.
    pub(super) fn advance(&mut self, now: Duration, state: &mut State, journal: &mut Vec<Entry>) {
        while self.steps.is_empty() && !self.last {
            if self.resets && !self.input.is_empty() {
                self.finish(now, Step::Reset);
                return;
            }
            match self.read(now) {
                Read::More if self.ended => {
                    if !self.input.is_empty() {
                        self.complain(now, journal, "http: the request ends in the middle".into());
                    }
                    self.finish(now, Step::Close);
                }
                Read::More => return,
                Read::Whole(request) => {
                    let response = http::answer(state, &request);
                    let keep = request.keeps_alive();
                    journal.push(Entry::Request {
                        at: now,
                        mac: self.mac,
                        peer: self.peer,
                        request,
                    });
                    self.respond(now, &response, keep, journal);
                }
                Read::Refused(response) => self.respond(now, &response, false, journal),
            }
        }
    }

    /// Whether nothing will follow, not even the end: a scenario leaves the client without an answer.
    pub(super) fn is_mute(&self) -> bool {
        self.last && self.steps.is_empty()
    }

    /// Takes the next step that is due.
    pub(super) fn step(&mut self, now: Duration) -> Option<Step> {
        if self.next_deadline()? > now {
            return None;
        }
        self.steps.pop_front().map(|(_, step)| step)
    }

    fn finish(&mut self, at: Duration, step: Step) {
        self.steps.push_back((at, step));
        self.last = true;
    }

    fn complain(&self, at: Duration, journal: &mut Vec<Entry>, what: String) {
        journal.push(Entry::Complaint {
            at,
            mac: self.mac,
            what,
        });
    }

    fn read(&mut self, now: Duration) -> Read {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = match parsed.parse(&self.input) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if self.input.len() <= MAX_HEAD => return Read::More,
            Ok(httparse::Status::Partial) => {
                return Read::Refused(Response::refusal(400, "the head is too long"));
            }
            Err(error) => {
                return Read::Refused(Response::refusal(400, format!("not HTTP: {error}")));
            }
        };
        let mut request = Request {
            at: now,
            door: self.door,
            method: parsed.method.unwrap_or_default().into(),
            target: parsed.path.unwrap_or_default().into(),
            version: parsed.version.unwrap_or(1),
            headers: parsed
                .headers
                .iter()
                .map(|header| {
                    (
                        header.name.into(),
                        String::from_utf8_lossy(header.value).into_owned(),
                    )
                })
                .collect(),
            body: Vec::new(),
        };
        let rest = &self.input[head..];
        let used = if let Some(coding) = request.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") || request.header("content-length").is_some()
            {
                return Read::Refused(Response::refusal(400, "the body's length is ambiguous"));
            }
            match dechunk(rest) {
                Ok(Some((body, used))) => {
                    request.body = body;
                    used
                }
                Ok(None) => return Read::More,
                Err(why) => return Read::Refused(Response::refusal(400, why)),
            }
        } else {
            let length = match request.header("content-length").map(str::parse::<usize>) {
                None => 0,
                Some(Ok(length)) if length <= MAX_BODY => length,
                Some(Ok(_)) => {
                    return Read::Refused(Response::refusal(413, "the body is too long"));
                }
                Some(Err(_)) => {
                    return Read::Refused(Response::refusal(400, "Content-Length is no number"));
                }
            };
            let Some(body) = rest.get(..length) else {
                return Read::More;
            };
            request.body = body.to_vec();
            length
        };
        self.input.drain(..head + used);
        Read::Whole(request)
    }

    fn respond(
        &mut self,
        now: Duration,
        response: &Response,
        keep: bool,
        journal: &mut Vec<Entry>,
    ) {
        let play = &response.play;
        for complaint in &response.complaints {
            self.complain(now, journal, complaint.clone());
        }
        journal.push(Entry::Answer {
            at: now,
            mac: self.mac,
            peer: self.peer,
            status: response.status,
            scripted: *play != super::scenario::Play::default(),
        });
        let due = now + play.delay;
        if play.never {
            // The client has to give up; what it sends meanwhile is not read.
            self.last = true;
            return;
        }
        if play.reset {
            return self.finish(due, Step::Reset);
        }
        if play.hangup {
            return self.finish(due, Step::Close);
        }
        if play.garbage {
            self.steps.push_back((
                due,
                Step::Send(b"\x16\x03\x01 this is not HTTP\r\n\r\n".into()),
            ));
            return self.finish(due, Step::Close);
        }
        let keep = keep && !play.close && !play.cut && !play.unsized_body;
        let mut bytes = encode(response, keep);
        if play.cut {
            bytes.truncate(bytes.len() - response.body.len() / 2 - 1);
        }
        let mut due = due;
        if let Some(pause) = play.drip {
            for byte in bytes {
                self.steps.push_back((due, Step::Send(vec![byte])));
                due += pause;
            }
        } else {
            self.steps.push_back((due, Step::Send(bytes)));
        }
        if !keep {
            self.finish(due, Step::Close);
        }
    }
}

/// Writes a response.
fn encode(response: &Response, keep: bool) -> Vec<u8> {
    let Response {
        status,
        headers,
        play,
        ..
    } = response;
    let mut body = response.body.clone();
    if play.bom && !body.is_empty() {
        body.splice(..0, [0xef, 0xbb, 0xbf]);
    }
    let mut out = format!("HTTP/1.1 {status} {}\r\n", http::reason(*status));
    for (name, value) in headers {
        out.extend([name, ": ", value, "\r\n"]);
    }
    out += "Server: Microsoft-IIS/10.0\r\n";
    if !keep {
        out += "Connection: close\r\n";
    }
    let mut out = if play.unsized_body {
        out.into_bytes()
    } else if play.chunked {
        (out + "Transfer-Encoding: chunked\r\n").into_bytes()
    } else {
        (out + &format!("Content-Length: {}\r\n", body.len())).into_bytes()
    };
    out.extend_from_slice(b"\r\n");
    if play.chunked && !play.unsized_body {
        // An odd size, so that chunks end in the middle of everything.
        for chunk in body.chunks(311) {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
    } else {
        out.extend_from_slice(&body);
    }
    out
}

/// Joins the chunks of a body; gives it with the number of bytes read, or nothing when more must come.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a chunk has no size"),
            Ok(httparse::Status::Complete((used, size))) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if size > MAX_BODY - body.len() {
                    return Err("the body is too long");
                }
                let Some(chunk) = bytes.get(at + used..at + used + size + 2) else {
                    return Ok(None);
                };
                // Trailers are not read: a last chunk is followed by an empty line.
                if chunk[size..] != *b"\r\n" {
                    return Err("a chunk does not end where it says");
                }
                body.extend_from_slice(&chunk[..size]);
                at += used + size + 2;
                if size == 0 {
                    return Ok(Some((body, at)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::scenario::Scenario;

    const GET: &[u8] = b"GET /machine?comp=goalstate HTTP/1.1\r\nHost: 168.63.129.16\r\n\
        x-ms-version: 2012-11-30\r\n\r\n";

    struct Bench {
        state: State,
        journal: Vec<Entry>,
        connection: Connection,
    }

    impl Bench {
        fn new(scenario: &str) -> Self {
            let peer = "10.0.0.4:4000".parse().unwrap();
            Self {
                state: State::new(Scenario::parse(scenario).unwrap()),
                journal: Vec::new(),
                connection: Connection::new(Door::Wireserver, [0; 6], peer, false),
            }
        }

        fn steps(&mut self, now: Duration) -> Vec<Step> {
            let mut steps = Vec::new();
            loop {
                self.connection
                    .advance(now, &mut self.state, &mut self.journal);
                match self.connection.step(now) {
                    Some(step) => steps.push(step),
                    None => return steps,
                }
            }
        }

        fn text(&mut self, now: Duration) -> String {
            self.steps(now)
                .into_iter()
                .map(|step| match step {
                    Step::Send(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    Step::Close => "[close]".into(),
                    Step::Reset => "[reset]".into(),
                })
                .collect()
        }
    }

    #[test]
    fn two_requests_in_one_go_get_two_answers_and_the_connection_stays() {
        let mut bench = Bench::new("");
        bench.connection.receive(&[GET, GET].concat());
        let text = bench.text(Duration::ZERO);
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 2);
        assert!(!text.contains("[close]"));
        bench.connection.end();
        assert_eq!(bench.text(Duration::ZERO), "[close]");
    }

    #[test]
    fn a_request_may_come_byte_by_byte() {
        let mut bench = Bench::new("");
        for byte in &GET[..GET.len() - 1] {
            bench.connection.receive(&[*byte]);
            assert_eq!(bench.steps(Duration::ZERO), []);
        }
        bench.connection.receive(b"\n");
        assert!(bench.text(Duration::ZERO).starts_with("HTTP/1.1 200 OK"));
    }

    #[test]
    fn deliveries_are_what_the_scenario_says() {
        let second = Duration::from_secs(1);
        let deliver = |scenario: &str, at: Duration| {
            let mut bench = Bench::new(&format!("goalstate.answers = {scenario}"));
            bench.connection.receive(GET);
            bench.text(Duration::ZERO) + "|" + &bench.text(at)
        };
        assert_eq!(deliver("reset", second), "[reset]|");
        assert_eq!(deliver("hangup", second), "[close]|");
        assert_eq!(deliver("never", second), "|");
        assert!(deliver("delay:1s", second).starts_with("|HTTP/1.1 200 OK"));
        assert!(deliver("cut", second).ends_with("[close]|"));
        assert!(!deliver("cut", second).contains("</GoalState>"));
        let unsized_body = deliver("unsized", second);
        assert!(
            !unsized_body.contains("Content-Length")
                && unsized_body.ends_with("</GoalState>\n[close]|")
        );
        let dripping = deliver("drip:1s", second);
        assert_eq!(dripping, "H|T");
        let chunked = deliver("chunked+bom", second);
        assert!(
            chunked.contains("\r\n137\r\n\u{feff}<?xml") && chunked.ends_with("\r\n0\r\n\r\n|")
        );
    }

    #[test]
    fn a_body_may_come_in_chunks_and_must_end_where_it_says() {
        let body = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        let followed = [body.as_slice(), b"GET /"].concat();
        assert_eq!(dechunk(&followed), Ok(Some((b"abcde".into(), body.len()))));
        assert_eq!(dechunk(&body[..body.len() - 1]), Ok(None));
        assert!(dechunk(b"3\r\nabcd\r\n").is_err());
        assert!(dechunk(b"ffffffffff\r\n").is_err());
    }

    #[test]
    fn nonsense_is_refused_and_closed() {
        let mut bench = Bench::new("");
        bench.connection.receive(b"\x16\x03\x01\x02\x00");
        assert!(bench.text(Duration::ZERO).starts_with("HTTP/1.1 400"));
        assert!(
            bench
                .journal
                .iter()
                .any(|entry| entry.complaint().is_some())
        );
    }
}
