//! The instance metadata service: what the platform knows about the VM, as JSON.
//!
//! Fields appear with the api-version that introduced them, so that a client which falls back to an old version
//! finds what it would find on Azure. Not here: tokens, attested data, scheduled events.

use serde_json::{Value, json};

use super::http::{Endpoint, Request, Response, State};

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

/// Answers at 169.254.169.254, port 80.
pub(super) fn answer(state: &mut State, request: &Request) -> Response {
    let path = request.path().trim_end_matches('/');
    if path == "/metadata/reprovisiondata" {
        state.play(Endpoint::Reprovision, request, |state, request, _| {
            refuse(state, request).unwrap_or_else(|| match &state.scenario.vm.reprovision {
                Some(body) => Response::document(200, "application/xml", body.clone()),
                None => Response::empty(404),
            })
        })
    } else if path == "/metadata/instance" || path.starts_with("/metadata/instance/") {
        state.play(Endpoint::Imds, request, |state, request, _| {
            refuse(state, request).unwrap_or_else(|| instance(state, request))
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

/// The api-versions that this platform knows.
fn versions(state: &State) -> &'static [&'static str] {
    let newest = state.scenario.imds_newest.as_deref().unwrap_or("9999");
    let count = VERSIONS
        .iter()
        .take_while(|version| **version <= newest)
        .count();
    &VERSIONS[..count]
}

fn refuse(state: &State, request: &Request) -> Option<Response> {
    if request.method != "GET" {
        return Some(error(405, "Method not allowed"));
    }
    if request.header("x-forwarded-for").is_some() {
        return Some(error(
            400,
            "Bad request. Forwarded requests are not allowed",
        ));
    }
    if !request
        .header("metadata")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return Some(error(
            400,
            "Bad request. Required metadata header not specified",
        ));
    }
    let versions = versions(state);
    let version = request.parameter("api-version");
    if version.is_some_and(|version| versions.contains(&version)) {
        return None;
    }
    let newest: Vec<_> = versions.iter().rev().take(3).collect();
    let why = match version {
        None => "Bad request. api-version was not specified in the request",
        Some(_) => "Bad request. api-version is invalid",
    };
    let body = json!({ "error": why, "newest-versions": newest }).to_string();
    let mut response = Response::document(400, JSON, body);
    // Asking for a version that this region does not have yet is no mistake.
    if !version.is_some_and(|version| VERSIONS.contains(&version)) {
        response.complaints.push(format!("imds: 400: {why}"));
    }
    Some(response)
}

fn instance(state: &State, request: &Request) -> Response {
    let version = request.parameter("api-version").unwrap_or_default();
    let extended = request.parameter("extended") == Some("true");
    let document = document(state, version, extended);
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
            Response::document(200, JSON, node.to_string())
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
        (_, false) => error(400, "Bad request. The requested value has no JSON form"),
        (Value::String(leaf), true) => {
            Response::document(200, "text/plain; charset=utf-8", leaf.clone())
        }
        (leaf, true) => Response::document(200, "text/plain; charset=utf-8", leaf.to_string()),
    }
}

/// The document as an api-version shows it.
fn document(state: &State, version: &str, extended: bool) -> Value {
    let vm = &state.scenario.vm;
    let mut compute = json!({
        "location": vm.location,
        "name": vm.name,
        "offer": "",
        "osType": "Linux",
        "platformFaultDomain": "0",
        "platformUpdateDomain": "0",
        "publisher": "",
        "sku": "",
        "version": "",
        "vmSize": vm.size,
    });
    let home = format!("/home/{}/.ssh/authorized_keys", vm.user);
    let keys: Vec<Value> = vm
        .keys
        .iter()
        .map(|key| json!({ "keyData": key, "path": home }))
        .collect();
    let mut profile = json!({ "adminUsername": vm.user, "computerName": vm.computer_name });
    if version >= "2020-10-01" {
        // A string, not a boolean.
        profile["disablePasswordAuthentication"] = json!((!vm.password_login).to_string());
    }
    let since: [(&str, &str, Value); 9] = [
        ("2017-04-02", "vmId", json!(vm.id)),
        ("2018-04-02", "publicKeys", json!(keys)),
        ("2018-10-01", "azEnvironment", json!("AzurePublicCloud")),
        ("2019-02-01", "customData", json!("")),
        (
            "2020-06-01",
            "securityProfile",
            json!({ "secureBootEnabled": "true", "virtualTpmEnabled": "true" }),
        ),
        ("2020-07-15", "osProfile", profile),
        ("2021-01-01", "userData", json!(vm.user_data)),
        (
            "2021-03-01",
            "extendedLocation",
            json!({ "type": "", "name": "" }),
        ),
        ("2021-11-01", "isHostCompatibilityLayerVm", json!("false")),
    ];
    for (first, name, value) in since {
        if version >= first {
            compute[name] = value;
        }
    }
    // A specialized image has no profile.
    if vm.user.is_empty()
        && vm.computer_name.is_empty()
        && let Some(map) = compute.as_object_mut()
    {
        map.remove("osProfile");
    }
    let mut document = json!({ "compute": compute });
    if extended && version >= "2021-01-01" {
        document["extended"] =
            json!({ "compute": { "hasCustomData": vm.custom_data, "ppsType": vm.pps } });
    }
    document["network"] = json!({ "interface": interfaces(state) });
    document
}

fn interfaces(state: &State) -> Vec<Value> {
    let net = &state.scenario.net;
    let mask = u32::from(net.mask);
    // The order is not the order of the cards, and clients that think so shall notice.
    state
        .nics
        .iter()
        .rev()
        .map(|(mac, address)| {
            let primary = *address == net.address;
            let mask = if primary { mask } else { 0xffff_ff00 };
            let subnet = std::net::Ipv4Addr::from(u32::from(*address) & mask);
            let mac: String = mac.map(|byte| format!("{byte:02X}")).concat();
            json!({
                "ipv4": {
                    "ipAddress": [{ "privateIpAddress": address.to_string(), "publicIpAddress": "" }],
                    "subnet": [{ "address": subnet.to_string(), "prefix": mask.count_ones().to_string() }],
                },
                "ipv6": { "ipAddress": [] },
                "macAddress": mac,
            })
        })
        .collect()
}
