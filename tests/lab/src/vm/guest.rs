//! Who comes to a machine: a real SSH client with a key of its own, over the wire.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::boot::Hands;
use crate::disc::ovf::Document;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory};
use crate::progress;
use crate::visitor::{self, told};

/// What the machine shall be called.
pub(super) const HOST_NAME: &str = "vm-desk01";

/// Whom the machine shall know.
pub(super) const USER: &str = "deskadmin";

/// What the console shows when the machine can be visited, with its address.
pub(super) const UP: &str = "@@ up=";

/// What preroot says of a host key, before a line of `known_hosts`.
const HOST_KEY: &str = "host key ";

/// How to come in with the key.
pub(super) const KEY: [&str; 4] = ["-i", "key", "-o", "BatchMode=yes"];

/// What a visitor brings along.
pub(super) struct Desk {
    pub(super) directory: PathBuf,
    public: String,
    /// The machine's host key is known by the machine's name and not by its address.
    pub(super) by_name: bool,
}

impl Desk {
    /// Makes a key, and what is needed to tell a password.
    pub(super) fn set(lab: &Lab, directory: &Path) -> Result<Self, Fault> {
        create_directory(directory)?;
        let key = directory.join("key");
        let mut keygen = lab.tool("ssh-keygen")?.command();
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "visitor", "-f"]);
        progress::run(keygen.arg(&key))?;
        let public = key.with_extension("pub");
        let public = fs::read_to_string(&public).map_err(Fault::file("read", &public))?;
        let desk = Self {
            directory: directory.to_owned(),
            public: public.trim_end().to_owned(),
            by_name: false,
        };
        let asked = desk.written("askpass", b"#!/bin/sh\nexec cat \"${0%/*}/password\"\n")?;
        fs::set_permissions(&asked, Permissions::from_mode(0o700))
            .map_err(Fault::file("chmod", &asked))?;
        Ok(desk)
    }

    pub(super) fn document(&self) -> Document {
        Document::new(HOST_NAME, USER).key(&self.public)
    }

    pub(super) fn written(&self, name: &str, content: &[u8]) -> Result<PathBuf, Fault> {
        let path = self.directory.join(name);
        fs::write(&path, content).map_err(Fault::file("write", &path))?;
        Ok(path)
    }
}

/// A visitor at the machine's door.
pub(super) struct Guest<'a> {
    pub(super) desk: &'a Desk,
    hands: &'a Hands<'a>,
    address: String,
    /// What ssh does with a host key that it does not know.
    pub(super) strict: &'static str,
    /// Logins that were not as they must be.
    pub(super) refused: Vec<String>,
    /// What is wrong with the host key.
    pub(super) host_key: Vec<String>,
}

impl<'a> Guest<'a> {
    /// Comes with what the console shows: the address, and the host key.
    pub(super) fn arrive(desk: &'a Desk, hands: &'a Hands<'a>) -> Result<Self, Fault> {
        let known: Vec<_> = hands
            .console
            .iter()
            .filter_map(|line| line.split_once(HOST_KEY))
            .map(|(_, known)| known.to_owned())
            // A fingerprint has no address and no type before it.
            .filter(|known| {
                known
                    .split(' ')
                    .nth(1)
                    .is_some_and(|kind| kind.contains('-'))
            })
            .collect();
        desk.written("known_hosts", (known.join("\n") + "\n").as_bytes())?;
        let mut guest = Self {
            desk,
            hands,
            address: address(hands),
            strict: "yes",
            refused: Vec::new(),
            host_key: Vec::new(),
        };
        let stranger = desk.written("stranger", b"")?;
        let unknown = guest.ssh("yes", &stranger, &KEY, "true", "")?;
        if unknown.status.success() {
            let why = "ssh accepts a key that it does not know".to_owned();
            guest.host_key.push(why);
        }
        if known.is_empty() {
            let why = format!("the console shows no line with `{HOST_KEY}`");
            guest.host_key.push(why);
            guest.strict = "accept-new";
        }
        Ok(guest)
    }

    /// Comes once more to a machine that was visited before, which must have kept its host key.
    pub(super) fn return_to(desk: &'a Desk, hands: &'a Hands<'a>) -> Self {
        Self {
            desk,
            hands,
            address: address(hands),
            strict: "yes",
            refused: Vec::new(),
            host_key: Vec::new(),
        }
    }

    /// Comes to a machine whose host key nobody could know, and takes what it shows.
    pub(super) fn trust(desk: &'a Desk, hands: &'a Hands<'a>) -> Result<Self, Fault> {
        desk.written("known_hosts", b"")?;
        Ok(Self {
            strict: "accept-new",
            ..Self::return_to(desk, hands)
        })
    }

    /// Has a shell on the machine, as root, run a script, and gives what it wrote.
    pub(super) fn look(&mut self, script: &str) -> Result<String, Fault> {
        let known = self.desk.directory.join("known_hosts");
        let output = self.ssh(self.strict, &known, &KEY, "sudo -n sh -s", script)?;
        if !output.status.success() {
            self.refused.push(format!("by key: {}", told(&output)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Pings the machine, which must answer.
    pub(super) fn ping(&mut self) -> Result<(), Fault> {
        let busybox = self.hands.lab.tool("busybox")?;
        let mut line = self.hands.visitor.command(&busybox);
        line.args(["ping", "-c", "3", "-A", "-W", "10"])
            .arg(&self.address);
        let output = visitor::run(&mut line, "").map_err(Fault::file("run", busybox.program()))?;
        if !output.status.success() {
            self.refused.push(format!("ping: {}", told(&output)));
        }
        Ok(())
    }

    /// Runs `ssh` with a command for the other side that reads this on its standard input.
    pub(super) fn ssh(
        &self,
        strict: &str,
        known: &Path,
        options: &[&str],
        command: &str,
        input: &str,
    ) -> Result<Output, Fault> {
        let ssh = self.hands.lab.tool("ssh")?;
        let mut line = self.hands.visitor.command(&ssh);
        line.current_dir(&self.desk.directory);
        line.args(["-F", "/dev/null", "-T", "-o", "LogLevel=ERROR"]);
        line.args(["-o", "ConnectTimeout=20", "-o", "IdentitiesOnly=yes"]);
        line.args(["-o", "GlobalKnownHostsFile=/dev/null"]);
        line.args(["-o", &format!("StrictHostKeyChecking={strict}")]);
        line.args(["-o", &format!("UserKnownHostsFile={}", known.display())]);
        if self.desk.by_name {
            line.args(["-o", &format!("HostKeyAlias={HOST_NAME}")]);
        }
        line.args(options);
        line.env("SSH_ASKPASS", self.desk.directory.join("askpass"));
        line.env("SSH_ASKPASS_REQUIRE", "force");
        line.arg(format!("{USER}@{}", self.address)).arg(command);
        visitor::run(&mut line, input).map_err(Fault::file("run", ssh.program()))
    }

    /// Runs a command on the machine, which must give this answer.
    pub(super) fn comes_in(
        &mut self,
        how: &str,
        options: &[&str],
        command: &str,
        input: &str,
        answer: &str,
    ) -> Result<(), Fault> {
        let known = self.desk.directory.join("known_hosts");
        let mut output = self.ssh(self.strict, &known, options, command, input)?;
        if String::from_utf8_lossy(&output.stderr).contains("Host key verification failed") {
            let why = format!("the key on the console is not sshd's: {}", told(&output));
            self.host_key.push(why);
            // What else there is to see shall be seen.
            self.strict = "accept-new";
            self.desk.written("known_hosts", b"")?;
            output = self.ssh(self.strict, &known, options, command, input)?;
        }
        if !output.status.success() || output.stdout != answer.as_bytes() {
            let told = told(&output);
            self.refused.push(format!("{how}, `{command}`: {told}"));
        }
        Ok(())
    }
}

/// Takes the machine's address from the line of the console that was waited for.
fn address(hands: &Hands<'_>) -> String {
    let line = hands.console.last().map_or("", String::as_str);
    let address = line.split_once(UP).map_or("", |(_, rest)| rest);
    address.trim().to_owned()
}
