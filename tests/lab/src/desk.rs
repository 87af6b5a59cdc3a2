//! What surrounds a machine on the desk: its platform, its disc, and the directory of its run.
//!
//! Nothing here knows what the machine boots.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::disc::Builder;
use crate::expected::Expected;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, remove_directory};
use crate::platform::{Platform, Scenario, pcap, plug};
use crate::qemu::{Cable, Peer};
use crate::visitor::{self, Visitor};

/// The network card's address, of a range that Azure uses.
pub const MAC: [u8; 6] = [0x00, 0x0d, 0x3a, 0x5e, 0x11, 0x0a];

/// The VM's id, as the platform has it.
pub const VM_ID: &str = "6c2d1f04-93a7-4b58-8e0f-51d3a2b7c964";

/// The document on the default disc.
pub const DOCUMENT: &str = include_str!("../data/ovf-env.xml");

/// What is in the CD-ROM drive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Disc {
    /// A disc that the lab makes around the document.
    #[default]
    Made,
    /// This image.
    Image(PathBuf),
    /// Nothing.
    Empty,
}

/// What is asked of the surroundings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// What is in the drive.
    pub(crate) disc: &'a Disc,
    /// The document, in place of the lab's.
    pub(crate) document: Option<&'a Path>,
    /// What the platform is like.
    pub(crate) scenario: Option<&'a Scenario>,
    /// Where every frame goes.
    pub(crate) pcap: Option<&'a Path>,
}

/// The surroundings of one machine.
pub(crate) struct Desk {
    /// The platform, unless the cable leads nowhere.
    pub(crate) platform: Option<Platform>,
    /// The VM's id.
    pub(crate) vm_id: String,
    /// Who the VM must become, if that is known.
    pub(crate) expected: Option<Expected>,
    /// The medium in the drive.
    pub(crate) disc: Option<PathBuf>,
}

impl Desk {
    /// Sets it for a run in this directory.
    pub(crate) fn set(wanted: &Wanted<'_>, work: &Path) -> Result<Self, Fault> {
        let document = wanted.document()?;
        let mut expected = wanted.expected(document.as_deref())?;
        let disc = wanted.disc(document.as_deref(), work)?;
        let (mut platform, mut vm_id) = (None, VM_ID.to_owned());
        if let Some(mut scenario) = wanted.scenario.cloned() {
            if scenario.vm.id == Scenario::default().vm.id {
                scenario.vm.id.clone_from(&vm_id);
            }
            vm_id.clone_from(&scenario.vm.id);
            scenario.follow(expected.as_ref());
            expected = scenario.expected(expected.as_ref());
            platform = Some(wanted.platform(scenario)?);
        }
        Ok(Self {
            platform,
            vm_id,
            expected,
            disc,
        })
    }
}

impl Wanted<'_> {
    /// Starts the platform for one VM.
    fn platform(&self, scenario: Scenario) -> Result<Platform, Fault> {
        let mut platform = Platform::new(scenario);
        if let Some(path) = self.pcap {
            let file = fs::File::create(path).map_err(Fault::file("create", path))?;
            let writer = pcap::Writer::new(Box::new(file) as Box<dyn io::Write + Send>);
            platform.record(writer.map_err(Fault::file("write", path))?);
        }
        Ok(platform)
    }

    /// Gives the document for the disc that is made, if one is.
    fn document(&self) -> Result<Option<String>, Fault> {
        let told = self.scenario.map(|scenario| &scenario.disc);
        match (self.disc, self.document) {
            (Disc::Empty | Disc::Image(_), _) => Ok(None),
            (Disc::Made, Some(path)) => fs::read_to_string(path)
                .map(Some)
                .map_err(Fault::file("read", path)),
            (Disc::Made, None) if told.is_some_and(|disc| disc.absent) => Ok(None),
            (Disc::Made, None) => {
                let usual = Expected::parse(DOCUMENT, Path::new("ovf-env.xml"))?;
                let told = told.and_then(|disc| disc.document(&usual));
                Ok(Some(told.unwrap_or_else(|| DOCUMENT.to_owned())))
            }
        }
    }

    /// Reads what the disc asks for, if that is known.
    fn expected(&self, document: Option<&str>) -> Result<Option<Expected>, Fault> {
        match (document, self.document) {
            (Some(text), path) => {
                let path = path.unwrap_or(Path::new("ovf-env.xml"));
                Expected::parse(text, path).map(Some)
            }
            (None, Some(path)) => {
                let text = fs::read_to_string(path).map_err(Fault::file("read", path))?;
                Expected::parse(&text, path).map(Some)
            }
            // A machine without a disc is a specialized one, whose identity is on its root already.
            (None, None) => Ok(None),
        }
    }

    /// Gives the medium, made around the document if none was brought.
    fn disc(&self, document: Option<&str>, work: &Path) -> Result<Option<PathBuf>, Fault> {
        if let Disc::Image(path) = self.disc {
            fs::File::open(path).map_err(Fault::file("read", path))?;
            return Ok(Some(path.clone()));
        }
        let Some(document) = document else {
            return Ok(None);
        };
        let image = Builder::new().file("ovf-env.xml", document).build();
        let path = work.join("disc.img");
        fs::write(&path, image).map_err(Fault::file("write", &path))?;
        Ok(Some(path))
    }
}

/// The directory of one run, removed at its end unless it is to stay.
#[derive(Debug)]
pub(crate) struct Work {
    /// Where it is.
    pub(crate) path: PathBuf,
    keep: bool,
}

impl Work {
    /// Makes a directory, and removes those of runs that were killed.
    pub(crate) fn begin(lab: &Lab, keep: bool) -> Result<Self, Fault> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let runs = lab.directory().join("run");
        create_directory(&runs)?;
        for old in list(&runs) {
            let name = old
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let alive = name
                .split('-')
                .next()
                .is_some_and(|pid| Path::new("/proc").join(pid).exists());
            if !alive && !old.join("keep").exists() {
                remove_directory(&old)?;
            }
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}-{number}", std::process::id()));
        remove_directory(&path)?;
        create_directory(&path)?;
        if keep {
            let mark = path.join("keep");
            fs::write(&mark, "").map_err(Fault::file("write", &mark))?;
        }
        Ok(Self { path, keep })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.keep {
            // The next run removes what this one could not.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The far end of the cable, held by the simulated platform.
pub(crate) struct Plugged<'a> {
    /// The platform.
    pub(crate) platform: &'a mut Platform,
    /// A host on the Internet.
    pub(crate) visitor: Option<&'a Visitor>,
    /// Sees the platform each time that something may have happened.
    pub(crate) look: &'a dyn Fn(&Platform),
}

impl Peer for Plugged<'_> {
    fn serve(&mut self, cable: &Cable, over: &AtomicBool) -> io::Result<()> {
        let stop = |platform: &Platform| {
            (self.look)(platform);
            over.load(Ordering::Relaxed)
        };
        let gateway = self.platform.gateway();
        let guest = self.visitor.map(|visitor| plug::dgram::Guest {
            socket: visitor.cable(),
            address: visitor::ADDRESS,
            mac: visitor::MAC,
            vm: MAC,
            gateway,
        });
        plug::dgram::run(
            self.platform,
            cable.socket(),
            &cable.machine(),
            guest.as_ref(),
            stop,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disc_is_what_the_scenario_says_unless_one_was_brought() {
        let document = |scenario: &str, disc: Disc| {
            let wanted = Wanted {
                disc: &disc,
                document: None,
                scenario: Some(&Scenario::parse(scenario).unwrap()),
                pcap: None,
            };
            wanted.document().unwrap()
        };
        assert_eq!(document("", Disc::Made).as_deref(), Some(DOCUMENT));
        assert_eq!(document("disc = no", Disc::Made), None);
        let told = document("disc.user = alice", Disc::Made).unwrap();
        assert!(told.contains("<UserName>alice</UserName>") && told.contains("vm-desk01"));
        assert_eq!(document("disc.user = alice", Disc::Empty), None);
    }

    #[test]
    fn nothing_is_promised_without_a_document() {
        for disc in [Disc::Empty, Disc::Image("/x".into())] {
            let wanted = Wanted {
                disc: &disc,
                document: None,
                scenario: None,
                pcap: None,
            };
            assert_eq!(wanted.document().unwrap(), None);
            assert_eq!(wanted.expected(None).unwrap(), None);
        }
    }
}
