//! The conversation with the WireServer: goal state, then health, until the platform has it.
//!
//! The first door wants the goal state echoed in XML and is there on every platform; the second
//! takes JSON without one and is tried where the first does not work. What the platform answers
//! decides what comes next; the caller's budget decides when to stop.

use alloc::string::String;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::backoff::{Backoff, Random};
use super::exchange::{self, Endpoint, Exchange, ExchangeFault};
use super::transport::{Connection, State};
use crate::wire::goalstate::{self, GoalState, GoalStateFault};
use crate::wire::health::{self, Health};
use crate::wire::http::{Request, Response};

/// A goal state older than this is fetched again before a report: it changes when the platform
/// moves the machine.
const FRESH: Duration = Duration::from_secs(2);
/// Less than a second between posts is answered with 503.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The platform may serve a goal state without roles for a while; waagent asks this often.
const ROLES_WAIT: Duration = Duration::from_millis(500);
/// Failures of the first door before the second is tried; a plain "not found" weighs [`NOT_FOUND`].
const DOOR_TRIES: u8 = 6;
const NOT_FOUND: u8 = 3;
/// Unanswered exchanges in a row before the lease is doubted: about a minute.
const CUT_OFF: u8 = 6;
/// A server must not make us wait beyond reason.
const LONGEST_RETRY_AFTER: u32 = 120;

const AGENT: &str = concat!("x-ms-agent-name: ", env!("CARGO_PKG_NAME"));
const GUEST_AGENT: &str = concat!(
    "x-ms-guest-agent-name: ",
    env!("CARGO_PKG_NAME"),
    "/",
    env!("CARGO_PKG_VERSION")
);
const VERSION: &str = "x-ms-version: 2012-11-30";

/// Which of the WireServer's doors is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/machine?comp=health`, in XML, after the goal state.
    Xml,
    /// `/provisioning/health`, in JSON.
    Json,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Door::Xml => "xml",
            Door::Json => "json",
        })
    }
}

/// What went wrong last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireserverFault {
    /// There was no whole answer.
    Exchange(ExchangeFault),
    /// The server answered with a status other than success.
    Status(Step, u16),
    /// The goal state cannot be used.
    GoalState(GoalStateFault),
    /// The report does not fit into a request.
    TooLarge,
}

/// The steps of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Fetching the goal state.
    GoalState,
    /// Publishing the host key's fingerprint.
    Properties,
    /// Posting the report.
    Health,
}

impl fmt::Display for WireserverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireserverFault::Exchange(ExchangeFault::Unreachable) => {
                f.write_str("no answer to the connection")
            }
            WireserverFault::Exchange(ExchangeFault::Reset) => f.write_str("connection refused"),
            WireserverFault::Exchange(ExchangeFault::Silent) => f.write_str("no answer in time"),
            WireserverFault::Exchange(ExchangeFault::Answer(_)) => {
                f.write_str("an answer that is not whole HTTP")
            }
            WireserverFault::Status(step, status) => write!(f, "{step} answered {status}"),
            WireserverFault::GoalState(fault) => fault.fmt(f),
            WireserverFault::TooLarge => f.write_str("the report is too large"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::GoalState => "goalstate",
            Step::Properties => "roleProperties",
            Step::Health => "health",
        })
    }
}

/// How the conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The platform has the report.
    Accepted {
        /// Whether the report that it has says ready.
        ready: bool,
        /// Through which door.
        door: Door,
        /// With which status.
        status: u16,
    },
    /// The platform does not want it, and asking again will not help.
    Refused {
        /// The status.
        status: u16,
    },
    /// The report cannot even be written.
    Impossible,
}

/// The conversation.
#[derive(Debug)]
pub struct Wireserver<'b> {
    endpoint: Endpoint,
    random: Random,
    buffer: &'b mut [u8],
    exchange: Option<(Step, Exchange)>,
    goal: Option<(GoalState, Duration)>,
    /// The fingerprint that is still to be published.
    fingerprint: Option<String>,
    door: Door,
    /// How often the first door has not worked, apart from trouble on the way to it.
    door_failures: u8,
    /// Not before this.
    wait_until: Duration,
    backoff: Backoff,
    fault: Option<WireserverFault>,
    faults: u32,
    /// Whether the report under way says ready: what is to be reported may change meanwhile.
    says_ready: bool,
    /// Exchanges in a row that nobody answered.
    unanswered: u8,
    outcome: Option<Outcome>,
}

impl<'b> Wireserver<'b> {
    /// Creates a conversation; `buffer` holds one response and bounds its size.
    pub fn new(endpoint: Endpoint, random: Random, buffer: &'b mut [u8]) -> Self {
        Wireserver {
            endpoint,
            random,
            buffer,
            exchange: None,
            goal: None,
            fingerprint: None,
            door: Door::Xml,
            door_failures: 0,
            wait_until: Duration::ZERO,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            fault: None,
            faults: 0,
            says_ready: false,
            unanswered: 0,
            outcome: None,
        }
    }

    /// Has the host key's fingerprint published before the machine is reported ready.
    ///
    /// Once, whatever comes of it: only the report counts.
    pub fn publish(&mut self, fingerprint: String) {
        self.fingerprint = Some(fingerprint);
    }

    /// Returns the server's address.
    pub fn address(&self) -> Ipv4Addr {
        self.endpoint.address
    }

    /// Returns the last fault, and how many there were.
    pub fn fault(&self) -> Option<(WireserverFault, u32)> {
        self.fault.map(|fault| (fault, self.faults))
    }

    /// Returns when the next try is due after a fault.
    pub fn wait_until(&self) -> Duration {
        self.wait_until
    }

    /// Tells whether nobody has answered for so long that the way itself is in doubt.
    pub fn is_cut_off(&self) -> bool {
        self.unanswered >= CUT_OFF
    }

    /// Tells when the goal state was fetched last.
    pub fn goal_state_at(&self) -> Option<Duration> {
        self.goal.as_ref().map(|(_, at)| *at)
    }

    /// Returns when [`Wireserver::poll`] has something to do even if no frame arrives.
    pub fn due(&self) -> Option<Duration> {
        if self.outcome.is_some() {
            return None;
        }
        match &self.exchange {
            Some((_, exchange)) => Some(exchange.deadline()),
            None => Some(self.wait_until),
        }
    }

    /// Moves the conversation on.
    ///
    /// Without a report to make, the goal state is fetched once: it shows that the WireServer is
    /// there, and if the report follows soon it saves its round trip.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub fn poll(
        &mut self,
        now: Duration,
        connection: &mut dyn Connection,
        report: Option<Health<'_>>,
    ) -> Option<Outcome> {
        // Each turn ends one exchange at most, and starts one at most.
        for _ in 0..4 {
            if self.outcome.is_some() {
                return self.outcome;
            }
            if self.exchange.is_none() {
                if now < self.wait_until {
                    return None;
                }
                let step = self.next_step(now, connection, report)?;
                let Some(request) = self.request(step, report) else {
                    self.fail(WireserverFault::TooLarge);
                    self.outcome = Some(Outcome::Impossible);
                    continue;
                };
                self.says_ready = report == Some(Health::Ready);
                self.exchange = Some((step, Exchange::new(request, self.endpoint)));
            }
            let (step, exchange) = self.exchange.as_mut()?;
            let step = *step;
            let result = exchange.poll(now, connection, self.buffer)?;
            self.exchange = None;
            if step == Step::Properties {
                self.fingerprint = None;
            }
            match result {
                Ok(response) => {
                    self.unanswered = 0;
                    self.answered(now, step, &response);
                }
                Err(fault) => {
                    self.unanswered = self.unanswered.saturating_add(1);
                    connection.abort();
                    self.fail(WireserverFault::Exchange(fault));
                    self.hold_back(now, None);
                }
            }
        }
        self.outcome
    }

    fn next_step(
        &self,
        now: Duration,
        connection: &mut dyn Connection,
        report: Option<Health<'_>>,
    ) -> Option<Step> {
        if self.door == Door::Json {
            return report.map(|_| Step::Health);
        }
        match (&self.goal, report) {
            (None, _) => Some(Step::GoalState),
            (Some(_), None) => None,
            (Some((_, at)), Some(_)) => {
                let fresh = now.saturating_sub(*at) <= FRESH && connection.state() == State::Open;
                // Right after it was fetched it is fresh even if the server closed the connection.
                Some(if !(fresh || *at == now) {
                    Step::GoalState
                } else if self.fingerprint.is_some() {
                    Step::Properties
                } else {
                    Step::Health
                })
            }
        }
    }

    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn request(&self, step: Step, report: Option<Health<'_>>) -> Option<Request> {
        let host = self.endpoint.address;
        match (step, self.door) {
            (Step::GoalState, _) => Request::new(
                "GET",
                "/machine/?comp=goalstate",
                host,
                &[VERSION, AGENT],
                None,
            ),
            (Step::Properties, _) => {
                let (goal, _) = self.goal.as_ref()?;
                let body = health::properties(self.fingerprint.as_ref()?, goal)?;
                let fields = [VERSION, AGENT, "Content-Type: text/xml; charset=utf-8"];
                let path = "/machine?comp=roleProperties";
                Request::new("POST", path, host, &fields, Some(&body))
            }
            (Step::Health, Door::Xml) => {
                let (goal, _) = self.goal.as_ref()?;
                let body = health::xml(report?, goal)?;
                let fields = [
                    VERSION,
                    AGENT,
                    "Content-Type: text/xml; charset=utf-8",
                    "Connection: close",
                ];
                Request::new("POST", "/machine/?comp=health", host, &fields, Some(&body))
            }
            (Step::Health, Door::Json) => {
                let body = health::json(report?)?;
                let fields = [
                    GUEST_AGENT,
                    "Content-Type: application/json",
                    "Connection: close",
                ];
                Request::new("POST", "/provisioning/health", host, &fields, Some(&body))
            }
        }
    }

    fn answered(&mut self, now: Duration, step: Step, response: &Response) {
        let status = response.status;
        if !(200..300).contains(&status) {
            self.fail(WireserverFault::Status(step, status));
            if step != Step::Properties {
                self.turned_away(now, step, response);
            }
            return;
        }
        match step {
            Step::Properties => {}
            Step::Health => {
                self.outcome = Some(Outcome::Accepted {
                    ready: self.says_ready,
                    door: self.door,
                    status,
                });
            }
            Step::GoalState => {
                match goalstate::parse(exchange::body(self.buffer, response.body.clone())) {
                    Ok(goal) => self.goal = Some((goal, now)),
                    Err(fault) => {
                        self.fail(WireserverFault::GoalState(fault));
                        self.door_failed(1);
                        self.wait_until = now.saturating_add(ROLES_WAIT);
                    }
                }
            }
        }
    }

    /// Decides what a status other than success means.
    fn turned_away(&mut self, now: Duration, step: Step, response: &Response) {
        match response.status {
            401 | 405 if step == Step::Health => {
                self.outcome = Some(Outcome::Refused {
                    status: response.status,
                });
            }
            // The goal state that was echoed has moved on. The first time this is ordinary, and
            // costs no wait.
            400 | 410 if step == Step::Health && self.door == Door::Xml => {
                self.goal = None;
                if self.backoff.tries() > 0 {
                    self.hold_back(now, response.retry_after);
                } else {
                    let _ = self.backoff.next(&mut self.random);
                }
            }
            404 | 405 | 501 => {
                self.door_failed(NOT_FOUND);
                self.hold_back(now, response.retry_after);
            }
            _ => self.hold_back(now, response.retry_after),
        }
    }

    /// Counts a failure of the door itself, and tries the other one when there are too many.
    fn door_failed(&mut self, weight: u8) {
        self.door_failures = self.door_failures.saturating_add(weight);
        let tries = match self.door {
            Door::Xml => DOOR_TRIES,
            // Where there is no second door, the first is the better bet after all.
            Door::Json => 1,
        };
        if self.door_failures >= tries {
            self.door_failures = 0;
            self.door = match self.door {
                Door::Xml => Door::Json,
                Door::Json => Door::Xml,
            };
        }
    }

    fn hold_back(&mut self, now: Duration, retry_after: Option<u32>) {
        let wait = self.backoff.next(&mut self.random);
        let asked =
            Duration::from_secs(u64::from(retry_after.unwrap_or(0).min(LONGEST_RETRY_AFTER)));
        self.wait_until = now.saturating_add(wait.max(asked));
    }

    fn fail(&mut self, fault: WireserverFault) {
        self.fault = Some(fault);
        self.faults = self.faults.saturating_add(1);
    }
}
