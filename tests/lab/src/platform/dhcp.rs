//! The DHCP server of the host: one lease for each network card, the same one every time.
//!
//! It answers as captures of Azure's server show: all times infinite, option 245 always, option 121 only to who
//! asks for it, the DNS server and its own address 168.63.129.16. It has no pool, no relay and no storage.
//! A scenario may give leases that end, refuse or overhear who renews one, and move the server elsewhere.
//! Follows RFC 2131, 2132, 3396, 3442 and 4361; whatever a client does that is not in them is complained about.

mod lease;
mod message;
mod server;
mod spoken;
mod words;

pub use lease::State;
pub use message::Kind;
pub(crate) use server::{Arrival, Departure, Network, Server};
pub use spoken::Spoken;
