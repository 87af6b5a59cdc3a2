//! Who asked the platform what, and what the answer was: the journal as a person reads it.
//!
//! What is asked again and again stands there once, with how often.

use core::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use roxmltree::Document;
use serde_json::Value;

use crate::platform::http::{Door, Request};
use crate::platform::{Entry, Way};

/// A longer question is cut; what is behind is as good as never of interest.
const WIDTH: usize = 100;

/// A longer part of a path is an id.
const ID: usize = 24;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When it was asked first, since power on.
    pub at: Duration,
    /// When it was asked last.
    pub last: Duration,
    /// How often it was asked.
    pub times: usize,
    /// Who asked, by its own words.
    pub who: String,
    /// What.
    pub what: String,
    /// The answer.
    pub answer: String,
}

impl Row {
    fn new(at: Duration, who: String, what: String) -> Self {
        Self {
            at,
            last: at,
            times: 1,
            who,
            what,
            answer: NO_ANSWER.to_owned(),
        }
    }

    /// Says whether this was asked over HTTP.
    pub fn is_http(&self) -> bool {
        !self.what.starts_with(DHCP)
    }

    /// Says whether this gave an address back.
    pub fn is_farewell(&self) -> bool {
        self.what.starts_with("DHCP RELEASE")
    }

    /// Says whether this told the platform how the machine is.
    pub fn is_report(&self) -> bool {
        self.what.starts_with("POST ") && self.what.contains("health: ")
    }

    fn is_like(&self, other: &Self) -> bool {
        (&self.who, &self.what, &self.answer) == (&other.who, &other.what, &other.answer)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, last) = (self.at.as_secs_f64(), self.last.as_secs_f64());
        let who = cut(&self.who, 22);
        write!(f, "{at:>7.1}  {:<6} {who:<22} {}", self.answer, self.what)?;
        if self.times > 1 {
            write!(f, "  ({} times, last {last:.1})", self.times)?;
        }
        Ok(())
    }
}

const NO_ANSWER: &str = "none";
const DHCP: &str = "DHCP ";

/// Takes the questions out of a journal; times are counted from power on.
pub fn rows(journal: &[Entry], began: Duration) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // Who waits for an answer: the last question on each connection, and the last DHCP message.
    let mut open: Vec<(SocketAddr, usize)> = Vec::new();
    let mut broadcast = None;
    for entry in journal {
        let at = entry.at().saturating_sub(began);
        match entry {
            Entry::Dhcp {
                way: Way::FromGuest,
                ..
            } => {
                broadcast = Some(rows.len());
                rows.push(dhcp(entry, at));
            }
            Entry::Dhcp { summary, .. } => {
                let kind = summary.split(' ').next().unwrap_or_default();
                if let Some(row) = broadcast.and_then(|index: usize| rows.get_mut(index)) {
                    kind.clone_into(&mut row.answer);
                }
            }
            Entry::Request { peer, request, .. } => {
                open.retain(|(known, _)| known != peer);
                open.push((*peer, rows.len()));
                rows.push(Row::new(at, who(request), what(request)));
            }
            Entry::Answer { peer, status, .. } => {
                if let Some(place) = open.iter().position(|(known, _)| known == peer) {
                    let (_, index) = open.swap_remove(place);
                    if let Some(row) = rows.get_mut(index).filter(|_| *status != 0) {
                        row.answer = status.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    fold(rows)
}

/// Joins rows that say the same; the first one stays.
fn fold(rows: Vec<Row>) -> Vec<Row> {
    let mut folded: Vec<Row> = Vec::new();
    for row in rows {
        match folded.iter_mut().find(|known| known.is_like(&row)) {
            Some(known) => {
                known.times += row.times;
                known.last = known.last.max(row.last);
            }
            None => folded.push(row),
        }
    }
    folded
}

/// Lists who asked over HTTP, by their own names.
pub fn agents(rows: &[Row]) -> Vec<String> {
    let names = rows.iter().filter(|row| row.is_http());
    let counted = count(names.map(|row| row.who.as_str()));
    counted.into_iter().map(|(name, _)| name).collect()
}

/// Counts how often each text comes, in the order of their first times.
pub fn count<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Vec<(String, usize)> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for text in texts {
        let text = text.into();
        match counted.iter_mut().find(|(known, _)| *known == text) {
            Some((_, times)) => *times += 1,
            None => counted.push((text, 1)),
        }
    }
    counted
}

fn dhcp(entry: &Entry, at: Duration) -> Row {
    let Some(spoken) = entry.dhcp() else {
        let what = format!("{DHCP}message that cannot be read");
        return Row::new(at, "unnamed".to_owned(), what);
    };
    let mut what = format!("{DHCP}{}", format!("{:?}", spoken.kind).to_uppercase());
    if let Some(name) = spoken.host_name.as_ref().or(spoken.full_name.as_ref()) {
        what += ", host ";
        what += &plain(name);
    }
    let class = spoken.class.as_deref().filter(|class| !class.is_empty());
    let who = match (spoken.program(), class) {
        ("unnamed", Some(class)) => plain(class),
        (program, _) => program.to_owned(),
    };
    Row::new(at, who, what)
}

/// Names who sent a request, by its own words.
fn who(request: &Request) -> String {
    let names = ["user-agent", "x-ms-agent-name", "x-ms-guest-agent-name"];
    let name = names.iter().find_map(|name| request.header(name));
    plain(name.unwrap_or("unnamed"))
}

/// Says what a request asks for, or what it tells.
fn what(request: &Request) -> String {
    let service = match request.door {
        Door::Wireserver => "",
        Door::HostPlugin => "host plugin ",
        Door::Imds => "metadata ",
    };
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let parts = path
        .split('/')
        .map(|part| if part.len() > ID { "ID" } else { part });
    let mut what = format!(
        "{} {service}{}",
        request.method,
        parts.collect::<Vec<_>>().join("/")
    );
    // It is in every such question and says nothing about it.
    let words = query
        .split('&')
        .filter(|word| !word.starts_with("incarnation="));
    let query = words.collect::<Vec<_>>().join("&");
    if !query.is_empty() {
        what += "?";
        what += &query;
    }
    if let Some(told) = told(request) {
        what += ": ";
        what += &told;
    }
    cut(&plain(&what), WIDTH)
}

/// Says what a report of health tells.
fn told(request: &Request) -> Option<String> {
    let body = std::str::from_utf8(&request.body).ok()?;
    let words = if request.path() == "/provisioning/health" {
        let report: Value = serde_json::from_str(body).ok()?;
        let details = &report["details"];
        [
            &report["state"],
            &details["subStatus"],
            &details["description"],
        ]
        .map(|word| word.as_str().unwrap_or_default().to_owned())
    } else if request.parameter("comp") == Some("health") {
        let report = Document::parse(body).ok()?;
        ["State", "SubStatus", "Description"].map(|name| {
            let node = report.descendants().find(|node| node.has_tag_name(name));
            node.and_then(|node| node.text())
                .unwrap_or_default()
                .to_owned()
        })
    } else {
        return None;
    };
    let said: Vec<_> = words
        .iter()
        .filter(|word| !word.is_empty())
        .cloned()
        .collect();
    Some(said.join(", "))
}

/// Takes out what could move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Cuts a text that is too long, and shows that it is cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 3).collect();
    kept + "..."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(door: Door, method: &str, target: &str, agent: &str, body: &str) -> Request {
        Request {
            at: Duration::ZERO,
            door,
            method: method.into(),
            target: target.into(),
            version: 1,
            headers: vec![("User-Agent".into(), agent.into())],
            body: body.into(),
        }
    }

    /// A question at so many seconds, and its answer.
    fn exchange(port: u16, at: u64, request: Request, status: u16) -> [Entry; 2] {
        let (at, mac) = (Duration::from_secs(at), [2; 6]);
        let peer = SocketAddr::from(([10, 0, 0, 4], port));
        [
            Entry::Request {
                at,
                mac,
                peer,
                request,
            },
            Entry::Answer {
                at,
                mac,
                peer,
                status,
                scripted: false,
            },
        ]
    }

    fn goal_state(agent: &str) -> Request {
        let target = "/machine/?comp=goalstate";
        request(Door::Wireserver, "GET", target, agent, "")
    }

    #[test]
    fn repeated_polls_are_one_line_with_a_count() {
        let versions = request(Door::HostPlugin, "GET", "/versions", "A/1", "");
        let journal = [
            exchange(1, 10, goal_state("A/1"), 200),
            exchange(2, 11, versions, 200),
            exchange(3, 16, goal_state("A/1"), 200),
            exchange(4, 22, goal_state("A/1"), 410),
            exchange(5, 28, goal_state("A/1"), 200),
            exchange(6, 29, goal_state("B/1"), 200),
        ]
        .concat();
        let shown: Vec<_> = rows(&journal, Duration::from_secs(10))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "    0.0  200    A/1                    GET /machine/?comp=goalstate  (3 times, last 18.0)",
                "    1.0  200    A/1                    GET host plugin /versions",
                "   12.0  410    A/1                    GET /machine/?comp=goalstate",
                "   19.0  200    B/1                    GET /machine/?comp=goalstate",
            ]
        );
    }

    #[test]
    fn answers_find_their_questions_when_connections_overlap() {
        let [first, first_answer] = exchange(1, 1, goal_state("A"), 200);
        let [second, second_answer] = exchange(2, 1, goal_state("B"), 503);
        let rows = rows(
            &[first, second, second_answer, first_answer],
            Duration::ZERO,
        );
        let answers: Vec<_> = rows.iter().map(|row| (&*row.who, &*row.answer)).collect();
        assert_eq!(answers, [("A", "200"), ("B", "503")]);
    }

    #[test]
    fn question_without_an_answer_says_so() {
        let [asked, _] = exchange(1, 1, goal_state("A"), 200);
        assert_eq!(rows(&[asked], Duration::ZERO)[0].answer, "none");
    }

    #[test]
    fn report_tells_what_it_reports() {
        let xml = "<Health><Container><RoleInstanceList><Role><Health><State>NotReady</State>\
                   <Details><SubStatus>ProvisioningFailed</SubStatus><Description>no &amp; disc\
                   </Description></Details></Health></Role></RoleInstanceList></Container></Health>";
        let target = "/machine?comp=health";
        let report = request(Door::Wireserver, "POST", target, "A", xml);
        assert_eq!(
            what(&report),
            "POST /machine?comp=health: NotReady, ProvisioningFailed, no & disc"
        );
        let json = request(
            Door::Wireserver,
            "POST",
            "/provisioning/health",
            "A",
            "{\"state\":\"Ready\"}",
        );
        assert_eq!(what(&json), "POST /provisioning/health: Ready");
    }

    #[test]
    fn ids_in_a_path_do_not_hide_what_it_asks_for() {
        let target = "/machine/3f0c9a1e-7b52-4d6a-9c11-0e5d2b8a4f63/\
                      9e2d7c40%2D51ab%2D4f3e._vm?comp=config&type=sharedConfig&incarnation=3";
        let asked = request(Door::Wireserver, "GET", target, "A", "");
        assert_eq!(
            what(&asked),
            "GET /machine/ID/ID?comp=config&type=sharedConfig"
        );
        let asked = request(Door::Imds, "GET", "/metadata/versions", "A", "");
        assert_eq!(what(&asked), "GET metadata /metadata/versions");
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor_or_fills_the_screen() {
        let long = format!("/{}", "x\x1b/".repeat(200));
        let asked = what(&request(Door::Imds, "GET", &long, "A", ""));
        assert!(!asked.contains('\x1b') && asked.len() <= WIDTH, "{asked}");
    }
}
