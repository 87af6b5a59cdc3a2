//! A plain provisioning agent on the small VM: lease, goal state, Ready, with retries that any agent would have.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::platform::Scenario;
use smoltcp::iface::SocketHandle;

use crate::guest::{Answer, Guest, Tcp, Trouble, WIRESERVER};

pub(crate) const GOAL_STATE: &str = "GET /machine/?comp=goalstate HTTP/1.1\r\nHost: 168.63.129.16\r\n\
    x-ms-version: 2012-11-30\r\nx-ms-agent-name: lab-test\r\n\r\n";

const PATIENCE: Duration = Duration::from_secs(10);

/// A report in the form of waagent, cloud-init and afterburn.
pub(crate) fn health(incarnation: &str, container: &str, instance: &str, inner: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Health xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\"><GoalStateIncarnation>{incarnation}</GoalStateIncarnation>\
         <Container><ContainerId>{container}</ContainerId><RoleInstanceList><Role><InstanceId>{instance}</InstanceId>\
         <Health>{inner}</Health></Role></RoleInstanceList></Container></Health>"
    );
    format!(
        "POST /machine?comp=health HTTP/1.1\r\nHost: 168.63.129.16\r\nx-ms-version: 2012-11-30\r\n\
         x-ms-agent-name: lab-test\r\nContent-Type: text/xml;charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) const READY: &str = "<State>Ready</State>";

fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once('<')?.0)
}

/// An agent at work.
pub(crate) struct Agent {
    pub(crate) guest: Guest,
    pub(crate) tcp: Tcp,
    open: Option<SocketHandle>,
}

impl Agent {
    /// Gets a lease and makes its TCP ready.
    pub(crate) fn start(scenario: Scenario) -> Option<Self> {
        let mut guest = Guest::new(scenario);
        let lease = guest.lease()?;
        let gateway = lease
            .option(3)
            .map_or(Ipv4Addr::new(10, 0, 0, 1), |routers| {
                Ipv4Addr::new(routers[0], routers[1], routers[2], routers[3])
            });
        let tcp = Tcp::new(&guest, lease.yiaddr(), gateway);
        Some(Self {
            guest,
            tcp,
            open: None,
        })
    }

    /// Asks once, on the open connection when there is one.
    pub(crate) fn ask(
        &mut self,
        to: Ipv4Addr,
        port: u16,
        request: &str,
    ) -> Result<Answer, Trouble> {
        let handle = self.open.take().unwrap_or_else(|| self.tcp.dial(to, port));
        let whole = |bytes: &[u8]| Answer::parse(bytes, false).is_some();
        let bytes = self
            .tcp
            .talk(&mut self.guest, handle, request.as_bytes(), PATIENCE, whole)?;
        let answer = Answer::parse(&bytes, true).ok_or(Trouble::Broken)?;
        if answer.closes {
            self.tcp.socket(handle).close();
        } else if to == WIRESERVER {
            self.open = Some(handle);
        }
        Ok(answer)
    }

    fn pause(&mut self, time: Duration) {
        self.tcp.live(&mut self.guest, time, |_| false);
    }

    /// Provisions nothing, but reports Ready; gives up after some minutes.
    pub(crate) fn report(&mut self) {
        for _ in 0..12 {
            let Ok(answer) = self.ask(WIRESERVER, 80, GOAL_STATE) else {
                self.pause(Duration::from_secs(2));
                continue;
            };
            if answer.status == 404 && self.report_by_json() {
                return;
            }
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let (Some(incarnation), Some(container), Some(instance), 200) = (
                between(&text, "Incarnation"),
                between(&text, "ContainerId"),
                between(&text, "InstanceId"),
                answer.status,
            ) else {
                self.pause(Duration::from_secs(2));
                continue;
            };
            let report = health(incarnation, container, instance, READY);
            match self.ask(WIRESERVER, 80, &report) {
                Ok(answer) if answer.status == 200 => return,
                Ok(answer) if answer.status == 410 => {}
                _ => self.pause(Duration::from_secs(2)),
            }
        }
    }

    fn report_by_json(&mut self) -> bool {
        let body = "{\"state\":\"Ready\"}";
        let request = format!(
            "POST /provisioning/health HTTP/1.1\r\nHost: 168.63.129.16\r\nx-ms-guest-agent-name: lab-test\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.ask(WIRESERVER, 80, &request)
            .is_ok_and(|answer| answer.status == 201)
    }

    /// Asks the metadata service.
    pub(crate) fn metadata(&mut self, target: &str) -> Result<Answer, Trouble> {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n"
        );
        self.open = None;
        self.ask(crate::guest::IMDS, 80, &request)
    }
}
