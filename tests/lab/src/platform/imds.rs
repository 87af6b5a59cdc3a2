//! The instance metadata service: what the platform knows about the VM, as JSON.
//!
//! Fields appear with the api-version that introduced them, so that a client which falls back to an old version
//! finds what it would find on Azure. Not here: tokens, attested data, scheduled events, and what Azure Stack has
//! in its place.

mod document;

use serde_json::{Value, json};

use super::http::{Endpoint, Request, Response, State};
use super::scenario::Play;

/// The api-versions, oldest first (Microsoft's list, and 2021-08-01, which cloud-init uses).
const VERSIONS: &[&str] = &[
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-08-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
];

const JSON: &str = "application/json; charset=utf-8";

/// What stands behind each refusal, as on Azure.
const MORE: &str = "For more information refer to aka.ms/azureimds";

/// Answers at 169.254.169.254, port 80.
pub(super) fn answer(state: &mut State, request: &Request) -> Response {
    let path = request.path().trim_end_matches('/');
    if path == "/metadata/versions" {
        return refuse_envelope(request).unwrap_or_else(|| {
            let known = json!({ "apiVersions": versions(state) });
            Response::document(200, JSON, known.to_string())
        });
    }
    if path == "/metadata/reprovisiondata" {
        state.play(Endpoint::Reprovision, request, |state, request, _| {
            refuse(state, request).unwrap_or_else(|| match &state.scenario.vm.reprovision {
                Some(body) => Response::document(200, "application/xml", body.clone()),
                None => Response::empty(404),
            })
        })
    } else if path == "/metadata/instance" || path.starts_with("/metadata/instance/") {
        state.play(Endpoint::Imds, request, |state, request, play| {
            refuse(state, request).unwrap_or_else(|| instance(state, request, play))
        })
    } else {
        error(404, "Not found")
    }
}

fn error(status: u16, why: &str) -> Response {
    let mut response = Response::document(status, JSON, json!({ "error": why }).to_string());
    response.complaints.push(format!("imds: {status}: {why}"));
    response
}

/// The answer of a service in trouble: what a scenario has it say.
pub(super) fn failure(status: u16) -> Response {
    let why = match status {
        400 => "Bad request. api-version is invalid",
        403 => "Forbidden",
        404 => "Not found",
        405 => "Method not allowed",
        410 => "Gone. The requested resource has moved; try again within 70 seconds",
        429 => "Too many requests",
        500 => "Internal server error. Retry after some time",
        503 => "Service unavailable. Retry after some time",
        _ => "Unexpected error",
    };
    Response::document(status, JSON, json!({ "error": why }).to_string())
}

/// The api-versions that this platform knows.
fn versions(state: &State) -> &'static [&'static str] {
    let newest = state.scenario.imds_newest.as_deref().unwrap_or("9999");
    let count = VERSIONS
        .iter()
        .take_while(|version| **version <= newest)
        .count();
    &VERSIONS[..count]
}

/// Refuses what no metadata service answers, whatever is asked for.
fn refuse_envelope(request: &Request) -> Option<Response> {
    if request.method != "GET" {
        return Some(error(405, "Method not allowed").with("Allow", "GET"));
    }
    // Whoever can make a proxy forward a request must not get at it.
    if request.header("x-forwarded-for").is_some() {
        return Some(error(
            400,
            "Bad request. Forwarded requests are not allowed",
        ));
    }
    match request.header("metadata") {
        Some(value) if value.eq_ignore_ascii_case("true") => None,
        _ => Some(error(
            400,
            "Bad request. Required metadata header not specified",
        )),
    }
}

fn refuse(state: &State, request: &Request) -> Option<Response> {
    if let Some(refusal) = refuse_envelope(request) {
        return Some(refusal);
    }
    let versions = versions(state);
    let version = request.parameter("api-version");
    if version.is_some_and(|version| versions.contains(&version)) {
        return None;
    }
    let newest: Vec<_> = versions.iter().rev().take(3).collect();
    let why = match version {
        None => "Bad request. api-version was not specified in the request.",
        Some(_) => "Bad request. api-version is invalid.",
    };
    let body = json!({ "error": format!("{why} {MORE}"), "newest-versions": newest });
    let mut response = Response::document(400, JSON, body.to_string());
    // Asking for a version that this region does not have yet is no mistake.
    if !version.is_some_and(|version| VERSIONS.contains(&version)) {
        response.complaints.push(format!("imds: 400: {why}"));
    }
    Some(response)
}

fn instance(state: &State, request: &Request, play: &Play) -> Response {
    let version = request.parameter("api-version").unwrap_or_default();
    let extended = request.parameter("extended") == Some("true");
    let mut document = document::document(state, version, extended, play.noise);
    if play.booleans {
        document::say_truth_plainly(&mut document);
    }
    let mut node = &document;
    for segment in request
        .path()
        .split('/')
        .skip(3)
        .filter(|segment| !segment.is_empty())
    {
        let next = match node {
            Value::Array(items) => segment.parse().ok().and_then(|at: usize| items.get(at)),
            Value::Object(map) => map.get(segment),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return error(404, "Not found"),
        }
    }
    let text = match request.parameter("format") {
        None | Some("json") => false,
        Some("text") => true,
        Some(_) => return error(400, "Bad request. Unsupported format"),
    };
    match (node, text) {
        (Value::Object(_) | Value::Array(_), false) => {
            let text = node.to_string();
            let text = if play.escaped {
                document::escaped(&text)
            } else {
                text
            };
            Response::document(200, JSON, text)
        }
        (Value::Object(map), true) => {
            let lines: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    let deeper = value.is_object() || value.is_array();
                    format!("{key}{}", if deeper { "/" } else { "" })
                })
                .collect();
            Response::document(200, "text/plain; charset=utf-8", lines.join("\n"))
        }
        (Value::Array(items), true) => {
            let lines: Vec<String> = (0..items.len()).map(|index| format!("{index}/")).collect();
            Response::document(200, "text/plain; charset=utf-8", lines.join("\n"))
        }
        // Microsoft: a leaf has no JSON form, ask for text.
        (_, false) => error(
            400,
            "Bad request. Requested content is a leaf, which has no JSON form; ask for format=text",
        ),
        (Value::String(leaf), true) => {
            Response::document(200, "text/plain; charset=utf-8", leaf.clone())
        }
        (leaf, true) => Response::document(200, "text/plain; charset=utf-8", leaf.to_string()),
    }
}
