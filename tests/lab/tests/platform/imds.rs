//! The metadata service, asked by hand: every request here is written out as it goes over the wire.

use std::time::Duration;

use lab::expected::Expected;
use lab::platform::{Entry, Scenario};
use serde_json::Value;

use crate::agent::Agent;
use crate::guest::{Answer, IMDS, Trouble};

/// As cloud-init asks, and azure-init, afterburn, Ignition, waagent and Microsoft's own article.
const CLOUD_INIT: &str = "/metadata/instance?api-version=2021-08-01&extended=true";

fn start(scenario: &str) -> Agent {
    let scenario = match Scenario::named(scenario) {
        Some(scenario) => scenario,
        None => Scenario::parse(scenario).unwrap(),
    };
    Agent::start(scenario).unwrap()
}

/// Sends a request as written, on a connection of its own.
fn send(agent: &mut Agent, request: &str) -> Result<Answer, Trouble> {
    let handle = agent.tcp.dial(IMDS, 80);
    let whole = |bytes: &[u8]| Answer::parse(bytes, false).is_some();
    let limit = Duration::from_secs(10);
    let bytes = agent
        .tcp
        .talk(&mut agent.guest, handle, request.as_bytes(), limit, whole)?;
    Answer::parse(&bytes, true).ok_or(Trouble::Broken)
}

fn get(agent: &mut Agent, target: &str) -> Result<Answer, Trouble> {
    send(
        agent,
        &format!("GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"),
    )
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    serde_json::from_slice(&answer.body).unwrap()
}

fn document(scenario: &str) -> Value {
    json(&get(&mut start(scenario), CLOUD_INIT).unwrap())
}

fn error(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

#[test]
fn requests_that_azure_refuses_are_refused_in_its_words() {
    let mut agent = start("healthy");
    let host = "Host: 169.254.169.254\r\n";
    let path = "/metadata/instance?api-version=2021-02-01";
    for (request, status, words) in [
        (
            format!("GET {path} HTTP/1.1\r\n{host}\r\n"),
            400,
            "Required metadata header not specified",
        ),
        (
            format!("GET {path} HTTP/1.1\r\n{host}Metadata: yes\r\n\r\n"),
            400,
            "Required metadata header not specified",
        ),
        (
            format!(
                "GET {path} HTTP/1.1\r\n{host}Metadata: true\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"
            ),
            400,
            "Forwarded requests are not allowed",
        ),
        (
            format!("GET /metadata/instance HTTP/1.1\r\n{host}Metadata: true\r\n\r\n"),
            400,
            "api-version was not specified",
        ),
        (
            format!(
                "GET /metadata/instance?api-version=latest HTTP/1.1\r\n{host}Metadata: true\r\n\r\n"
            ),
            400,
            "api-version is invalid",
        ),
        (
            format!("POST {path} HTTP/1.1\r\n{host}Metadata: true\r\nContent-Length: 0\r\n\r\n"),
            405,
            "Method not allowed",
        ),
        (
            format!("GET /metadata/instances HTTP/1.1\r\n{host}Metadata: true\r\n\r\n"),
            404,
            "Not found",
        ),
        (
            format!(
                "GET /metadata/instance/compute/nope?api-version=2021-02-01 HTTP/1.1\r\n{host}Metadata: true\r\n\r\n"
            ),
            404,
            "Not found",
        ),
        (
            format!(
                "GET /metadata/instance/compute/name?api-version=2021-02-01 HTTP/1.1\r\n{host}Metadata: true\r\n\r\n"
            ),
            400,
            "format=text",
        ),
        (
            format!("GET {path}&format=xml HTTP/1.1\r\n{host}Metadata: true\r\n\r\n"),
            400,
            "Unsupported format",
        ),
    ] {
        let complaints = agent.guest.complaints().len();
        let answer = send(&mut agent, &request).unwrap();
        assert_eq!(answer.status, status, "{request}");
        assert!(error(&answer).contains(words), "{request}: {answer:?}");
        assert_eq!(agent.guest.complaints().len(), complaints + 1, "{request}");
    }
    let answer = get(&mut agent, "/metadata/instance?api-version=2001-01-01").unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let newest = body["newest-versions"].as_array().unwrap();
    assert_eq!(newest[0], "2023-11-15");
    // What it says there, it takes.
    let target = format!(
        "/metadata/instance?api-version={}",
        newest[0].as_str().unwrap()
    );
    assert_eq!(get(&mut agent, &target).unwrap().status, 200);
}

#[test]
fn the_header_may_be_written_as_http_allows() {
    let mut agent = start("healthy");
    for header in ["metadata:true", "METADATA: True", "Metadata:  true "] {
        let request =
            format!("GET {CLOUD_INIT} HTTP/1.1\r\nhost: 169.254.169.254\r\n{header}\r\n\r\n");
        assert_eq!(send(&mut agent, &request).unwrap().status, 200, "{header}");
    }
    assert_eq!(agent.guest.complaints(), [""; 0]);
}

#[test]
fn every_other_agent_finds_what_it_asks_for() {
    let mut agent = start("vm.user_data = IyEvYmluL3NoCg==");
    for (target, text) in [
        (
            "/metadata/instance/compute/name?api-version=2017-08-01&format=text",
            "vm-demo01",
        ),
        (
            "/metadata/instance/compute/vmSize?api-version=2017-08-01&format=text",
            "Standard_D2s_v5",
        ),
        (
            "/metadata/instance/compute/osProfile/adminUsername?api-version=2021-02-01&format=text",
            "opsadmin",
        ),
        (
            "/metadata/instance/compute/userData?api-version=2021-01-01&format=text",
            "IyEvYmluL3NoCg==",
        ),
        (
            "/metadata/instance/network/interface/0/macAddress?api-version=2017-08-01&format=text",
            "000D3A112233",
        ),
        (
            "/metadata/instance/compute/publicKeys?api-version=2021-02-01&format=text",
            "0/",
        ),
        (
            "/metadata/instance/network/interface/0/?api-version=2017-08-01&format=text",
            "ipv4/\nipv6/\nmacAddress",
        ),
    ] {
        let answer = get(&mut agent, target).unwrap();
        assert_eq!((answer.status, answer.text()), (200, text), "{target}");
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"), "{target}");
    }
    let keys = json(
        &get(
            &mut agent,
            "/metadata/instance/compute/publicKeys?api-version=2021-02-01",
        )
        .unwrap(),
    );
    assert_eq!(keys[0]["path"], "/home/opsadmin/.ssh/authorized_keys");
    let waagent = get(
        &mut agent,
        "/metadata/instance/compute?api-version=2018-02-01",
    )
    .unwrap();
    assert_eq!(
        json(&waagent)["vmId"],
        "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf"
    );
    let azure_init = "/metadata/instance?api-version=2023-11-15&extended=true";
    let whole = json(&get(&mut agent, azure_init).unwrap());
    assert_eq!(whole["compute"]["osProfile"]["computerName"], "demo01");
    let versions = get(&mut agent, "/metadata/versions").unwrap();
    let versions = json(&versions)["apiVersions"].as_array().unwrap().len();
    assert!(versions > 20, "{versions}");
    assert_eq!(agent.guest.complaints(), [""; 0]);
}

#[test]
fn fields_are_those_of_the_version_that_was_asked_for() {
    let mut agent = start("healthy");
    let mut ask = |version: &str| {
        let target = format!("/metadata/instance?api-version={version}&extended=true");
        json(&get(&mut agent, &target).unwrap())
    };
    // (version, profile, whether passwords, keys, user data, extended)
    for (version, has) in [
        ("2017-04-02", [false, false, false, false, false]),
        ("2019-06-01", [false, false, true, false, false]),
        ("2020-07-15", [true, false, true, false, false]),
        ("2020-10-01", [true, true, true, false, false]),
        ("2021-01-01", [true, true, true, true, true]),
        ("2021-08-01", [true, true, true, true, true]),
    ] {
        let document = ask(version);
        let compute = &document["compute"];
        let profile = &compute["osProfile"];
        let seen = [
            profile,
            &profile["disablePasswordAuthentication"],
            &compute["publicKeys"],
            &compute["userData"],
            &document["extended"],
        ]
        .map(|value| !value.is_null());
        assert_eq!(seen, has, "{version}");
    }
    let document = json(&get(&mut agent, "/metadata/instance?api-version=2021-08-01").unwrap());
    assert!(document["extended"].is_null());
    assert_eq!(
        document["compute"]["osProfile"]["disablePasswordAuthentication"],
        "true"
    );
    assert_eq!(document["compute"]["customData"], "");
    let subnet = &document["network"]["interface"][0]["ipv4"]["subnet"][0];
    assert_eq!(subnet["prefix"], "24");
}

#[test]
fn answers_come_in_every_framing_that_http_has() {
    for (answers, chunked, closes) in [
        ("ok", false, false),
        ("chunked", true, false),
        ("close", false, true),
        ("chunked+close", true, true),
        ("unsized", false, true),
    ] {
        let mut agent = start(&format!("imds.answers = {answers}"));
        let answer = get(&mut agent, CLOUD_INIT).unwrap();
        assert_eq!(json(&answer)["compute"]["name"], "vm-demo01", "{answers}");
        let coding = answer.header("transfer-encoding");
        assert_eq!(coding == Some("chunked"), chunked, "{answers}");
        assert_eq!(answer.closes, closes, "{answers}");
    }
    // Who wants to end the connection is told so.
    let mut agent = start("healthy");
    let request = format!(
        "GET {CLOUD_INIT} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n"
    );
    assert!(send(&mut agent, &request).unwrap().closes);
}

#[test]
fn one_connection_carries_several_requests() {
    let mut agent = start("healthy");
    let handle = agent.tcp.dial(IMDS, 80);
    let request =
        format!("GET {CLOUD_INIT} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n");
    for _ in 0..3 {
        let whole = |bytes: &[u8]| Answer::parse(bytes, false).is_some();
        let limit = Duration::from_secs(5);
        let bytes = agent
            .tcp
            .talk(&mut agent.guest, handle, request.as_bytes(), limit, whole)
            .unwrap();
        assert_eq!(Answer::parse(&bytes, false).unwrap().status, 200);
    }
    let connects = |entry: &&Entry| matches!(entry, Entry::Connect { .. });
    let journal = agent.guest.platform.journal();
    assert_eq!(journal.iter().filter(connects).count(), 1);
    let asked = |entry: &&Entry| matches!(entry, Entry::Request { .. });
    assert_eq!(journal.iter().filter(asked).count(), 3);
}

#[test]
fn faults_come_as_often_as_the_scenario_says_and_then_all_is_well() {
    for status in [404, 410, 429, 500, 503] {
        let mut agent = start(&format!("imds-{status}-then-200"));
        for _ in 0..3 {
            let answer = get(&mut agent, CLOUD_INIT).unwrap();
            assert_eq!(answer.status, status);
            assert!(!error(&answer).is_empty());
            agent
                .tcp
                .live(&mut agent.guest, Duration::from_secs(2), |_| false);
        }
        assert_eq!(get(&mut agent, CLOUD_INIT).unwrap().status, 200);
        assert_eq!(agent.guest.complaints(), [""; 0]);
    }
    let mut always = start("imds-500-always");
    for _ in 0..20 {
        assert_eq!(get(&mut always, CLOUD_INIT).unwrap().status, 500);
    }
    let mut throttled = start("imds-429-retry-after");
    let answer = get(&mut throttled, CLOUD_INIT).unwrap();
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(get(&mut throttled, CLOUD_INIT).unwrap().status, 429);
    assert_eq!(throttled.guest.complaints().len(), 1);
}

#[test]
fn an_old_region_knows_only_old_versions() {
    let mut agent = start("imds-400-then-old-version");
    let refusal = get(&mut agent, CLOUD_INIT).unwrap();
    assert_eq!(refusal.status, 400);
    assert!(error(&refusal).contains("api-version is invalid"));
    let answer = get(&mut agent, "/metadata/instance?api-version=2019-06-01").unwrap();
    let document = json(&answer);
    assert!(document["compute"]["osProfile"].is_null());
    assert_eq!(
        document["compute"]["publicKeys"].as_array().unwrap().len(),
        1
    );
    assert_eq!(agent.guest.complaints(), [""; 0]);
}

#[test]
fn a_service_that_is_not_there_is_not_there_in_its_own_way() {
    for (name, trouble) in [
        ("imds-absent", Trouble::Timeout),
        ("imds-never-answers", Trouble::Timeout),
        ("azure-stack", Trouble::Timeout),
        // smoltcp, which plays the guest here, does not listen to ICMP.
        ("azure-stack-unreachable", Trouble::Timeout),
        ("imds-refuses", Trouble::Broken),
        ("imds-resets", Trouble::Broken),
    ] {
        let mut agent = start(name);
        assert_eq!(get(&mut agent, CLOUD_INIT), Err(trouble), "{name}");
        // The wireserver is still there.
        agent.report();
        assert!(agent.guest.platform.ready().is_some(), "{name}");
    }
    let mut stack = start("azure-stack");
    let lease = stack.guest.lease().unwrap();
    assert_eq!(
        lease.option(121).unwrap(),
        [0, 10, 0, 0, 1, 32, 168, 63, 129, 16, 10, 0, 0, 1]
    );
}

#[test]
fn broken_documents_are_broken() {
    let mut agent = start("imds-broken-json");
    for _ in 0..3 {
        let answer = get(&mut agent, CLOUD_INIT).unwrap();
        assert_eq!(answer.status, 200);
        assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
    }
    for _ in 0..2 {
        assert_eq!(get(&mut agent, CLOUD_INIT), Err(Trouble::Broken));
    }
    json(&get(&mut agent, CLOUD_INIT).unwrap());
}

#[test]
fn the_same_may_be_written_differently() {
    let plain = document("healthy");
    assert_eq!(document("imds-escaped"), plain);
    let mut agent = start("imds-escaped");
    let answer = get(&mut agent, CLOUD_INIT).unwrap();
    assert!(!answer.text().contains("osProfile") && answer.text().contains("\\u006f"));
    let truth = document("imds-booleans");
    let flag = &truth["compute"]["osProfile"]["disablePasswordAuthentication"];
    assert_eq!(*flag, true);
    let mut marked = start("imds-bom");
    let answer = get(&mut marked, CLOUD_INIT).unwrap();
    assert_eq!(answer.body[..3], [0xef, 0xbb, 0xbf]);
    let mut large = start("imds-large");
    let answer = get(&mut large, CLOUD_INIT).unwrap();
    assert!(answer.body.len() > 16 * 1024, "{}", answer.body.len());
    json(&answer);
}

#[test]
fn identity_is_what_the_scenario_gives() {
    let document_of = |scenario: &str| document(scenario)["compute"].clone();
    let specialized = document_of("specialized");
    assert!(specialized["osProfile"].is_null());
    assert_eq!(specialized["publicKeys"], Value::Array(Vec::new()));
    let named = document_of("specialized-with-name");
    assert_eq!(named["osProfile"]["adminUsername"], "");
    assert_eq!(named["osProfile"]["computerName"], "vm-imds01");
    let folded = document_of("imds-key-folded");
    let key = folded["publicKeys"][0]["keyData"].as_str().unwrap();
    assert!(key.matches("\r\n").count() > 3 && key.ends_with("\r\n"));
    let joined = key.replace("\r\n", "");
    let words: Vec<&str> = joined.split(' ').collect();
    assert_eq!((words[0], words.len()), ("ssh-rsa", 3));
    assert_eq!(words[1].len() % 4, 0);
    let garbage = document_of("imds-key-x509");
    let key = garbage["publicKeys"][0]["keyData"].as_str().unwrap();
    assert!(key.starts_with("-----BEGIN CERTIFICATE-----\r\n"));
    let data = document_of("imds-user-data-64k");
    // Four letters for each three bytes (RFC 4648).
    assert_eq!(
        data["userData"].as_str().unwrap().len(),
        65536_usize.div_ceil(3) * 4
    );
    let extended = |scenario: &str| document(scenario)["extended"]["compute"].clone();
    assert_eq!(extended("healthy")["ppsType"], "None");
    assert_eq!(extended("healthy")["hasCustomData"], false);
    assert_eq!(extended("custom-data-missing")["hasCustomData"], true);
    assert_eq!(extended("pool-vm")["ppsType"], "Running");
    assert_eq!(extended("pool-vm-savable")["ppsType"], "Savable");
    assert_eq!(
        extended("pool-vm-os-disk")["ppsType"],
        "PreprovisionedOSDisk"
    );
    assert!(extended("pps-type-absent")["ppsType"].is_null());
    assert_eq!(extended("pps-type-absent")["hasCustomData"], false);
}

#[test]
fn what_was_not_told_is_what_the_disc_says() {
    let disc = Expected {
        host_name: "on-disc".into(),
        user: "discadmin".into(),
        keys: vec!["ssh-ed25519 AAAA disc".into()],
        password_login: true,
        custom_data: true,
        pps: None,
    };
    let compute = |scenario: &str, disc: Option<&Expected>| {
        let mut scenario = Scenario::named(scenario).unwrap();
        scenario.follow(disc);
        let mut agent = Agent::start(scenario).unwrap();
        json(&get(&mut agent, CLOUD_INIT).unwrap())["compute"].clone()
    };
    let same = compute("healthy", Some(&disc));
    assert_eq!(same["osProfile"]["adminUsername"], "discadmin");
    assert_eq!(same["osProfile"]["computerName"], "on-disc");
    assert_eq!(same["osProfile"]["disablePasswordAuthentication"], "false");
    assert_eq!(same["publicKeys"][0]["keyData"], "ssh-ed25519 AAAA disc");
    let other = compute("imds-disagrees", Some(&disc));
    assert_eq!(other["osProfile"]["adminUsername"], "imdsadmin");
    assert_eq!(other["publicKeys"][0]["keyData"], "ssh-ed25519 AAAA disc");
    assert!(compute("healthy", None)["osProfile"].is_null());
    let alone = compute("imds-only", None);
    assert_eq!(alone["osProfile"]["adminUsername"], "imdsadmin");
}
