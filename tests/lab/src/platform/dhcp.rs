//! The DHCP server of the host: one lease for each network card, the same one every time.
//!
//! It answers as captures of Azure's server show: all times infinite, option 245 always, option 121 only to who
//! asks for it, the DNS server and its own address 168.63.129.16. It has no pool, no relay and no storage.
//! Follows RFC 2131, 2132, 3396, 3442 and 4361; whatever a client does that is not in them is complained about.

mod message;
mod server;

pub(crate) use server::{Arrival, Departure, Network, Server};
