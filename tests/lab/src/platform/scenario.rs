//! What the simulated platform is like and what goes wrong in it.
//!
//! [`Scenario::default`] is a healthy VM: network 10.0.0.0/24, VM 10.0.0.4, gateway 10.0.0.1. Everything that may
//! differ is a field. The text form has one `key = value` on a line; `#` starts a comment; later lines win, but
//! the keys marked + add up. Times are written `500us`, `20ms`, `3s`, `2m`; switches `yes` and `no`; lists are
//! separated by commas. `base = NAME`, first, starts from a named scenario instead of the healthy one.
//!
//! | key | meaning |
//! |---|---|
//! | `name` | what the scenario is called |
//! | `link.latency` | added to each frame, one way |
//! | `link.lose.from_guest`, `link.lose.to_guest`, `link.lose.any` | frames that vanish, counted from 1 in that direction (any: in both together): `3`, `5-7`, `*/10` for each tenth |
//! | `net.address`, `net.mask`, `net.gateway`, `net.gateway_mac` | the primary NIC's network |
//! | `net.primary` | MAC of the primary NIC; without it the first that speaks is it |
//! | `net.there` | further addresses that answer ARP |
//! | `net.ping` | how often the gateway pings each NIC that has been heard of |
//! | `net.conflict` | somebody else has the VM's address and answers ARP for it |
//! | `net.second.address`, `net.second.gateway` | network of all other NICs, counting up from this address, /24 |
//! | `dhcp.answer` | `no`: DISCOVER and REQUEST are heard and never answered |
//! | `dhcp.ignore`, `dhcp.nak`, `dhcp.garbage` | the first N DISCOVERs stay unanswered; the first N REQUESTs are refused; rubbish precedes the first N answers |
//! | `dhcp.delay` | time that the server thinks |
//! | `dhcp.server` | option 54 and source address |
//! | `dhcp.mask`, `dhcp.routers`, `dhcp.dns`, `dhcp.domain`, `dhcp.wireserver` | options 1, 3, 6, 15, 245 |
//! | `dhcp.lease`, `dhcp.t1`, `dhcp.t2` | seconds or `infinite`: options 51, 58, 59; without the last two half and seven eighths of the lease. Who uses an address when its lease is over is complained about |
//! | `dhcp.renewals.ignore`, `dhcp.renewals.nak` | the first N REQUESTs to the server alone for more time stay unanswered; the first N REQUESTs for more time, to it or to all, are refused |
//! | `dhcp.server.moves` | where the server is when it has given a lease: the old address is silent, and who asks all is answered from here |
//! | `dhcp.routes` | option 121 as `DEST/BITS via ROUTER` list; sent only to who asks |
//! | `dhcp.without` + | options never sent |
//! | `dhcp.option.N` + | option N with these bytes, in hexadecimal, always sent |
//! | `dhcp.hostname`, `dhcp.mtu`, `dhcp.search`, `dhcp.routes249` | options 12, 26, 119 and, `yes`, 249 like 121 |
//! | `dhcp.split`, `dhcp.overload` | options in pieces (RFC 3396); options in `file` and `sname` (option 52) |
//! | `dhcp.rival`, `dhcp.rival.address`, `dhcp.rival.first` | another server in the network, the address it gives, whether it is faster |
//! | `tcp.wireserver`, `tcp.imds`, `tcp.hostplugin` | `open`, `silent` (SYN unanswered), `refused`, `reset` (at the first byte), `unreachable` (the router says that there is no such host) |
//! | `versions.answers`, `goalstate.answers`, `health.answers`, `jsonhealth.answers`, `properties.answers`, `documents.answers`, `imds.answers`, `reprovision.answers`, `hostplugin.answers` | how the first, second, ... request there is answered, see below |
//! | `http.retry_after` | seconds in `Retry-After` of each 429 and 503 |
//! | `machine.container`, `machine.instance`, `machine.incarnation` | what the goal state says |
//! | `machine.moves_after` | the incarnation moves on after N goal states, so that the next report is stale |
//! | `vm.id`, `vm.name`, `vm.location`, `vm.size` | what IMDS says of the resource |
//! | `vm.computer_name`, `vm.user`, `vm.key` +, `vm.password_login`, `vm.custom_data`, `vm.pps` | what IMDS says of the identity, see below; empty: no name, no user, no key, no `ppsType` |
//! | `vm.user_data`, `vm.user_data_size` | user data as IMDS has it, in base64; or so many bytes of it, made up |
//! | `imds.newest` | api-versions after this one are refused with 400 |
//! | `disc` | `no`: the drive is empty |
//! | `disc.host_name`, `disc.user`, `disc.key` +, `disc.password`, `disc.password_login`, `disc.custom_data`, `disc.agent`, `disc.pps` | what the disc says where it differs from the usual one; `disc.custom_data` is plain text, `disc.agent` is `ProvisionGuestAgent` |
//!
//! Disc and IMDS say the same of the identity where only one of them is told what to say. Without a disc IMDS says
//! nothing that it was not told to, as for a specialized image. In `vm.key`, `vm.user_data`, `disc.key` and
//! `disc.custom_data` the words `\r`, `\n` and `\\` stand for their letter. Where no disc is made (unit tests, plugs
//! of other programs), IMDS has an identity of its own: user `opsadmin` of host `demo01`.
//!
//! An answers list is `ANSWER, ANSWER, ...`; the last one stays; `ANSWER*5` is five of them. An answer is words
//! joined by `+`: `ok` (or 200, 201, 202) for the honest answer, any other status number, `delay:TIME` before the
//! first byte, `drip:TIME` between bytes, `chunked`, `bom`, `unsized` (no Content-Length, then close), `close`,
//! `cut` (closed in the middle), `reset`, `hangup` (closed without an answer), `never`, `garbage` (not HTTP),
//! `noroles`, `nocerts`, `noise` (goal state of more than 8 KiB, metadata of more than 16 KiB), `truncated` (a whole
//! answer with half a document), `html` (200 with a page for people), `empty` (200 with nothing); of metadata also
//! `escaped` (every letter of a value as `\uXXXX`) and `booleans` (`true`, not `"true"`).

mod identity;
mod named;
mod play;
mod text;

use std::net::Ipv4Addr;
use std::time::Duration;

pub use identity::{Disc, Identity};
pub use play::{Play, Script};
pub use text::ScenarioError;

use super::frame::Mac;

/// The whole of what the platform is and does.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// The wire.
    pub link: Link,
    /// The addresses.
    pub net: Net,
    /// The DHCP server.
    pub dhcp: Dhcp,
    /// What happens to connections.
    pub tcp: Tcp,
    /// What happens to requests.
    pub answers: Answers,
    /// What the `Retry-After` header of a 429 or 503 says.
    pub retry_after: Option<Duration>,
    /// The wireserver's idea of the VM.
    pub machine: Machine,
    /// The metadata service's idea of the VM.
    pub vm: Vm,
    /// What is in the drive, for whoever makes the disc.
    pub disc: Disc,
    /// The newest api-version that the metadata service knows, when it is an old one.
    pub imds_newest: Option<String>,
}

/// The wire between the VM and its host.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Added to each frame, one way.
    pub latency: Duration,
    /// Frames of the VM that vanish.
    pub lose_from_guest: Picks,
    /// Frames to the VM that vanish.
    pub lose_to_guest: Picks,
    /// Frames of either direction that vanish, counted together.
    pub lose_any: Picks,
}

/// Chooses some of a row of things that is counted from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picks(pub Vec<Pick>);

impl Picks {
    /// Whether thing number `number` is chosen.
    pub fn has(&self, number: u64) -> bool {
        self.0.iter().any(|pick| match *pick {
            Pick::Range(first, last) => (first..=last).contains(&number),
            Pick::Each(step) => number.is_multiple_of(step),
        })
    }
}

/// One rule of [`Picks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// From the first to the second, both included.
    Range(u64, u64),
    /// Each n-th; n is not 0.
    Each(u64),
}

/// The addresses of the VM and of what surrounds it.
#[derive(Debug, Clone)]
pub struct Net {
    /// The primary NIC's address.
    pub address: Ipv4Addr,
    /// The subnet's mask.
    pub mask: Ipv4Addr,
    /// The router of the subnet; everything else is behind it.
    pub gateway: Ipv4Addr,
    /// The router's Ethernet address.
    pub gateway_mac: Mac,
    /// The primary NIC, or the first that speaks.
    pub primary: Option<Mac>,
    /// Further addresses that answer ARP.
    pub there: Vec<Ipv4Addr>,
    /// How often the gateway pings the cards.
    pub ping: Option<Duration>,
    /// Whether somebody else answers ARP for the VM's address.
    pub conflict: bool,
    /// The address of the first other NIC.
    pub second_address: Ipv4Addr,
    /// The router of the other NICs.
    pub second_gateway: Ipv4Addr,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(10, 0, 0, 4),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            // What `arp -n` shows for the gateway on every Azure VM.
            gateway_mac: [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc],
            primary: None,
            there: Vec::new(),
            ping: None,
            conflict: false,
            second_address: Ipv4Addr::new(10, 0, 1, 4),
            second_gateway: Ipv4Addr::new(10, 0, 1, 1),
        }
    }
}

/// A classless route of options 121 and 249.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub destination: Ipv4Addr,
    /// How many leading bits of it count.
    pub bits: u8,
    /// The next hop; 0.0.0.0 says that the destination is on the link.
    pub router: Ipv4Addr,
}

/// The DHCP server.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in the text form"
)]
pub struct Dhcp {
    /// Whether it answers at all.
    pub answers: bool,
    /// How many DISCOVERs it misses first.
    pub ignore: u32,
    /// How many REQUESTs it refuses first.
    pub nak: u32,
    /// How many REQUESTs for more time it misses first, of those that are sent to it alone.
    pub ignore_renewals: u32,
    /// How many REQUESTs for more time it refuses first.
    pub nak_renewals: u32,
    /// How many answers are preceded by rubbish.
    pub garbage: u32,
    /// How long it thinks.
    pub delay: Duration,
    /// Its address.
    pub server: Ipv4Addr,
    /// Its address when it has given a lease.
    pub server_moves: Option<Ipv4Addr>,
    /// Option 1, or the subnet's true mask.
    pub mask: Option<Ipv4Addr>,
    /// Option 3, or the gateway.
    pub routers: Option<Vec<Ipv4Addr>>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: String,
    /// Option 245, and the wireserver's address everywhere else.
    pub wireserver: Ipv4Addr,
    /// Option 51 in seconds.
    pub lease: u32,
    /// Option 58, or half the lease.
    pub t1: Option<u32>,
    /// Option 59, or seven eighths of the lease.
    pub t2: Option<u32>,
    /// Option 121, or the three routes that Azure sends.
    pub routes: Option<Vec<Route>>,
    /// Whether the same routes are sent in option 249 too.
    pub routes249: bool,
    /// Options never sent.
    pub without: Vec<u8>,
    /// Options sent besides, or instead, with these bytes.
    pub extra: Vec<(u8, Vec<u8>)>,
    /// Whether options come in pieces (RFC 3396).
    pub split: bool,
    /// Whether options are put in the fields `file` and `sname` (option 52).
    pub overload: bool,
    /// Another server in the network.
    pub rival: Option<Ipv4Addr>,
    /// The address that the other server gives.
    pub rival_address: Ipv4Addr,
    /// Whether the other server is the faster one.
    pub rival_first: bool,
}

/// An infinite lease, as Azure's all are.
pub const INFINITE: u32 = u32::MAX;

/// The address of the platform's services.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The address of the metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            answers: true,
            ignore: 0,
            nak: 0,
            ignore_renewals: 0,
            nak_renewals: 0,
            garbage: 0,
            delay: Duration::ZERO,
            server: WIRESERVER,
            server_moves: None,
            mask: None,
            routers: None,
            dns: vec![WIRESERVER],
            domain: "q3n5w7kzs2lelo4bd0yhx1vgta.fx.internal.cloudapp.net".into(),
            wireserver: WIRESERVER,
            lease: INFINITE,
            t1: None,
            t2: None,
            routes: None,
            routes249: false,
            without: Vec::new(),
            extra: Vec::new(),
            split: false,
            overload: false,
            rival: None,
            rival_address: Ipv4Addr::new(10, 0, 0, 77),
            rival_first: false,
        }
    }
}

/// What happens to connections to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Port {
    /// They are accepted.
    #[default]
    Open,
    /// SYN is never answered.
    Silent,
    /// SYN is answered by RST.
    Refused,
    /// They are accepted and reset when the first request arrives.
    Reset,
    /// SYN is answered by the router: ICMP says that there is no such host.
    Unreachable,
}

/// What happens to connections, by service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp {
    /// Port 80 of the wireserver.
    pub wireserver: Port,
    /// The metadata service.
    pub imds: Port,
    /// Port 32526 of the wireserver.
    pub hostplugin: Port,
}

/// What happens to requests, by kind.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// `/?comp=versions`.
    pub versions: Script,
    /// `/machine?comp=goalstate`.
    pub goalstate: Script,
    /// `/machine?comp=health`.
    pub health: Script,
    /// `/provisioning/health`.
    pub jsonhealth: Script,
    /// `/machine?comp=roleProperties`.
    pub properties: Script,
    /// The documents that a goal state names.
    pub documents: Script,
    /// `/metadata/instance`.
    pub imds: Script,
    /// `/metadata/reprovisiondata`; without a script it is 404.
    pub reprovision: Script,
    /// Port 32526.
    pub hostplugin: Script,
}

/// The wireserver's idea of the VM.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The container's id.
    pub container: String,
    /// The role instance's id.
    pub instance: String,
    /// The goal state's first incarnation.
    pub incarnation: u32,
    /// After how many goal states the incarnation moves on, once.
    pub moves_after: Option<u32>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            container: "3f0c9a1e-7b52-4d6a-9c11-0e5d2b8a4f63".into(),
            instance: "9e2d7c40-51ab-4f3e-8d77-6a1b2c3d4e5f._vm-demo01".into(),
            // Not 1: a client that sends a fixed 1 must not pass.
            incarnation: 3,
            moves_after: None,
        }
    }
}

/// The metadata service's idea of the VM.
#[derive(Debug, Clone)]
pub struct Vm {
    /// The VM's id.
    pub id: String,
    /// The resource's name, which is not the host name.
    pub name: String,
    /// The region.
    pub location: String,
    /// The size.
    pub size: String,
    /// Who the VM is to be.
    pub identity: Identity,
    /// User data in base64.
    pub user_data: String,
    /// What `/metadata/reprovisiondata` gives.
    pub reprovision: Option<String>,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            id: "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf".into(),
            name: "vm-demo01".into(),
            location: "westeurope".into(),
            size: "Standard_D2s_v5".into(),
            identity: Identity::default(),
            user_data: String::new(),
            reprovision: None,
        }
    }
}
