//! A host on the Internet that visits a machine: real programs over the real kernel's TCP.
//!
//! A process of the lab in a network namespace of its own carries frames between an interface there
//! and a socket here; programs such as `ssh` are run in that namespace. The host's own network is
//! neither seen nor touched, and no privilege is needed.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};

use crate::fault::Fault;
use crate::fetch::{Lab, Tool, this_program};
use crate::platform::frame::Mac;
use crate::platform::plug::packet::Interface;
use crate::progress;

/// The visitor's address: one of those that are for examples.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// The visitor's hardware address.
pub const MAC: Mac = [0x02, 0x00, 0x00, 0x71, 0x07, 0x07];

/// The word by which this program knows that it is the one in the namespace.
pub const VERB: &str = "visitor";

/// What it says when frames can come.
const READY: &str = "ready";

/// The largest frame that is carried.
const FRAME: usize = 70_000;

/// A namespace with a cable into it.
#[derive(Debug)]
pub struct Visitor {
    carrier: Child,
    cable: UnixDatagram,
    nsenter: Tool,
}

impl Visitor {
    /// Makes the namespace.
    pub fn invite(lab: &Lab) -> Result<Self, Fault> {
        let (unshare, nsenter) = (lab.tool("unshare")?, lab.tool("nsenter")?);
        let ip = lab.tool("ip")?;
        let program = this_program()?;
        let lay = || -> io::Result<_> {
            let (cable, theirs) = UnixDatagram::pair()?;
            let mut command = unshare.command();
            command.args(["--user", "--map-root-user", "--net", "--"]);
            command.arg(&program).arg(VERB).arg(ip.program());
            let mut carrier = command
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::piped())
                .spawn()?;
            let mut said = String::new();
            if let Some(stdout) = carrier.stdout.take() {
                BufReader::new(stdout).read_line(&mut said)?;
            }
            Ok((cable, carrier, said))
        };
        let (cable, carrier, said) = lay().map_err(Fault::file("run", unshare.program()))?;
        let visitor = Self {
            carrier,
            cable,
            nsenter,
        };
        if said.trim() == READY {
            return Ok(visitor);
        }
        Err(Fault::Missing {
            what: "a network namespace".to_owned(),
            fix: format!("allow users to make them ({})", said.trim()),
        })
    }

    /// The socket on which the visitor's frames come and go.
    pub(crate) fn cable(&self) -> &UnixDatagram {
        &self.cable
    }

    /// Starts a command line of a program that runs in the namespace.
    pub fn command(&self, program: &Tool) -> Command {
        let command = program.command();
        let mut inside = Command::new(self.nsenter.program());
        inside
            .args(["--preserve-credentials", "--user", "--net", "--target"])
            .arg(self.carrier.id().to_string())
            .arg("--")
            .arg(command.get_program());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        inside
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // This very process; with it goes the namespace.
        let _ = self.carrier.kill();
        let _ = self.carrier.wait();
    }
}

/// Shows what a program said when it did not do as it should.
pub fn told(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Carries frames until nobody is left at the other end: what the process in the namespace does.
pub fn carry(ip: &str) -> Result<(), Fault> {
    // Whoever wanted the frames may be killed.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| Fault::file("watch", "lab".as_ref())(error.into()))?;
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    let gateway = "203.0.113.1";
    for line in [
        "link set lo up".to_owned(),
        format!("link add street address {mac} type veth peer name cable"),
        // Hardware that cuts large segments is not there.
        "link set street gso_max_segs 1".to_owned(),
        format!("address add {ADDRESS}/24 dev street"),
        "link set street up".to_owned(),
        "link set cable up".to_owned(),
        format!("neighbour add {gateway} lladdr 12:34:56:78:9a:bc dev street nud permanent"),
        format!("route add default via {gateway} dev street"),
    ] {
        progress::run(Command::new(ip).args(line.split(' ')))?;
    }
    println!("{READY}");
    let carried = || -> io::Result<()> {
        let street = Interface::open("cable")?;
        let socket = UnixDatagram::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        let mut frame = vec![0; FRAME];
        loop {
            loop {
                match socket.recv(&mut frame) {
                    Ok(0) => break,
                    Ok(length) => lossy(street.send(frame.get(..length).unwrap_or_default()))?,
                    Err(error) if is_nothing(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            loop {
                match street.receive(&mut frame) {
                    Ok(length) => {
                        lossy(
                            socket
                                .send(frame.get(..length).unwrap_or_default())
                                .map(drop),
                        )?;
                    }
                    Err(error) if is_nothing(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            crate::platform::plug::wait(&[socket.as_fd(), street.as_fd()], None)?;
        }
    };
    carried().map_err(Fault::file("carry frames of", "visitor".as_ref()))
}

/// Takes a frame that there was no room for as lost.
fn lossy(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if !is_nothing(&error) && error.raw_os_error() != Some(libc::ENOBUFS) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Runs a program to its end with this on its standard input.
pub fn run(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read it says so by failing.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}
