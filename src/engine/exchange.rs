//! One HTTP request and its response over a [`Connection`].

use core::net::Ipv4Addr;
use core::ops::Range;
use core::time::Duration;

use super::transport::{Connection, State};
use crate::wire::http::{self, HttpFault, Request, Response};

/// How long the server may take to accept a connection before another one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The server's address.
    pub address: Ipv4Addr,
    /// The server's port.
    pub port: u16,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeFault {
    /// Nobody accepted the connection.
    Unreachable,
    /// The server refused the connection, or broke it off.
    Reset,
    /// The server took the request and did not answer in time.
    Silent,
    /// The answer is no HTTP, cut short, or too large.
    Answer(HttpFault),
}

/// A request on its way.
#[derive(Debug)]
pub struct Exchange {
    request: Request,
    endpoint: Endpoint,
    sent: usize,
    filled: usize,
    phase: Phase,
    deadline: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Opening,
    /// On a connection that an earlier exchange left open: it may be dead, and then a new one is
    /// opened without complaint.
    Reusing,
    Open,
}

impl Exchange {
    /// Creates an exchange that starts at the next poll.
    pub fn new(request: Request, endpoint: Endpoint) -> Self {
        Exchange {
            request,
            endpoint,
            sent: 0,
            filled: 0,
            phase: Phase::Start,
            deadline: Duration::ZERO,
        }
    }

    /// Returns when the exchange fails if nothing happens.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Moves the exchange on; the response's body will lie in `buffer`.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub fn poll(
        &mut self,
        now: Duration,
        connection: &mut dyn Connection,
        buffer: &mut [u8],
    ) -> Option<Result<Response, ExchangeFault>> {
        if self.phase == Phase::Start {
            if connection.state() == State::Open {
                self.phase = Phase::Reusing;
                self.deadline = now.saturating_add(ANSWER_TIMEOUT);
            } else {
                self.open(now, connection);
            }
        }
        let state = connection.state();
        if self.phase == Phase::Opening {
            match state {
                State::Opening if now < self.deadline => return None,
                State::Opening => return Some(Err(ExchangeFault::Unreachable)),
                State::Closed => return Some(Err(ExchangeFault::Reset)),
                State::Open | State::Ending => {
                    self.phase = Phase::Open;
                    self.deadline = now.saturating_add(ANSWER_TIMEOUT);
                }
            }
        }
        if state == State::Open {
            let rest = self.request.as_bytes().get(self.sent..).unwrap_or_default();
            self.sent = self.sent.saturating_add(connection.send(rest));
        }
        let ended = loop {
            let space = buffer.get_mut(self.filled..).unwrap_or_default();
            if space.is_empty() {
                return Some(Err(ExchangeFault::Answer(HttpFault::TooLarge)));
            }
            match connection.receive(space) {
                0 => break matches!(connection.state(), State::Closed | State::Ending),
                count => self.filled = self.filled.saturating_add(count),
            }
        };
        let arrived = buffer.get_mut(..self.filled).unwrap_or_default();
        if arrived.is_empty() && ended {
            if self.phase == Phase::Reusing {
                // The server had closed it while we were not looking.
                self.sent = 0;
                self.open(now, connection);
                return None;
            }
            return Some(Err(ExchangeFault::Reset));
        }
        match http::parse(arrived, ended) {
            Err(fault) => Some(Err(ExchangeFault::Answer(fault))),
            Ok(Some(response)) => {
                if !response.keep_alive {
                    connection.close();
                }
                Some(Ok(response))
            }
            Ok(None) if now >= self.deadline => Some(Err(ExchangeFault::Silent)),
            Ok(None) => None,
        }
    }

    fn open(&mut self, now: Duration, connection: &mut dyn Connection) {
        connection.open(now, self.endpoint.address, self.endpoint.port);
        self.phase = Phase::Opening;
        self.deadline = now.saturating_add(CONNECT_TIMEOUT);
    }
}

/// Returns the body of a response that was parsed from `buffer`.
pub fn body(buffer: &[u8], range: Range<usize>) -> &[u8] {
    buffer.get(range).unwrap_or_default()
}
