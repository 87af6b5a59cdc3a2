//! What of a DHCP lease is in the kernel, and the file that says so: `/run/preroot/lease`.
//!
//! Not the lease as it came: its routes are those that the kernel has, in the order in which it takes
//! them. The initramfs writes the file, `preroot lease` goes on from there, and people and scripts may
//! read it; `docs/network.md` describes it. One `name = value` a line, as in `preroot.conf`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::dhcp::{Lease, Route, in_network, is_unicast};
use super::mac;
use super::settings;

/// The most of one thing, as in a message: a file with more is not ours.
const MAX_ROUTES: usize = 40;
const MAX_DNS: usize = 4;
/// The longest text that is taken.
const MAX_TEXT: usize = 256;

/// What of a lease is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The kernel's number of the interface.
    pub index: u32,
    /// The name that it had.
    pub name: heapless::String<16>,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// The length of the subnet's prefix in bits.
    pub prefix: u8,
    /// The DHCP server.
    pub server: Ipv4Addr,
    /// The WireServer.
    pub wireserver: Ipv4Addr,
    /// When the lease was asked for, since the machine was switched on.
    pub obtained: Duration,
    /// How long it runs; nothing is for ever.
    pub term: Option<Term>,
    /// The MTU, when the server cares.
    pub mtu: Option<u16>,
    /// The routes, those first that others need.
    pub routes: Vec<Route>,
    /// The name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The domains to search, separated by blanks.
    pub domain: String,
    /// The host name that the server was told; empty if none.
    pub host_name: String,
}

/// The times of a lease, from when it was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Term {
    /// When it ends.
    pub lease: Duration,
    /// When its server is asked to renew it.
    pub renew: Duration,
    /// When any server is asked.
    pub rebind: Duration,
}

impl Record {
    /// Takes down what of a lease concerns the kernel.
    pub fn new(
        lease: &Lease,
        (index, name): (u32, &str),
        mac: [u8; 6],
        obtained: Duration,
        host_name: Option<&str>,
    ) -> Self {
        let term = lease.duration().zip(lease.renewal());
        let mut domain = lease.search();
        if domain.is_empty() {
            domain.push_str(lease.domain());
        }
        Self {
            index,
            name: name.try_into().unwrap_or_default(),
            mac,
            address: lease.address,
            prefix: lease.prefix(),
            server: lease.server,
            wireserver: lease.wireserver(),
            obtained,
            // A lease of no time at all would be read as one for ever.
            term: term.map(|(lease, (renew, rebind))| Term {
                lease: lease.max(Duration::from_secs(1)),
                renew,
                rebind,
            }),
            mtu: lease.mtu(),
            routes: routes(lease),
            dns: lease.dns(),
            domain,
            host_name: String::from(host_name.unwrap_or_default()),
        }
    }

    /// Reads the file; `None` unless it has all that must be there.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let (mut index, mut mac, mut network, mut server) = (None, None, None, None);
        let mut term = Term::default();
        let mut record = Self {
            index: 0,
            name: heapless::String::new(),
            mac: [0; 6],
            address: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            server: Ipv4Addr::UNSPECIFIED,
            wireserver: Ipv4Addr::UNSPECIFIED,
            obtained: Duration::ZERO,
            term: None,
            mtu: None,
            routes: Vec::new(),
            dns: Vec::new(),
            domain: String::new(),
            host_name: String::new(),
        };
        settings::each(file, &mut |_, name, value| {
            let value = value.unwrap_or_default();
            let text = || String::from(value.get(..MAX_TEXT).unwrap_or(value));
            let seconds = || Duration::from_secs(number(value).map_or(0, u64::from));
            match name {
                "index" => index = number(value).filter(|&index| index != 0),
                "name" => record.name = value.try_into().unwrap_or_default(),
                "mac" => mac = mac::parse(value),
                "address" => network = parse_network(value),
                "server" => server = parse_address(value),
                "wireserver" => {
                    record.wireserver = parse_address(value).unwrap_or(Ipv4Addr::UNSPECIFIED);
                }
                "obtained" => record.obtained = seconds(),
                "lease" => term.lease = seconds(),
                "renew" => term.renew = seconds(),
                "rebind" => term.rebind = seconds(),
                "mtu" => record.mtu = number(value).and_then(|mtu| u16::try_from(mtu).ok()),
                "route" if record.routes.len() < MAX_ROUTES => {
                    record.routes.extend(parse_route(value));
                }
                "dns" if record.dns.len() < MAX_DNS => record.dns.extend(parse_address(value)),
                "domain" => record.domain = text(),
                "host-name" => record.host_name = text(),
                _ => {}
            }
        });
        record.index = index?;
        record.mac = mac?;
        (record.address, record.prefix) = network.filter(|(address, _)| is_unicast(*address))?;
        record.server = server?;
        if !term.lease.is_zero() {
            record.term = Some(term);
        }
        Some(record)
    }
}

/// The file.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "index={}\nname={}\nmac={}\n\
             address={}/{}\nserver={}\nwireserver={}\nobtained={}",
            self.index,
            self.name,
            mac::Shown(self.mac),
            self.address,
            self.prefix,
            self.server,
            self.wireserver,
            self.obtained.as_secs()
        )?;
        match self.term {
            None => writeln!(f, "lease=infinite")?,
            Some(Term {
                lease,
                renew,
                rebind,
            }) => writeln!(
                f,
                "lease={}\nrenew={}\nrebind={}",
                lease.as_secs(),
                renew.as_secs(),
                rebind.as_secs()
            )?,
        }
        if let Some(mtu) = self.mtu {
            writeln!(f, "mtu={mtu}")?;
        }
        for route in &self.routes {
            writeln!(f, "route={route}")?;
        }
        for server in &self.dns {
            writeln!(f, "dns={server}")?;
        }
        writeln!(f, "domain={}\nhost-name={}", self.domain, self.host_name)
    }
}

/// Gives the routes of a lease as the kernel takes them, those first that others need.
///
/// RFC 3442: where option 121 lists routes, the routers of option 3 do not count.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
fn routes(lease: &Lease) -> Vec<Route> {
    let mut listed = lease.routes();
    if listed.is_empty() {
        listed.extend(lease.routers().first().map(|&gateway| Route {
            network: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway,
        }));
    }
    for route in &mut listed {
        // Some servers say so that everything is on the link; the kernel would refuse it.
        if route.gateway == lease.address {
            route.gateway = Ipv4Addr::UNSPECIFIED;
        }
    }
    let is_direct = |route: &&Route| route.gateway.is_unspecified();
    let mut routes: Vec<Route> = listed.iter().filter(is_direct).copied().collect();
    for Route { gateway, .. } in listed.iter().filter(|route| !is_direct(route)) {
        let reached = in_network(*gateway, lease.address, lease.prefix())
            || routes
                .iter()
                .any(|route| in_network(*gateway, route.network, route.prefix));
        if !reached {
            routes.push(Route {
                network: *gateway,
                prefix: 32,
                gateway: Ipv4Addr::UNSPECIFIED,
            });
        }
    }
    routes.extend(listed.iter().filter(|route| !is_direct(route)));
    routes
}

fn number(value: &str) -> Option<u32> {
    value.parse().ok()
}

/// `Ipv4Addr::from_str` is 800 bytes longer, for errors that nobody asks for.
fn parse_address(value: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(number(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn parse_network(value: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let prefix = number(prefix).filter(|&prefix| prefix <= 32)?;
    Some((parse_address(address)?, prefix as u8))
}

fn parse_route(value: &str) -> Option<Route> {
    let mut words = value.split(' ');
    let (network, prefix) = parse_network(words.next()?)?;
    let gateway = match words.next() {
        None => Ipv4Addr::UNSPECIFIED,
        Some("via") => parse_address(words.next()?)?,
        Some(_) => return None,
    };
    Some(Route {
        network,
        prefix,
        gateway,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dhcp;
    use crate::wire::testing::Random;
    use std::string::ToString as _;

    /// An acknowledgement for 10.0.0.4 with these options.
    fn lease(options: &[u8]) -> Lease {
        let mut message = std::vec![0; 240];
        message[..3].copy_from_slice(&[2, 1, 6]);
        message[16..20].copy_from_slice(&[10, 0, 0, 4]);
        message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message.extend([53, 1, 5, 54, 4, 168, 63, 129, 16]);
        message.extend(options);
        message.push(255);
        dhcp::parse(&message, [0; 6]).unwrap().lease
    }

    fn record(options: &[u8]) -> Record {
        let mac = [0, 0x0d, 0x3a, 0x12, 0x34, 0xff];
        let at = Duration::from_secs(12);
        Record::new(&lease(options), (2, "eth0"), mac, at, Some("vm-1"))
    }

    fn shown(options: &[u8]) -> std::vec::Vec<String> {
        let routes = record(options).routes;
        routes.iter().map(Route::to_string).collect()
    }

    const MASK: [u8; 6] = [1, 4, 255, 255, 255, 0];
    const ROUTER: [u8; 6] = [3, 4, 10, 0, 0, 1];

    #[test]
    fn router_is_the_default_route_where_no_routes_are_listed() {
        assert_eq!(
            shown(&[&MASK[..], &ROUTER].concat()),
            ["0.0.0.0/0 via 10.0.0.1"]
        );
        let listed = [&MASK[..], &ROUTER, &[121, 7, 16, 10, 9, 10, 0, 0, 9]].concat();
        assert_eq!(shown(&listed), ["10.9.0.0/16 via 10.0.0.9"]);
        assert!(shown(&MASK).is_empty());
    }

    #[test]
    fn routes_of_azure_come_in_their_order() {
        let azure = [
            121, 23, 0, 10, 0, 0, 1, 32, 168, 63, 129, 16, 10, 0, 0, 1, 32, 169, 254, 169, 254, 10,
            0, 0, 1,
        ];
        assert_eq!(
            shown(&[&MASK[..], &azure].concat()),
            [
                "0.0.0.0/0 via 10.0.0.1",
                "168.63.129.16/32 via 10.0.0.1",
                "169.254.169.254/32 via 10.0.0.1"
            ]
        );
    }

    #[test]
    fn gateway_outside_the_subnet_gets_a_route_of_its_own_once() {
        // As clouds with /32 addresses do it.
        let alone = [
            1, 4, 255, 255, 255, 255, 121, 14, 0, 10, 0, 0, 1, 32, 168, 63, 129, 16, 10, 0, 0, 1,
        ];
        assert_eq!(
            shown(&alone),
            [
                "10.0.0.1/32",
                "0.0.0.0/0 via 10.0.0.1",
                "168.63.129.16/32 via 10.0.0.1"
            ]
        );
    }

    #[test]
    fn gateway_on_a_listed_link_needs_none_and_the_link_comes_first() {
        let listed = [
            1, 4, 255, 255, 255, 255, 121, 12, 0, 172, 16, 0, 1, 16, 172, 16, 0, 0, 0, 0,
        ];
        assert_eq!(
            shown(&listed),
            ["172.16.0.0/16", "0.0.0.0/0 via 172.16.0.1"]
        );
    }

    #[test]
    fn own_address_as_the_gateway_means_the_link() {
        assert_eq!(shown(&[3, 4, 10, 0, 0, 4]), ["0.0.0.0/0"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let full = record(
            &[
                &MASK[..],
                &ROUTER,
                &[6, 8, 168, 63, 129, 16, 1, 1, 1, 1, 26, 2, 5, 120],
                &[51, 4, 0, 0, 14, 16, 15, 3, b'a', b'.', b'b'],
            ]
            .concat(),
        );
        assert_eq!(
            full.to_string(),
            "index=2\nname=eth0\nmac=00:0d:3a:12:34:ff\naddress=10.0.0.4/24\nserver=168.63.129.16\n\
             wireserver=168.63.129.16\nobtained=12\nlease=3600\nrenew=1800\nrebind=3150\nmtu=1400\n\
             route=0.0.0.0/0 via 10.0.0.1\ndns=168.63.129.16\ndns=1.1.1.1\ndomain=a.b\n\
             host-name=vm-1\n"
        );
        let infinite = record(&[
            51, 4, 255, 255, 255, 255, 119, 5, 1, b'x', 1, b'y', 0, 15, 1, b'z',
        ]);
        assert!(infinite.to_string().contains("\nlease=infinite\n"));
        assert_eq!(infinite.domain, "x.y");
        for record in [full, infinite] {
            assert_eq!(
                Record::parse(record.to_string().as_bytes()),
                Some(record.clone())
            );
        }
    }

    #[test]
    fn file_without_what_must_be_there_is_none() {
        let good = record(&MASK).to_string();
        for missing in ["index=", "mac=", "address=", "server="] {
            let lines = good.lines().filter(|line| !line.starts_with(missing));
            let file: String = lines.flat_map(|line| [line, "\n"]).collect();
            assert_eq!(Record::parse(file.as_bytes()), None, "{missing}");
        }
        for (from, to) in [
            ("index=2", "index=0"),
            ("mac=00:", "mac="),
            ("/24", "/33"),
            ("address=10", "address=255"),
        ] {
            let file = good.replace(from, to);
            let read = Record::parse(file.as_bytes());
            assert!(read.is_none() || from == "address=10", "{to}");
        }
    }

    #[test]
    fn mutated_files_are_read_or_refused() {
        let good = record(&[&MASK[..], &ROUTER, &[51, 4, 0, 0, 14, 16]].concat()).to_string();
        let mut random = Random::new();
        let (mut read, mut refused) = (0, 0);
        for _ in 0..8_000 {
            match Record::parse(&random.damage(good.as_bytes())) {
                Some(record) => {
                    assert!(record.prefix <= 32 && record.routes.len() <= MAX_ROUTES);
                    read += 1;
                }
                None => refused += 1,
            }
        }
        assert!(
            read > 100 && refused > 100,
            "{read} read, {refused} refused"
        );
    }
}
