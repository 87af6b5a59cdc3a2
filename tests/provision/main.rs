//! Whole runs of `preroot provision` on the simulated platform, in network namespaces.
//!
//! The program is the real one, and so are its sockets, its interface and the files that it writes;
//! firmware, disc and platform are the test's. No test of a boot: there is no kernel of its own here.
//!
//! As an ordinary user they need more than one user id: `newuidmap` and a line in `/etc/subuid`.
//!
//! Programs of others (DHCP servers, openssl) are looked for below the directory that
//! `PREROOT_TOOLS` names and in `PATH`; without them, and where no namespaces can be made, a test says
//! that it was skipped, but fails where `CI` or `PREROOT_STRICT` is set.

mod azure;
mod below;
mod clients;
mod coexistence;
mod credentials;
mod discs;
mod far;
mod foreign;
mod handed;
mod handover;
mod healthy;
mod hostile;
mod installed;
mod lease;
mod machine;
mod manager;
mod memory;
mod metadata;
#[path = "../namespace/mod.rs"]
mod namespace;
mod network;
mod options;
mod pool;
mod prefetch;
mod renewal;
mod report;
mod roots;
mod run;
mod sshd;
mod system;
mod tools;
mod trouble;
