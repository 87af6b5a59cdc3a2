//! The wireserver: goal state, health reports by both doors, and the documents that a goal state names.
//!
//! It is strict about what waagent, cloud-init, afterburn and azure-init all do right. Documents that matter only
//! to an agent for extensions are small and empty, but true. Certificates are not given out: no password-less
//! key exchange is simulated.

use roxmltree::{Document, Node};
use serde_json::Value;

use super::http::{Endpoint, Request, Response, State, Verdict};
use super::scenario::{Play, Scenario};

/// The protocol's version, in every request.
const VERSION: &str = "2012-11-30";
const XML: &str = "text/xml; charset=utf-8";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
/// A longer description is refused.
const MAX_DESCRIPTION: usize = 4096;

/// Answers at port 80.
pub(super) fn answer(state: &mut State, request: &Request) -> Response {
    let machine = matches!(request.path(), "/machine" | "/machine/");
    let component = request.parameter("comp").unwrap_or_default();
    match (machine, component) {
        (true, "goalstate") => state.play(Endpoint::GoalState, request, goal_state),
        (true, "health") => state.play(Endpoint::Health, request, health),
        (true, "roleProperties") => state.play(Endpoint::Properties, request, properties),
        (true, "telemetrydata") => state.play(Endpoint::Documents, request, telemetry),
        _ if request.path() == "/" && component == "versions" => {
            state.play(Endpoint::Versions, request, |_, request, _| {
                method(request, "GET").unwrap_or_else(versions)
            })
        }
        _ if request.path() == "/provisioning/health" => {
            state.play(Endpoint::JsonHealth, request, json_health)
        }
        _ if request.path() == "/HealthService" => {
            state.play(Endpoint::Documents, request, |_, request, _| {
                method(request, "POST").unwrap_or_else(|| Response::empty(200))
            })
        }
        _ if request.path().starts_with("/machine/") => {
            state.play(Endpoint::Documents, request, document)
        }
        _ => Response::refusal(404, format!("{} is nowhere", request.target)),
    }
}

/// Answers at port 32526, where agents look for a helper that this platform does not have.
pub(super) fn answer_host_plugin(state: &mut State, request: &Request) -> Response {
    state.play(
        Endpoint::HostPlugin,
        request,
        |_, request, _| match request.path() {
            "/versions" => Response::document(200, "application/json", "[\"2015-09-01\"]"),
            "/health" | "/status" | "/vmAgentLog" => Response::empty(200),
            _ => Response::empty(404),
        },
    )
}

fn method(request: &Request, wanted: &str) -> Option<Response> {
    (request.method != wanted).then(|| {
        let why = format!("{} is for {wanted}, not {}", request.path(), request.method);
        Response::refusal(405, why).with("Allow", wanted)
    })
}

/// Refuses what lacks the version header.
fn version(request: &Request) -> Option<Response> {
    match request.header("x-ms-version") {
        Some(VERSION) => None,
        Some(other) => Some(Response::refusal(
            400,
            format!("x-ms-version {other} is not known"),
        )),
        None => Some(Response::refusal(400, "no x-ms-version header")),
    }
}

/// Refuses a report whose envelope is wrong.
fn envelope(request: &Request, kind: &str) -> Option<Response> {
    if let Some(refusal) = method(request, "POST") {
        return Some(refusal);
    }
    if request.header("content-length").is_none() {
        return Some(Response::refusal(411, "no Content-Length header"));
    }
    let media = request.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    (!media.eq_ignore_ascii_case(kind))
        .then(|| Response::refusal(400, format!("Content-Type is \"{media}\", not {kind}")))
}

fn versions() -> Response {
    let list = ["2015-04-05", VERSION, "2011-12-31"]
        .map(|version| format!("    <Version>{version}</Version>\n"))
        .concat();
    let body = format!(
        "{DECLARATION}<Versions>\n  <Preferred>\n    <Version>2015-04-05</Version>\n  </Preferred>\n  \
         <Supported>\n{list}  </Supported>\n</Versions>\n"
    );
    Response::document(200, XML, body)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn goal_state(state: &mut State, request: &Request, play: &Play) -> Response {
    if let Some(refusal) = method(request, "GET").or_else(|| version(request)) {
        return refusal;
    }
    let body = goal_state_document(&state.scenario, state.incarnation, play);
    if play.truncated || play.cut {
        return Response::document(200, XML, body);
    }
    state.goal_states += 1;
    if state.scenario.machine.moves_after == Some(state.goal_states) {
        state.incarnation += 1;
    }
    Response::document(200, XML, body)
}

fn goal_state_document(scenario: &Scenario, incarnation: u32, play: &Play) -> String {
    let container = escape(&scenario.machine.container);
    let instance = escape(&scenario.machine.instance);
    let address = scenario.dhcp.wireserver;
    let encoded = scenario
        .machine
        .instance
        .replace('-', "%2D")
        .replace('_', "%5F");
    let base = escape(&format!(
        "http://{address}:80/machine/{}/{encoded}",
        scenario.machine.container
    ));
    let config = |element: &str, kind: &str| {
        format!(
            "          <{element}>{base}?comp=config&amp;type={kind}&amp;incarnation={incarnation}</{element}>\n"
        )
    };
    let certificates = format!(
        "          <Certificates>{base}?comp=certificates&amp;incarnation={incarnation}</Certificates>\n"
    );
    let configuration = [
        config("HostingEnvironmentConfig", "hostingEnvironmentConfig"),
        config("SharedConfig", "sharedConfig"),
        config("ExtensionsConfig", "extensionsConfig"),
        config("FullConfig", "fullConfig"),
        if play.no_certificates {
            String::new()
        } else {
            certificates
        },
    ]
    .concat();
    let roles = if play.no_roles {
        String::new()
    } else {
        format!(
            "    <RoleInstanceList>\n      <RoleInstance>\n        <InstanceId>{instance}</InstanceId>\n        \
             <State>Started</State>\n        <Configuration>\n{configuration}          \
             <ConfigName>{instance}.1.xml</ConfigName>\n        </Configuration>\n      </RoleInstance>\n    \
             </RoleInstanceList>\n"
        )
    };
    let ports = "      <Port>16001</Port>\n".repeat(if play.noise { 400 } else { 1 });
    format!(
        "{DECLARATION}<GoalState xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:noNamespaceSchemaLocation=\"goalstate10.xsd\">\n  <Version>2010-12-15</Version>\n  \
         <Incarnation>{incarnation}</Incarnation>\n  <Machine>\n    <ExpectedState>Started</ExpectedState>\n    \
         <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>\n    <LBProbePorts>\n{ports}    </LBProbePorts>\n    \
         <ExpectHealthReport>FALSE</ExpectHealthReport>\n  </Machine>\n  <Container>\n    \
         <ContainerId>{container}</ContainerId>\n{roles}  </Container>\n</GoalState>\n"
    )
}

/// What a health report says.
struct Report<'a> {
    incarnation: &'a str,
    container: &'a str,
    instance: &'a str,
    state: &'a str,
    substatus: Option<&'a str>,
    description: &'a str,
}

fn health(state: &mut State, request: &Request, _: &Play) -> Response {
    let mut response = match envelope(request, "text/xml").or_else(|| version(request)) {
        Some(refusal) => refusal,
        None => match std::str::from_utf8(&request.body) {
            Ok(text) => health_text(state, request, text),
            Err(_) => Response::refusal(400, "the report is not UTF-8"),
        },
    };
    response.headers.push((
        "x-ms-latest-goal-state-incarnation-number".into(),
        state.incarnation.to_string(),
    ));
    response
}

fn health_text(state: &mut State, request: &Request, text: &str) -> Response {
    let refuse = |why: String| Response::refusal(400, why);
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return refuse(format!("the report is not XML: {error}")),
    };
    let mut complaints = Vec::new();
    let report = match read_report(&document, text, &mut complaints) {
        Ok(report) => report,
        Err(why) => return refuse(why),
    };
    let machine = &state.scenario.machine;
    if report.container != machine.container {
        return refuse(format!(
            "InvalidContainerConfiguration: {}",
            report.container
        ));
    }
    if report.instance != machine.instance {
        return refuse(format!(
            "InvalidRoleInstanceConfiguration: {}",
            report.instance
        ));
    }
    if state.goal_states == 0 {
        complaints.push("health: reported before the goal state was read".into());
    }
    match report.incarnation.parse::<u32>() {
        Ok(incarnation) if incarnation == state.incarnation => {}
        Ok(incarnation) if incarnation < state.incarnation => {
            let mut response = Response::document(410, "text/plain", "the goal state has moved on");
            // The scenario moved it behind the client's back, or the client made the number up.
            if state.scenario.machine.moves_after.is_none() {
                response
                    .complaints
                    .push(format!("health: incarnation {incarnation} is stale"));
            }
            return response;
        }
        _ => return refuse(format!("incarnation {} never was", report.incarnation)),
    }
    let verdict = match (report.state, report.substatus) {
        ("Ready", substatus) => {
            if substatus.is_some() {
                complaints.push("health: Ready with details".into());
            }
            Verdict::Ready
        }
        ("NotReady", Some("ProvisioningFailed")) => Verdict::Failed {
            description: report.description.into(),
        },
        ("NotReady", Some("Provisioning")) => Verdict::Creating,
        ("NotReady", None) => {
            complaints.push("health: NotReady without details".into());
            Verdict::Creating
        }
        ("NotReady", Some(other)) => return refuse(format!("SubStatus {other} is not known")),
        (other, _) => return refuse(format!("State {other} is not known")),
    };
    if verdict != Verdict::Creating {
        state.report(request.at, verdict, &mut complaints);
    }
    Response {
        complaints,
        ..Response::empty(200)
    }
}

fn read_report<'a>(
    document: &'a Document<'_>,
    text: &str,
    complaints: &mut Vec<String>,
) -> Result<Report<'a>, String> {
    let root = document.root_element();
    if !root.has_tag_name("Health") {
        return Err("the report is not a Health element".into());
    }
    let [incarnation, container] =
        children(root, ["GoalStateIncarnation", "Container"], complaints)?;
    let [container_id, list] =
        children(container, ["ContainerId", "RoleInstanceList"], complaints)?;
    let [role] = children(list, ["Role"], complaints)?;
    let [instance, health] = children(role, ["InstanceId", "Health"], complaints)?;
    let state = child(health, "State")?.ok_or("State is missing")?;
    let details = child(health, "Details")?;
    let mut report = Report {
        incarnation: leaf(incarnation)?,
        container: leaf(container_id)?,
        instance: leaf(instance)?,
        state: leaf(state)?,
        substatus: None,
        description: "",
    };
    if let Some(details) = details {
        let [substatus, description] = children(details, ["SubStatus", "Description"], complaints)?;
        report.substatus = Some(leaf(substatus)?);
        report.description = leaf(description)?;
        let source = &text[description.range()];
        let length = source
            .len()
            .saturating_sub("<Description></Description>".len());
        if length > MAX_DESCRIPTION {
            return Err(format!(
                "the description has {length} bytes, {MAX_DESCRIPTION} are allowed"
            ));
        }
    }
    Ok(report)
}

/// Finds an element's only child of a name.
fn child<'a, 'i>(parent: Node<'a, 'i>, name: &str) -> Result<Option<Node<'a, 'i>>, String> {
    let mut found = parent.children().filter(|node| node.has_tag_name(name));
    let first = found.next();
    if found.next().is_some() {
        Err(format!("more than one {name}"))
    } else {
        Ok(first)
    }
}

/// Finds an element's children, all of which must be there once; others are complained about.
fn children<'a, 'i, const N: usize>(
    parent: Node<'a, 'i>,
    names: [&str; N],
    complaints: &mut Vec<String>,
) -> Result<[Node<'a, 'i>; N], String> {
    for other in parent.children().filter(Node::is_element) {
        if !names.contains(&other.tag_name().name()) || other.tag_name().namespace().is_some() {
            complaints.push(format!(
                "health: element {} is not known",
                other.tag_name().name()
            ));
        }
    }
    let mut nodes = [parent; N];
    for (node, name) in nodes.iter_mut().zip(names) {
        *node = child(parent, name)?.ok_or_else(|| format!("{name} is missing"))?;
    }
    Ok(nodes)
}

/// Gives the text of an element that has nothing else.
fn leaf<'a>(node: Node<'a, '_>) -> Result<&'a str, String> {
    if node.children().any(|child| child.is_element()) {
        return Err(format!("{} holds elements", node.tag_name().name()));
    }
    Ok(node.text().unwrap_or_default())
}

fn properties(state: &mut State, request: &Request, _: &Play) -> Response {
    if let Some(refusal) = envelope(request, "text/xml").or_else(|| version(request)) {
        return refusal;
    }
    let text = String::from_utf8_lossy(&request.body);
    match Document::parse(&text) {
        Ok(document) if document.root_element().has_tag_name("RoleProperties") => {
            let id = document
                .descendants()
                .find(|node| node.has_tag_name("ContainerId"));
            if id.and_then(|id| id.text()) == Some(&state.scenario.machine.container) {
                Response::empty(202)
            } else {
                Response::refusal(400, "InvalidContainerConfiguration")
            }
        }
        _ => Response::refusal(400, "not a RoleProperties document"),
    }
}

fn telemetry(_: &mut State, request: &Request, _: &Play) -> Response {
    envelope(request, "text/xml")
        .or_else(|| version(request))
        .unwrap_or_else(|| Response::empty(200))
}

/// The documents below `/machine/<container>/<instance>`.
fn document(state: &mut State, request: &Request, _: &Play) -> Response {
    if let Some(refusal) = method(request, "GET").or_else(|| version(request)) {
        return refusal;
    }
    let machine = &state.scenario.machine;
    let path = request.path().replace("%2D", "-").replace("%5F", "_");
    if path != format!("/machine/{}/{}", machine.container, machine.instance) {
        return Response::refusal(404, format!("{path} is not this machine"));
    }
    let incarnation = state.incarnation;
    let asked = request
        .parameter("incarnation")
        .and_then(|number| number.parse::<u32>().ok());
    if asked.is_none_or(|asked| asked != incarnation) {
        return Response::document(410, "text/plain", "the goal state has moved on");
    }
    let name = escape(&state.scenario.vm.name);
    let instance = escape(&machine.instance);
    let component = (request.parameter("comp"), request.parameter("type"));
    let body = match component {
        (Some("certificates"), _) => {
            for header in ["x-ms-cipher-name", "x-ms-guest-agent-public-x509-cert"] {
                if request.header(header).is_none() {
                    return Response::refusal(400, format!("no {header} header"));
                }
            }
            format!(
                "<CertificateFile><Version>2012-11-30</Version><Incarnation>{incarnation}</Incarnation>\
                 <Format>CertificatesNonPfxPackage</Format><Data></Data></CertificateFile>\n"
            )
        }
        (Some("config"), Some("hostingEnvironmentConfig")) => format!(
            "<HostingEnvironmentConfig version=\"1.0.0.0\" goalStateIncarnation=\"{incarnation}\">\
             <StoredCertificates/><Deployment name=\"lab\"/><Incarnation number=\"{incarnation}\" \
             instance=\"{name}\"/><Role name=\"{name}\"/></HostingEnvironmentConfig>\n"
        ),
        (Some("config"), Some("sharedConfig")) => format!(
            "<SharedConfig version=\"1.0.0.0\" goalStateIncarnation=\"{incarnation}\"><Deployment name=\"lab\"/>\
             <Incarnation number=\"{incarnation}\" instance=\"{name}\"/><Role name=\"{name}\"/><Instances>\
             <Instance id=\"{instance}\" address=\"{}\"/></Instances></SharedConfig>\n",
            state.scenario.net.address
        ),
        (Some("config"), Some("extensionsConfig")) => format!(
            "<Extensions version=\"1.0.0.0\" goalStateIncarnation=\"{incarnation}\"><GuestAgentExtension>\
             <GAFamilies/></GuestAgentExtension><Plugins/><PluginSettings/></Extensions>\n"
        ),
        (Some("config"), Some("fullConfig")) => {
            format!("<FullConfig version=\"1.0.0.0\" goalStateIncarnation=\"{incarnation}\"/>\n")
        }
        _ => return Response::refusal(404, format!("{} is nowhere", request.target)),
    };
    Response::document(200, XML, format!("{DECLARATION}{body}"))
}

fn json_health(state: &mut State, request: &Request, _: &Play) -> Response {
    if let Some(refusal) = envelope(request, "application/json") {
        return refusal;
    }
    let report: Value = match serde_json::from_slice(&request.body) {
        Ok(report) => report,
        Err(error) => return Response::refusal(400, format!("the report is not JSON: {error}")),
    };
    let mut complaints = Vec::new();
    if request.header("x-ms-guest-agent-name").is_none() {
        complaints.push("health: no x-ms-guest-agent-name header".into());
    }
    let known = |value: &Value, names: &[&str]| {
        value
            .as_object()
            .is_some_and(|map| map.keys().all(|key| names.contains(&key.as_str())))
    };
    let details = &report["details"];
    if !known(&report, &["state", "details"])
        || !(details.is_null() || known(details, &["subStatus", "description"]))
    {
        return Response::refusal(400, "the report is not an object of state and details");
    }
    let description = details["description"].as_str().unwrap_or_default();
    if description.len() > MAX_DESCRIPTION {
        return Response::refusal(400, "the description is too long");
    }
    match (report["state"].as_str(), details["subStatus"].as_str()) {
        (Some("Ready"), None) => state.report(request.at, Verdict::Ready, &mut complaints),
        (Some("NotReady"), Some("Provisioning")) => {}
        (Some("NotReady"), Some("ProvisioningFailed")) => {
            let verdict = Verdict::Failed {
                description: description.into(),
            };
            state.report(request.at, verdict, &mut complaints);
        }
        _ => return Response::refusal(400, "state and subStatus are not known"),
    }
    Response {
        complaints,
        ..Response::empty(201)
    }
}
