//! The scenarios that have a name, each as the text that a user could have written.

use super::{Pick, Picks, Scenario};

/// Names and texts. Each differs from the healthy platform in the one thing that its name says.
const NAMED: &[(&str, &str)] = &[
    ("healthy", ""),
    ("stale-incarnation", "machine.moves_after = 1"),
    ("busy-wireserver", "goalstate.answers = 503*5, ok"),
    ("goalstate-410-then-200", "goalstate.answers = 410, ok"),
    ("wireserver-never", "tcp.wireserver = silent"),
    ("wireserver-resets", "tcp.wireserver = reset"),
    ("wireserver-refuses", "tcp.wireserver = refused"),
    ("dhcp-never", "dhcp.answer = no"),
    ("dhcp-late", "dhcp.delay = 1500ms"),
    ("dhcp-deaf-at-first", "dhcp.ignore = 3"),
    ("dhcp-nak-once", "dhcp.nak = 1"),
    ("dhcp-two-servers", "dhcp.rival = 10.0.0.2"),
    (
        "dhcp-rival-first",
        "dhcp.rival = 10.0.0.2\ndhcp.rival.first = yes",
    ),
    ("dhcp-garbage", "dhcp.garbage = 4"),
    ("dhcp-bad-mask", "dhcp.mask = 255.0.255.0"),
    ("dhcp-split-options", "dhcp.split = yes"),
    ("dhcp-overload", "dhcp.overload = yes"),
    ("dhcp-without-245", "dhcp.without = 245"),
    ("dhcp-without-121", "dhcp.without = 121"),
    ("dhcp-finite-lease", "dhcp.lease = 3600"),
    ("dhcp-short-lease", "dhcp.lease = 24"),
    (
        "dhcp-renewal-refused",
        "dhcp.lease = 24\ndhcp.t1 = 3\ndhcp.t2 = 8\ndhcp.renewals.nak = 1",
    ),
    (
        "dhcp-renewal-unheard",
        "dhcp.lease = 24\ndhcp.t1 = 3\ndhcp.t2 = 6\ndhcp.renewals.ignore = 100",
    ),
    (
        "dhcp-server-moves",
        "dhcp.lease = 24\ndhcp.t1 = 3\ndhcp.t2 = 6\ndhcp.server.moves = 168.63.129.17",
    ),
    ("health-500", "health.answers = 500*3, ok"),
    ("health-never-accepted", "health.answers = 500"),
    ("health-reset-once", "health.answers = reset, ok"),
    (
        "throttled-429-retry-after",
        "http.retry_after = 2s\nhealth.answers = 429*2, ok",
    ),
    (
        "goalstate-without-roles",
        "goalstate.answers = noroles*2, ok",
    ),
    ("goalstate-bom-chunked", "goalstate.answers = bom+chunked"),
    ("goalstate-large", "goalstate.answers = noise+chunked"),
    (
        "goalstate-without-certificates",
        "goalstate.answers = nocerts",
    ),
    (
        "goalstate-cut-once",
        "goalstate.answers = cut, truncated, garbage, ok",
    ),
    (
        "slow-first-byte",
        "goalstate.answers = delay:3s\nhealth.answers = delay:3s",
    ),
    ("dripping", "goalstate.answers = drip:2ms"),
    (
        "close-without-length",
        "goalstate.answers = unsized\nhealth.answers = unsized\nimds.answers = unsized",
    ),
    (
        "connection-close-each-time",
        "goalstate.answers = close\nhealth.answers = close\nimds.answers = close",
    ),
    (
        "json-door-only",
        "goalstate.answers = 404\nhealth.answers = 404",
    ),
    ("imds-absent", "tcp.imds = silent"),
    ("imds-refuses", "tcp.imds = refused"),
    ("imds-resets", "tcp.imds = reset"),
    ("imds-never-answers", "imds.answers = never"),
    (
        "azure-stack",
        "dhcp.routes = 0.0.0.0/0 via 10.0.0.1, 168.63.129.16/32 via 10.0.0.1\ntcp.imds = silent",
    ),
    (
        "azure-stack-unreachable",
        "dhcp.routes = 0.0.0.0/0 via 10.0.0.1, 168.63.129.16/32 via 10.0.0.1\ntcp.imds = unreachable",
    ),
    ("imds-400-then-old-version", "imds.newest = 2019-06-01"),
    ("imds-400-always", "imds.answers = 400"),
    ("imds-404-then-200", "imds.answers = 404*3, ok"),
    ("imds-410-then-200", "imds.answers = 410*3, ok"),
    ("imds-429-then-200", "imds.answers = 429*3, ok"),
    (
        "imds-429-retry-after",
        "http.retry_after = 2s\nimds.answers = 429*2, ok",
    ),
    ("imds-500-then-200", "imds.answers = 500*3, ok"),
    ("imds-503-then-200", "imds.answers = 503*3, ok"),
    ("imds-500-always", "imds.answers = 500"),
    ("imds-truncated-once", "imds.answers = truncated, ok"),
    (
        "imds-broken-json",
        "imds.answers = truncated, html, empty, cut, garbage, ok",
    ),
    ("imds-truncated-always", "imds.answers = truncated"),
    ("imds-chunked", "imds.answers = chunked"),
    ("imds-bom", "imds.answers = bom+chunked"),
    ("imds-slow", "imds.answers = delay:3s"),
    ("imds-escaped", "imds.answers = escaped"),
    ("imds-booleans", "imds.answers = booleans"),
    ("imds-large", "imds.answers = noise"),
    ("imds-user-data-64k", "vm.user_data_size = 65536"),
    (
        "imds-key-folded",
        "vm.key = ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQClr2v2MkQQgz/PYvuryeiPEK9axT0nZEwp\\r\\n\
         LAGU4DFbVRQ8B4JrX/WjkxxZ4hTF0OpbrYUgi+PuAmVXEMD6+GjTi4I8MgnN1o5Y\\r\\n\
         ay0iaH3oOCdEmjZSPavQoADYUqP3E1cdZ56MqvuyiXYXMCbSRActfpqFyapArsGq\\r\\n\
         PHEFXSTOHc9UrKiAd9zK/i+5uH+Iy7bjojLjlXmMKG2G7lqbBz3es9aM7CByTED+\\r\\n\
         rqjJdauwKIA8NgbSrkh7xcjh9anUNofEnijU4eKLJGML19MGTV62KhowLl6Fvx0p\\r\\n\
         +BYkPlkuzr3N4b0NSKs6a+QxZZA4ANwYYzCPDvDuZP82mFGU+47LDfqs8iS3Yr97\\r\\n\
         FFJ63mYwVnXfNkrpICGVojA2YslQFxj7v/RdEOVQu+xjCKWRi7WQhyaurLVuzubf\\r\\n\
         dJLUyWfMFIcYx6LRmlD/b8bWoBEEzG6AVYCwSWhrgMsKuavivf3DNrRBd8pnhdsM\\r\\n\
         1Xfrutlvfu8gvF6KCrnbgcyKeCCbkSs= ops@laptop\\r\\n",
    ),
    (
        "imds-key-x509",
        "vm.key = -----BEGIN CERTIFICATE-----\\r\\nMIIBszCCAVmgAwIBAgIUQ2x1ZQ==\\r\\n-----END CERTIFICATE-----\\r\\n",
    ),
    ("imds-no-key", "vm.key ="),
    (
        "imds-disagrees",
        "vm.computer_name = vm-imds01\nvm.user = imdsadmin",
    ),
    (
        "imds-only",
        "disc = no\nvm.computer_name = vm-imds01\nvm.user = imdsadmin\n\
         vm.key = ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f imds@laptop",
    ),
    (
        "specialized",
        "disc = no\nvm.computer_name =\nvm.user =\nvm.key =",
    ),
    (
        "specialized-with-name",
        "disc = no\nvm.user =\nvm.key =\nvm.computer_name = vm-imds01",
    ),
    ("custom-data-missing", "vm.custom_data = yes"),
    ("pps-type-absent", "vm.pps ="),
    ("pool-vm-savable", "vm.pps = Savable"),
    ("pool-vm-os-disk", "vm.pps = PreprovisionedOSDisk"),
    ("pool-vm-by-disc", "disc.pps = Running\nvm.pps = None"),
    ("address-conflict", "net.conflict = yes"),
    ("pool-vm", "vm.pps = Running"),
];

/// How many of the scenarios that lose one frame are listed; a healthy boot has about so many frames.
const LISTED_LOSSES: u64 = 16;

impl Scenario {
    /// Gives a named scenario. `loss-of-frame N` is one for every N.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(number) = name.strip_prefix("loss-of-frame") {
            let number = number
                .trim_start_matches(['-', ' '])
                .parse()
                .ok()
                .filter(|n| *n > 0)?;
            let mut scenario = Self {
                name: name.into(),
                ..Self::default()
            };
            scenario.link.lose_any = Picks(vec![Pick::Range(number, number)]);
            return Some(scenario);
        }
        let (name, text) = NAMED.iter().find(|(known, _)| *known == name)?;
        let mut scenario = Self::parse(text).ok()?;
        scenario.name = (*name).into();
        Some(scenario)
    }

    /// Lists the names that [`Scenario::named`] knows.
    pub fn names() -> Vec<String> {
        let mut names: Vec<String> = NAMED.iter().map(|(name, _)| (*name).into()).collect();
        names.extend((1..=LISTED_LOSSES).map(|number| format!("loss-of-frame-{number}")));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_known_and_its_text_is_right() {
        for (name, text) in NAMED {
            if let Err(error) = Scenario::parse(text) {
                panic!("{name}: {error}");
            }
        }
        for name in Scenario::names() {
            assert_eq!(
                Scenario::named(&name).map(|scenario| scenario.name),
                Some(name)
            );
        }
        assert!(Scenario::named("loss-of-frame 7").is_some_and(|s| s.link.lose_any.has(7)));
        assert!(Scenario::named("loss-of-frame-0").is_none());
        assert!(Scenario::named("nonesuch").is_none());
    }
}
