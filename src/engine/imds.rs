//! The question to the instance metadata service: who shall this machine be?
//!
//! Asked beside the conversation with the WireServer, and again for as long as an answer may still
//! come: the service of a new machine needs some seconds. Somebody else decides how long it is waited
//! for. Follows Microsoft's list of the service's status codes, and cloud-init where that is silent.

use core::fmt;
use core::time::Duration;

use super::backoff::{Backoff, Random};
use super::exchange::{self, Endpoint, Exchange, ExchangeFault};
use super::transport::Connection;
use crate::wire::dhcp;
use crate::wire::http::{HttpFault, Response};
use crate::wire::imds::{self, ImdsFault, Metadata, Version};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// When a service that answers, but not with the document, is given up.
const PATIENCE: Duration = Duration::from_mins(5);
/// Unanswered tries in a row after which there is no such service, as on Azure Stack: half a minute.
const UNANSWERED: u8 = 8;
/// The service must not make us wait beyond reason.
const LONGEST_RETRY_AFTER: u32 = 120;

/// Why there is no metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryFault {
    /// There was no whole answer.
    Exchange(ExchangeFault),
    /// The service answered with a status other than success.
    Status(u16),
    /// The document cannot be used.
    Document(ImdsFault),
}

impl fmt::Display for QueryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            QueryFault::Status(status) => return write!(f, "http error {status} querying IMDS"),
            QueryFault::Document(fault) => return fault.fmt(f),
            QueryFault::Exchange(ExchangeFault::Unreachable) => "connection timeout",
            QueryFault::Exchange(ExchangeFault::Silent) => "read timeout",
            QueryFault::Exchange(ExchangeFault::Reset) => "connection error",
            QueryFault::Exchange(ExchangeFault::Answer(_)) => "unexpected error",
        };
        write!(f, "{what} querying IMDS")
    }
}

/// The question.
pub struct Query<'b> {
    random: Random,
    buffer: &'b mut [u8],
    version: Version,
    exchange: Option<Exchange>,
    /// Not before this.
    wait_until: Duration,
    backoff: Backoff,
    give_up: Duration,
    unanswered: u8,
    fault: Option<QueryFault>,
    metadata: Option<Metadata>,
    over: bool,
}

impl<'b> Query<'b> {
    /// Creates a question; `buffer` holds one response and bounds its size.
    pub fn new(random: Random, buffer: &'b mut [u8], now: Duration) -> Self {
        Query {
            random,
            buffer,
            version: Version::Newest,
            exchange: None,
            wait_until: Duration::ZERO,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            give_up: now.saturating_add(PATIENCE),
            unanswered: 0,
            fault: None,
            metadata: None,
            over: false,
        }
    }

    /// Tells whether there is an answer, or never will be one.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes the answer.
    pub fn take(&mut self) -> Option<Metadata> {
        self.metadata.take()
    }

    /// Returns what went wrong last.
    pub fn fault(&self) -> Option<&QueryFault> {
        self.fault.as_ref()
    }

    /// Returns when [`Query::poll`] has something to do even if no frame arrives.
    pub fn due(&self) -> Option<Duration> {
        if self.over {
            return None;
        }
        let deadline = self.exchange.as_ref().map(Exchange::deadline);
        Some(deadline.unwrap_or(self.wait_until))
    }

    /// Moves the question on.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub fn poll(&mut self, now: Duration, connection: &mut dyn Connection) {
        // Each turn ends one exchange at most; the second asks for the older version at once.
        for _ in 0..2 {
            if self.over || now < self.wait_until {
                return;
            }
            let exchange = match &mut self.exchange {
                Some(exchange) => exchange,
                None => match imds::request(self.version, dhcp::IMDS) {
                    None => return,
                    Some(request) => self.exchange.insert(Exchange::new(
                        request,
                        Endpoint {
                            address: dhcp::IMDS,
                            port: 80,
                        },
                    )),
                },
            };
            let Some(result) = exchange.poll(now, connection, self.buffer) else {
                return;
            };
            self.exchange = None;
            let next = match result {
                Ok(response) => {
                    self.unanswered = 0;
                    self.answered(&response)
                }
                Err(fault) => {
                    self.unanswered = self.unanswered.saturating_add(1);
                    self.fault = Some(QueryFault::Exchange(fault));
                    if self.unanswered >= UNANSWERED
                        || fault == ExchangeFault::Answer(HttpFault::TooLarge)
                    {
                        Next::Nothing
                    } else {
                        Next::Again(0)
                    }
                }
            };
            match next {
                Next::Again(asked) if now < self.give_up => {
                    connection.close();
                    let asked = Duration::from_secs(asked.min(LONGEST_RETRY_AFTER).into());
                    let wait = self.backoff.next(&mut self.random).max(asked);
                    self.wait_until = now.saturating_add(wait);
                }
                Next::Again(_) | Next::Nothing => {
                    connection.close();
                    self.over = true;
                }
                Next::AtOnce => {}
            }
        }
    }

    fn answered(&mut self, response: &Response) -> Next {
        let status = response.status;
        if status != 200 {
            self.fault = Some(QueryFault::Status(status));
            return match status {
                400 if self.version == Version::Newest => {
                    self.version = Version::Oldest;
                    Next::AtOnce
                }
                404 | 410 | 429 | 500..=599 => Next::Again(response.retry_after.unwrap_or(0)),
                _ => Next::Nothing,
            };
        }
        match imds::parse(exchange::body(self.buffer, response.body.clone())) {
            Ok(metadata) => {
                self.metadata = Some(metadata);
                Next::Nothing
            }
            Err(fault) => {
                self.fault = Some(QueryFault::Document(fault));
                Next::Again(0)
            }
        }
    }
}

/// What follows an exchange.
enum Next {
    /// Another one, right away.
    AtOnce,
    /// Another one, not before this many seconds.
    Again(u32),
    /// None.
    Nothing,
}
