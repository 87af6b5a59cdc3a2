//! The text form of a scenario: one `key = value` on a line. The keys are listed in the parent module.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};

use super::{Answers, INFINITE, Pick, Picks, Port, Route, Scenario, Script};
use crate::platform::frame::Mac;

/// Twice what Azure takes.
const MAX_USER_DATA: usize = 128 * 1024;

/// Why a text is no scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario = Self::default();
        let mut untouched = true;
        for (index, line) in text.lines().enumerate() {
            let error = |message: String| ScenarioError {
                line: index + 1,
                message,
            };
            let line = without_comment(line).trim();
            if line.is_empty() {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| error("no \"=\" in it".into()))?;
            let (key, value) = (key.trim(), value.trim());
            if key == "base" {
                if !untouched {
                    return Err(error("\"base\" must come first".into()));
                }
                scenario = Self::named(value)
                    .ok_or_else(|| error(format!("no scenario is named \"{value}\"")))?;
            } else {
                set(&mut scenario, key, value)
                    .map_err(|message| error(format!("{key}: {message}")))?;
            }
            untouched = false;
        }
        Ok(scenario)
    }
}

/// Cuts a comment off. A `#` starts one at the start of a line or behind white space, so that values may hold one.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        if character == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = character;
    }
    line
}

/// Sets one key.
fn set(scenario: &mut Scenario, key: &str, value: &str) -> Result<(), String> {
    if let Some(kind) = key.strip_suffix(".answers") {
        *script(&mut scenario.answers, kind)? = Script::parse(value)?;
        return Ok(());
    }
    if let Some(code) = key.strip_prefix("dhcp.option.") {
        scenario
            .dhcp
            .extra
            .push((number(code)?, hexadecimal(value)?));
        return Ok(());
    }
    let Scenario {
        link,
        net,
        dhcp,
        tcp,
        machine,
        vm,
        disc,
        ..
    } = scenario;
    let identity = &mut vm.identity;
    match key {
        "name" => scenario.name = value.into(),
        "link.latency" => link.latency = time(value)?,
        "link.lose.from_guest" => link.lose_from_guest = picks(value)?,
        "link.lose.to_guest" => link.lose_to_guest = picks(value)?,
        "link.lose.any" => link.lose_any = picks(value)?,
        "net.address" => net.address = address(value)?,
        "net.mask" => net.mask = address(value)?,
        "net.gateway" => net.gateway = address(value)?,
        "net.gateway_mac" => net.gateway_mac = mac(value)?,
        "net.primary" => net.primary = Some(mac(value)?),
        "net.there" => net.there = list(value, address)?,
        "net.ping" => net.ping = Some(period(value)?),
        "net.conflict" => net.conflict = switch(value)?,
        "net.second.address" => net.second_address = address(value)?,
        "net.second.gateway" => net.second_gateway = address(value)?,
        "dhcp.answer" => dhcp.answers = switch(value)?,
        "dhcp.ignore" => dhcp.ignore = number(value)?,
        "dhcp.nak" => dhcp.nak = number(value)?,
        "dhcp.garbage" => dhcp.garbage = number(value)?,
        "dhcp.delay" => dhcp.delay = time(value)?,
        "dhcp.renewals.ignore" => dhcp.ignore_renewals = number(value)?,
        "dhcp.renewals.nak" => dhcp.nak_renewals = number(value)?,
        "dhcp.server" => dhcp.server = address(value)?,
        "dhcp.server.moves" => dhcp.server_moves = Some(address(value)?),
        "dhcp.mask" => dhcp.mask = Some(address(value)?),
        "dhcp.routers" => dhcp.routers = Some(list(value, address)?),
        "dhcp.dns" => dhcp.dns = list(value, address)?,
        "dhcp.domain" => dhcp.domain = value.into(),
        "dhcp.wireserver" => dhcp.wireserver = address(value)?,
        "dhcp.lease" => dhcp.lease = seconds(value)?,
        "dhcp.t1" => dhcp.t1 = Some(seconds(value)?),
        "dhcp.t2" => dhcp.t2 = Some(seconds(value)?),
        "dhcp.routes" => dhcp.routes = Some(list(value, route)?),
        "dhcp.routes249" => dhcp.routes249 = switch(value)?,
        "dhcp.without" => dhcp.without.extend(list(value, number::<u8>)?),
        "dhcp.hostname" => dhcp.extra.push((12, value.into())),
        "dhcp.mtu" => dhcp
            .extra
            .push((26, number::<u16>(value)?.to_be_bytes().into())),
        "dhcp.search" => dhcp.extra.push((119, search_list(value)?)),
        "dhcp.split" => dhcp.split = switch(value)?,
        "dhcp.overload" => dhcp.overload = switch(value)?,
        "dhcp.rival" => dhcp.rival = Some(address(value)?),
        "dhcp.rival.address" => dhcp.rival_address = address(value)?,
        "dhcp.rival.first" => dhcp.rival_first = switch(value)?,
        "tcp.wireserver" => tcp.wireserver = port(value)?,
        "tcp.imds" => tcp.imds = port(value)?,
        "tcp.hostplugin" => tcp.hostplugin = port(value)?,
        "http.retry_after" => scenario.retry_after = Some(time(value)?),
        "machine.container" => machine.container = value.into(),
        "machine.instance" => machine.instance = value.into(),
        "machine.incarnation" => machine.incarnation = number(value)?,
        "machine.moves_after" => machine.moves_after = Some(number(value)?),
        "vm.id" => vm.id = value.into(),
        "vm.name" => vm.name = value.into(),
        "vm.computer_name" => identity.computer_name = Some(value.into()),
        "vm.user" => identity.user = Some(value.into()),
        "vm.password_login" => identity.password_login = Some(switch(value)?),
        "vm.location" => vm.location = value.into(),
        "vm.size" => vm.size = value.into(),
        "vm.key" => key_of(&mut identity.keys, value)?,
        "vm.user_data" => vm.user_data = unescaped(value)?,
        "vm.user_data_size" => vm.user_data = made_up(number(value)?)?,
        "vm.custom_data" => identity.custom_data = Some(switch(value)?),
        "vm.pps" => identity.pps = Some(value.into()),
        "disc" => disc.absent = !switch(value)?,
        "disc.host_name" => disc.host_name = Some(value.into()),
        "disc.user" => disc.user = Some(value.into()),
        "disc.key" => key_of(&mut disc.keys, value)?,
        "disc.password" => disc.password = Some(value.into()),
        "disc.password_login" => disc.password_login = Some(switch(value)?),
        "disc.custom_data" => disc.custom_data = Some(unescaped(value)?),
        "disc.agent" => disc.agent = Some(switch(value)?),
        "disc.pps" => disc.pps = Some(value.into()),
        "imds.newest" => scenario.imds_newest = Some(value.into()),
        _ => return Err("there is no such key".into()),
    }
    Ok(())
}

fn script<'a>(answers: &'a mut Answers, kind: &str) -> Result<&'a mut Script, String> {
    Ok(match kind {
        "versions" => &mut answers.versions,
        "goalstate" => &mut answers.goalstate,
        "health" => &mut answers.health,
        "jsonhealth" => &mut answers.jsonhealth,
        "properties" => &mut answers.properties,
        "documents" => &mut answers.documents,
        "imds" => &mut answers.imds,
        "reprovision" => &mut answers.reprovision,
        "hostplugin" => &mut answers.hostplugin,
        _ => return Err("there is no such key".into()),
    })
}

/// Reads a time with its unit.
pub(super) fn time(value: &str) -> Result<Duration, String> {
    let value = value.trim();
    let digits = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    let (amount, unit) = value.split_at(digits);
    let scale = match unit {
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        _ => {
            return Err(format!(
                "\"{value}\" is no time such as 500us, 20ms, 3s, 2m"
            ));
        }
    };
    let amount: u64 = number(amount)?;
    amount
        .checked_mul(scale)
        .map(Duration::from_micros)
        .ok_or_else(|| "too long".into())
}

/// Reads a time that passes.
fn period(value: &str) -> Result<Duration, String> {
    match time(value)? {
        Duration::ZERO => Err("it is to take some time".into()),
        time => Ok(time),
    }
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value
        .trim()
        .parse()
        .map_err(|_| format!("\"{value}\" is no number that fits"))
}

fn address(value: &str) -> Result<Ipv4Addr, String> {
    value
        .trim()
        .parse()
        .map_err(|_| format!("\"{value}\" is no IPv4 address"))
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("\"{value}\" is neither yes nor no")),
    }
}

fn seconds(value: &str) -> Result<u32, String> {
    if value == "infinite" {
        Ok(INFINITE)
    } else {
        number(value)
    }
}

fn port(value: &str) -> Result<Port, String> {
    match value {
        "open" => Ok(Port::Open),
        "silent" => Ok(Port::Silent),
        "refused" => Ok(Port::Refused),
        "reset" => Ok(Port::Reset),
        "unreachable" => Ok(Port::Unreachable),
        _ => Err(format!(
            "\"{value}\" is none of open, silent, refused, reset, unreachable"
        )),
    }
}

fn list<T>(value: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.split(',').map(|part| item(part.trim())).collect()
}

fn mac(value: &str) -> Result<Mac, String> {
    let wrong = || format!("\"{value}\" is no MAC such as 00:0d:3a:11:22:33");
    let bytes: Vec<u8> = value
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()
        .map_err(|_| wrong())?;
    bytes.try_into().map_err(|_| wrong())
}

fn route(value: &str) -> Result<Route, String> {
    let wrong = || format!("\"{value}\" is no route such as 0.0.0.0/0 via 10.0.0.1");
    let (network, router) = value.split_once(" via ").ok_or_else(wrong)?;
    let (destination, bits) = network.split_once('/').ok_or_else(wrong)?;
    Ok(Route {
        destination: address(destination)?,
        bits: number(bits)?,
        router: address(router)?,
    })
}

fn picks(value: &str) -> Result<Picks, String> {
    let pick = |part: &str| {
        let pick = if let Some(step) = part.strip_prefix("*/") {
            Pick::Each(number(step)?)
        } else if let Some((first, last)) = part.split_once('-') {
            Pick::Range(number(first)?, number(last)?)
        } else {
            let only = number(part)?;
            Pick::Range(only, only)
        };
        match pick {
            Pick::Each(0) => Err("each 0th is none".to_string()),
            other => Ok(other),
        }
    };
    list(value, pick).map(Picks)
}

fn hexadecimal(value: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("\"{value}\" is not hexadecimal bytes");
    let digits: Vec<char> = value
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .collect();
    if !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair: String = pair.iter().collect();
            u8::from_str_radix(&pair, 16).map_err(|_| wrong())
        })
        .collect()
}

/// Adds a key; an empty one says that there is none.
fn key_of(keys: &mut Option<Vec<String>>, value: &str) -> Result<(), String> {
    let keys = keys.get_or_insert_default();
    if !value.is_empty() {
        keys.push(unescaped(value)?);
    }
    Ok(())
}

/// Reads letters that a line cannot hold.
fn unescaped(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        out.push(match letter {
            '\\' => match letters.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('\\') => '\\',
                _ => return Err("behind \\ stands r, n or another \\".into()),
            },
            other => other,
        });
    }
    Ok(out)
}

/// Makes up user data of this size, in base64; what it says is the same each time.
fn made_up(size: usize) -> Result<String, String> {
    if size > MAX_USER_DATA {
        return Err(format!("more than {MAX_USER_DATA}"));
    }
    let line = b"# user data that somebody made up\n";
    let bytes: Vec<u8> = line.iter().copied().cycle().take(size).collect();
    Ok(Base64::encode_string(&bytes))
}

/// Writes names the way DNS does (RFC 3397), without compression.
fn search_list(value: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for name in value.split(',').map(str::trim) {
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(format!("\"{name}\" is no domain name"));
            }
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_values_and_comments_are_read() {
        let scenario = Scenario::parse(
            "# a boot on a bad day\n\
             base = dhcp-nak-once\n\
             link.latency = 500us   # one way\n\
             link.lose.any = 3, 5-6, */100\n\
             net.primary = 00:0d:3a:11:22:33\n\
             dhcp.routes = 0.0.0.0/0 via 10.0.0.1, 168.63.129.16/32 via 0.0.0.0\n\
             dhcp.option.43 = 01 02:0a\n\
             dhcp.search = a.example, bc.example\n\
             dhcp.without = 245\n\
             dhcp.without = 121, 15\n\
             vm.key = ssh-rsa AAA#BBB me\n\
             health.answers = 410, 200\n",
        )
        .unwrap();
        assert_eq!(scenario.dhcp.nak, 1);
        assert_eq!(scenario.link.latency, Duration::from_micros(500));
        let lost: Vec<u64> = (1..=200)
            .filter(|n| scenario.link.lose_any.has(*n))
            .collect();
        assert_eq!(lost, [3, 5, 6, 100, 200]);
        assert_eq!(
            scenario.net.primary,
            Some([0, 0x0d, 0x3a, 0x11, 0x22, 0x33])
        );
        assert_eq!(
            scenario.dhcp.routes.unwrap()[1].router,
            Ipv4Addr::UNSPECIFIED
        );
        assert_eq!(scenario.dhcp.extra[0], (43, vec![1, 2, 10]));
        assert_eq!(
            scenario.dhcp.extra[1].1,
            b"\x01a\x07example\0\x02bc\x07example\0"
        );
        assert_eq!(scenario.dhcp.without, [245, 121, 15]);
        let keys = vec!["ssh-rsa AAA#BBB me".to_owned()];
        assert_eq!(scenario.vm.identity.keys, Some(keys));
        assert_eq!(scenario.answers.health.play(0).status, Some(410));
    }

    #[test]
    fn values_may_hold_ends_of_lines_and_lists_may_be_emptied() {
        let text = "vm.key = ssh-rsa AA\\r\\nBB me\\n\nvm.user_data_size = 4\ndisc = no\n";
        let scenario = Scenario::parse(text).unwrap();
        let keys = vec!["ssh-rsa AA\r\nBB me\n".to_owned()];
        assert_eq!(scenario.vm.identity.keys, Some(keys));
        // RFC 4648 of the four bytes "# us".
        assert_eq!(scenario.vm.user_data, "IyB1cw==");
        assert!(scenario.disc.absent);
        let none = Scenario::parse("vm.key =\ndisc.key =\nvm.pps =").unwrap();
        assert_eq!(none.vm.identity.keys, Some(Vec::new()));
        assert_eq!(none.vm.identity.pps.as_deref(), Some(""));
        assert_eq!(none.disc.keys, Some(Vec::new()));
        assert!(Scenario::parse("vm.key = a\\tb").is_err());
        assert!(Scenario::parse("vm.user_data_size = 1000000").is_err());
    }

    #[test]
    fn errors_name_their_line() {
        for (text, line, message) in [
            ("\n\nnonsense", 3, "no \"=\" in it"),
            (
                "dhcp.nak = many",
                1,
                "dhcp.nak: \"many\" is no number that fits",
            ),
            ("a.b = c", 1, "a.b: there is no such key"),
            ("x.answers = ok", 1, "x.answers: there is no such key"),
            (
                "dhcp.nak = 1\nbase = healthy",
                2,
                "\"base\" must come first",
            ),
            ("base = nothing", 1, "no scenario is named \"nothing\""),
            (
                "net.primary = 00:11",
                1,
                "net.primary: \"00:11\" is no MAC such as 00:0d:3a:11:22:33",
            ),
            ("link.lose.any = */0", 1, "link.lose.any: each 0th is none"),
        ] {
            let error = Scenario::parse(text).unwrap_err();
            assert_eq!(
                (error.line, error.message.as_str()),
                (line, message),
                "{text}"
            );
        }
    }

    /// The table in the module's documentation is the user's manual: it must name every key.
    #[test]
    fn every_key_is_in_the_manual() {
        let manual = include_str!("../scenario.rs");
        let source = include_str!("text.rs");
        let keys = source
            .lines()
            .map(str::trim_start)
            .filter_map(|line| {
                line.strip_prefix('"')?
                    .split_once("\" => ")
                    .map(|(key, _)| key)
            })
            .filter(|key| key.contains('.'));
        let mut count = 0;
        for key in keys {
            assert!(
                manual.contains(&format!("`{key}`")),
                "{key} is not documented"
            );
            count += 1;
        }
        assert!(count > 50, "{count}");
    }
}
