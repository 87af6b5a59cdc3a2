//! What the servers say: options in Azure's way and in a home router's, and rubbish.

use std::net::Ipv4Addr;

use super::message::{Kind, Message, option};
use super::server::{Departure, Network};
use crate::platform::scenario::{Dhcp, IMDS, INFINITE, Route};

const HEADER_AND_COOKIE: usize = 240;
/// For how many seconds a home router gives an address.
pub(super) const RIVAL_LEASE: u32 = 3600;

/// What Azure's server says.
pub(super) fn options(
    kind: Kind,
    lease_given: bool,
    to: &Message,
    server: Ipv4Addr,
    network: &Network,
    config: &Dhcp,
) -> Vec<(u8, Vec<u8>)> {
    let join = |addresses: &[Ipv4Addr]| addresses.iter().flat_map(Ipv4Addr::octets).collect();
    let mut options: Vec<(u8, Vec<u8>)> = vec![
        (option::KIND, vec![kind as u8]),
        (option::SERVER, server.octets().into()),
    ];
    if lease_given {
        for (code, seconds) in [
            (option::LEASE, config.lease),
            (option::T1, config.t1.unwrap_or(part(config.lease, 4))),
            (option::T2, rebinding_time(config)),
        ] {
            options.push((code, seconds.to_be_bytes().into()));
        }
    }
    options.push((
        option::MASK,
        config.mask.unwrap_or(network.mask).octets().into(),
    ));
    options.push((option::DNS, join(&config.dns)));
    options.push((option::DOMAIN, config.domain.clone().into()));
    options.push((option::WIRESERVER, config.wireserver.octets().into()));
    let classless = classless_routes(network, config);
    if to.asks_for(option::ROUTES) {
        options.push((option::ROUTES, classless.clone()));
    }
    if config.routes249 {
        options.push((option::ROUTES_MICROSOFT, classless));
    }
    let routers = match &config.routers {
        Some(routers) if network.primary => routers.as_slice(),
        _ => &[network.gateway],
    };
    options.push((option::ROUTERS, join(routers)));
    for (code, value) in &config.extra {
        options.retain(|(known, _)| known != code);
        options.push((*code, value.clone()));
    }
    options.retain(|(code, _)| !config.without.contains(code));
    options
}

/// When a client asks anybody for more, in seconds.
pub(super) fn rebinding_time(config: &Dhcp) -> u32 {
    config.t2.unwrap_or(part(config.lease, 7))
}

/// So many eighths of a lease.
fn part(lease: u32, eighths: u64) -> u32 {
    if lease == INFINITE {
        INFINITE
    } else {
        (u64::from(lease) * eighths / 8) as u32
    }
}

/// What a home router that somebody plugged in would say.
pub(super) fn rival_options(kind: Kind, server: Ipv4Addr, network: &Network) -> Vec<(u8, Vec<u8>)> {
    vec![
        (option::KIND, vec![kind as u8]),
        (option::SERVER, server.octets().into()),
        (option::LEASE, RIVAL_LEASE.to_be_bytes().into()),
        (option::MASK, network.mask.octets().into()),
        (option::ROUTERS, network.gateway.octets().into()),
        (option::DNS, server.octets().into()),
    ]
}

/// Option 121: a default route and one route to each service, all through the gateway.
fn classless_routes(network: &Network, config: &Dhcp) -> Vec<u8> {
    let through = |destination, bits| Route {
        destination,
        bits,
        router: network.gateway,
    };
    let mut routes = vec![through(Ipv4Addr::UNSPECIFIED, 0)];
    if network.primary {
        routes.push(through(config.wireserver, 32));
        routes.push(through(IMDS, 32));
        if let Some(scripted) = &config.routes {
            routes.clone_from(scripted);
        }
    }
    let mut out = Vec::new();
    for route in routes {
        // More than 32 bits are somebody's wish for a malformed option; the address has only four bytes.
        let significant = usize::from(route.bits).div_ceil(8).min(4);
        out.push(route.bits);
        out.extend_from_slice(&route.destination.octets()[..significant]);
        out.extend_from_slice(&route.router.octets());
    }
    out
}

/// Messages that a client must not believe, each made from the good one.
pub(super) fn garbage(good: &Departure, number: u32) -> Vec<Departure> {
    let bad = |what: &str, payload: Vec<u8>| Departure {
        summary: format!("garbage: {what}"),
        payload,
        ..good.clone()
    };
    let mut noise = u64::from(number) | 0x9e37_79b9_0000_0000;
    let mut random = good.payload.clone();
    for byte in &mut random[HEADER_AND_COOKIE..] {
        // xorshift64
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *byte = noise as u8;
    }
    let mut other_xid = good.payload.clone();
    other_xid[4] ^= 0xff;
    let mut other_client = good.payload.clone();
    other_client[28] ^= 0x02;
    let mut endless = good.payload[..HEADER_AND_COOKIE].to_vec();
    endless.extend_from_slice(&[option::KIND, 200, 2]);
    vec![
        bad("random options", random),
        bad("another xid", other_xid),
        bad("another client", other_client),
        bad("an option longer than the message", endless),
        bad("half a header", good.payload[..100].to_vec()),
    ]
}
