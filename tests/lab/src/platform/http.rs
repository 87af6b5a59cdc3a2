//! The platform's services as a function from request to response, whatever carries the bytes.
//!
//! [`answer`] decides; `connection` reads and writes the bytes; `wireserver` and `imds` know the documents.
//! Follows RFC 9110 and 9112 in what a server must refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::frame::Mac;
use super::scenario::{Play, Scenario, Script};
use super::{imds, wireserver};

/// What a proxy, or a portal in between, gives to everybody.
const PAGE: &str =
    "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Welcome.</body></html>\n";

/// A service, by the address and port it has on Azure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// 168.63.129.16, port 80.
    Wireserver,
    /// 168.63.129.16, port 32526.
    HostPlugin,
    /// 169.254.169.254, port 80.
    Imds,
}

/// A kind of request, with its own script of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/?comp=versions`.
    Versions,
    /// `/machine?comp=goalstate`.
    GoalState,
    /// `/machine?comp=health`.
    Health,
    /// `/provisioning/health`.
    JsonHealth,
    /// `/machine?comp=roleProperties`.
    Properties,
    /// The documents that a goal state names, and telemetry.
    Documents,
    /// `/metadata/instance`.
    Imds,
    /// `/metadata/reprovisiondata`.
    Reprovision,
    /// Port 32526.
    HostPlugin,
}

/// A whole HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When its last byte arrived.
    pub at: Duration,
    /// Which service it is for.
    pub door: Door,
    /// The method, as it came.
    pub method: String,
    /// The request target, as it came.
    pub target: String,
    /// The minor version: 0 or 1.
    pub version: u8,
    /// Header names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The target's path.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The value of a parameter of the target; a parameter without `=` has the empty value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Whether the connection stays open behind the answer.
    pub(super) fn keeps_alive(&self) -> bool {
        let connection = self
            .header("connection")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let says = |word| connection.split(',').any(|token| token.trim() == word);
        if self.version == 0 {
            says("keep-alive")
        } else {
            !says("close")
        }
    }
}

/// An HTTP response, and how it is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header names and values besides those that say the body's length and the connection's fate.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the scenario does to the delivery.
    pub play: Play,
    /// What was wrong with the request, whether or not it was refused for it.
    pub complaints: Vec<String>,
}

impl Response {
    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// A response with a document.
    pub fn document(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), kind.into())],
            body: body.into(),
            ..Self::default()
        }
    }

    /// A refusal that says why, to the client and to the journal.
    pub fn refusal(status: u16, why: impl Into<String>) -> Self {
        let why = why.into();
        let mut response = Self::document(status, "text/plain; charset=utf-8", why.clone());
        response.complaints.push(format!("http: {status}: {why}"));
        response
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

/// What the portal would show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Nothing final was reported.
    #[default]
    Creating,
    /// The VM is ready.
    Ready,
    /// The VM has given up.
    Failed {
        /// What the VM said about it.
        description: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Creating => f.write_str("Creating"),
            Self::Ready => f.write_str("Ready"),
            Self::Failed { description } => write!(f, "Failed: {description}"),
        }
    }
}

/// The services' memory.
#[derive(Debug)]
pub struct State {
    /// What the platform is like.
    pub scenario: Scenario,
    /// The goal state's incarnation now.
    pub incarnation: u32,
    /// How many goal states were given out.
    pub goal_states: u32,
    /// What the portal would show.
    pub verdict: Verdict,
    /// When Ready was first accepted.
    pub ready: Option<Duration>,
    /// When the answer to that report is sent.
    pub(super) answer_due: Option<Duration>,
    /// The VM's network cards, the primary one first, with their addresses.
    pub nics: Vec<(Mac, std::net::Ipv4Addr)>,
    asked: BTreeMap<Endpoint, usize>,
    /// Until when an endpoint has asked to be left alone, and since when.
    throttled: BTreeMap<Endpoint, (Duration, Duration)>,
}

impl State {
    /// Starts the services.
    pub fn new(scenario: Scenario) -> Self {
        Self {
            incarnation: scenario.machine.incarnation,
            goal_states: 0,
            verdict: Verdict::Creating,
            ready: None,
            answer_due: None,
            nics: Vec::new(),
            asked: BTreeMap::new(),
            throttled: BTreeMap::new(),
            scenario,
        }
    }

    /// How many requests of a kind came.
    pub fn asked(&self, endpoint: Endpoint) -> usize {
        self.asked.get(&endpoint).copied().unwrap_or(0)
    }

    /// Takes note of a verdict that the VM reports.
    pub(super) fn report(&mut self, at: Duration, verdict: Verdict, complaints: &mut Vec<String>) {
        match (&self.verdict, &verdict) {
            (Verdict::Failed { .. }, Verdict::Ready) => {
                complaints.push("health: Ready after ProvisioningFailed, which is final".into());
                return;
            }
            (Verdict::Ready, Verdict::Failed { .. }) => {
                complaints.push("health: ProvisioningFailed after Ready".into());
            }
            _ => {}
        }
        if verdict == Verdict::Ready {
            self.ready.get_or_insert(at);
        }
        self.verdict = verdict;
    }

    fn script(&self, endpoint: Endpoint) -> &Script {
        let answers = &self.scenario.answers;
        match endpoint {
            Endpoint::Versions => &answers.versions,
            Endpoint::GoalState => &answers.goalstate,
            Endpoint::Health => &answers.health,
            Endpoint::JsonHealth => &answers.jsonhealth,
            Endpoint::Properties => &answers.properties,
            Endpoint::Documents => &answers.documents,
            Endpoint::Imds => &answers.imds,
            Endpoint::Reprovision => &answers.reprovision,
            Endpoint::HostPlugin => &answers.hostplugin,
        }
    }

    /// Plays the next answer of an endpoint's script around the honest one.
    ///
    /// The honest answer is not computed when the script has a status instead: a report that gets 500 did not count.
    pub(super) fn play(
        &mut self,
        endpoint: Endpoint,
        request: &Request,
        honest: impl FnOnce(&mut Self, &Request, &Play) -> Response,
    ) -> Response {
        let count = self.asked.entry(endpoint).or_default();
        let number = *count;
        *count += 1;
        let play = self.script(endpoint).play(number);
        let early = self.too_early(endpoint, request.at);
        let unanswered = play.reset || play.hangup || play.never || play.garbage;
        let mut response = match play.status {
            Some(status) => {
                let mut response = Response::empty(status);
                if status >= 400 {
                    response = match endpoint {
                        Endpoint::Imds | Endpoint::Reprovision => imds::failure(status),
                        _ => Response::document(status, "text/plain", "scenario"),
                    };
                }
                if let (429 | 503, Some(after)) = (status, self.scenario.retry_after) {
                    response = response.with("Retry-After", after.as_secs());
                }
                response
            }
            None if unanswered => Response::empty(0),
            None => honest(self, request, &play),
        };
        if let 429 | 503 = response.status {
            // One second is what Azure's own agents leave at the least.
            let pause = self
                .scenario
                .retry_after
                .unwrap_or_default()
                .max(Duration::from_secs(1));
            self.throttled
                .insert(endpoint, (request.at, request.at + pause));
        }
        if play.html || play.empty {
            response.body = if play.html { PAGE.into() } else { Vec::new() };
        }
        if play.truncated {
            response.body.truncate(response.body.len() / 2);
        }
        if self.ready == Some(request.at) {
            self.answer_due.get_or_insert(request.at + play.delay);
        }
        response.complaints.extend(early);
        response.play = play;
        response
    }

    fn too_early(&mut self, endpoint: Endpoint, at: Duration) -> Option<String> {
        let (since, until) = self.throttled.remove(&endpoint)?;
        (at < until).then(|| {
            format!(
                "http: {endpoint:?} asked again {} ms after a 429 or 503 that wanted {} ms",
                (at.saturating_sub(since)).as_millis(),
                (until.saturating_sub(since)).as_millis()
            )
        })
    }
}

/// Answers a request.
pub fn answer(state: &mut State, request: &Request) -> Response {
    if let Some(refusal) = refuse(request) {
        return refusal;
    }
    let mut response = match request.door {
        Door::Wireserver => wireserver::answer(state, request),
        Door::HostPlugin => wireserver::answer_host_plugin(state, request),
        Door::Imds => imds::answer(state, request),
    };
    if let Some(host) = request.header("host") {
        let address = match request.door {
            Door::Imds => super::scenario::IMDS,
            Door::Wireserver | Door::HostPlugin => state.scenario.dhcp.wireserver,
        };
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        // Behind plain sockets on a desk the service has another address, so this is not refused.
        if name.parse() != Ok(address) {
            response
                .complaints
                .push(format!("http: Host is {host}, not {address}"));
        }
    }
    response
}

/// Refuses what no HTTP server may accept.
fn refuse(request: &Request) -> Option<Response> {
    let refusal = |why: &str| Some(Response::refusal(400, why));
    let count = |name: &str| {
        request
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .count()
    };
    if !request.target.starts_with('/') {
        return refusal("the target is not a path: this is no proxy");
    }
    if request.version == 1 && count("host") == 0 {
        return refusal("no Host header");
    }
    for name in [
        "host",
        "content-length",
        "content-type",
        "x-ms-version",
        "metadata",
    ] {
        if count(name) > 1 {
            return refusal(&format!("more than one {name} header"));
        }
    }
    if request.header("expect").is_some() {
        return refusal("Expect is not supported");
    }
    None
}

/// The words of a status line.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Scenario",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request as a careful client sends it.
    pub(in crate::platform) fn request(door: Door, method: &str, target: &str) -> Request {
        let host = if door == Door::Imds {
            "169.254.169.254"
        } else {
            "168.63.129.16"
        };
        Request {
            at: Duration::ZERO,
            door,
            method: method.into(),
            target: target.into(),
            version: 1,
            headers: vec![("Host".into(), host.into())],
            body: Vec::new(),
        }
    }

    /// Adds a header.
    pub(in crate::platform) fn with(mut request: Request, name: &str, value: &str) -> Request {
        request.headers.push((name.into(), value.into()));
        request
    }

    fn goal_state() -> Request {
        let request = request(Door::Wireserver, "GET", "/machine?comp=goalstate");
        with(request, "x-ms-version", "2012-11-30")
    }

    #[test]
    fn requests_that_no_server_accepts_are_refused() {
        let state = &mut State::new(Scenario::default());
        assert_eq!(answer(state, &goal_state()).status, 200);
        let mut without_host = goal_state();
        without_host.headers.remove(0);
        assert_eq!(answer(state, &without_host).status, 400);
        assert_eq!(
            answer(state, &with(goal_state(), "HOST", "168.63.129.16")).status,
            400
        );
        assert_eq!(
            answer(state, &with(goal_state(), "Expect", "100-continue")).status,
            400
        );
        let mut absolute = goal_state();
        absolute.target = "http://168.63.129.16/machine?comp=goalstate".into();
        assert_eq!(answer(state, &absolute).status, 400);
        let mut elsewhere = goal_state();
        elsewhere.headers[0].1 = "wireserver".into();
        let response = answer(state, &elsewhere);
        assert_eq!((response.status, response.complaints.len()), (200, 1));
    }

    #[test]
    fn who_comes_back_too_early_after_429_is_complained_about() {
        let mut scenario = Scenario::parse("goalstate.answers = 429*2, ok").unwrap();
        scenario.retry_after = Some(Duration::from_secs(2));
        let state = &mut State::new(scenario);
        let mut request = goal_state();
        let response = answer(state, &request);
        assert_eq!(response.status, 429);
        assert!(
            response
                .headers
                .contains(&("Retry-After".into(), "2".into()))
        );
        request.at = Duration::from_millis(1999);
        assert_eq!(answer(state, &request).complaints.len(), 1);
        request.at = Duration::from_millis(3999);
        assert_eq!(answer(state, &request).complaints.len(), 0);
    }
}
