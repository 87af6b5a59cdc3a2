//! A plan while it is made.
//!
//! Drops every change that the root has already, so that a plan lists only what differs, and adds the
//! directories that a change needs.

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{Action, Change, Context, Kind, Note, Plan, PlanFault, RootView, Stat};
use crate::engine::identity::Identity;

/// User and group of the system's own files.
pub(super) const ROOT: (u32, u32) = (0, 0);

/// Where a change goes and what it shall look like there.
pub(super) struct Place<'a> {
    pub(super) path: &'a str,
    pub(super) trusted: usize,
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
}

impl<'a> Place<'a> {
    /// A file or directory of the system.
    pub(super) fn system(path: &'a str, mode: u32) -> Self {
        Self {
            path,
            trusted: path.len(),
            owner: ROOT,
            mode,
        }
    }

    /// The same with the owner and mode of what is there now.
    pub(super) fn like(self, stat: Option<Stat>) -> Self {
        match stat {
            Some(stat) => Self {
                owner: stat.owner,
                mode: stat.mode,
                ..self
            },
            None => self,
        }
    }
}

/// Collects changes and notes.
pub(super) struct Draft<'a> {
    pub(super) identity: &'a Identity,
    pub(super) root: &'a dyn RootView,
    pub(super) context: &'a Context<'a>,
    plan: Plan,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        identity: &'a Identity,
        root: &'a dyn RootView,
        context: &'a Context<'a>,
    ) -> Self {
        let plan = Plan {
            changes: Vec::new(),
            notes: Vec::new(),
        };
        Self {
            identity,
            root,
            context,
            plan,
        }
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    pub(super) fn note(&mut self, note: Note) {
        self.plan.notes.push(note);
    }

    /// Reads a file; wiped when it is dropped, since shadow is read like any other.
    pub(super) fn read(
        &self,
        path: &'static str,
        limit: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, PlanFault> {
        let read = self
            .root
            .read(path, limit)
            .map_err(|fault| PlanFault::Root(path, fault))?;
        Ok(read.map(Zeroizing::new))
    }

    /// Looks at a path; `what` names it in a fault.
    pub(super) fn stat(&self, path: &str, what: &'static str) -> Result<Option<Stat>, PlanFault> {
        self.root
            .stat(path)
            .map_err(|fault| PlanFault::Root(what, fault))
    }

    /// Tells whether a path leads to something.
    pub(super) fn has(&self, path: &'static str) -> Result<bool, PlanFault> {
        Ok(self.stat(path, path)?.is_some())
    }

    /// Wants a file to have this content.
    pub(super) fn write(
        &mut self,
        place: &Place<'_>,
        content: Zeroizing<Vec<u8>>,
        purpose: impl Into<String>,
    ) -> Result<(), PlanFault> {
        if let Some(stat) = self.stat(place.path, "a file to write")?
            && stat.kind == Kind::File
            && stat.owner == place.owner
            && stat.mode == place.mode
            && stat.size == content.len() as u64
        {
            let old = self.root.read(place.path, content.len());
            let old = old.map_err(|fault| PlanFault::Root("a file to write", fault))?;
            if old.map(Zeroizing::new).is_some_and(|old| *old == *content) {
                return Ok(());
            }
        }
        self.parents(place.path)?;
        self.push(place, Action::Write(content), purpose.into());
        Ok(())
    }

    /// Wants a directory to be there and to look like this.
    pub(super) fn directory(
        &mut self,
        place: &Place<'_>,
        purpose: impl Into<String>,
    ) -> Result<(), PlanFault> {
        let is = |stat: Stat| {
            stat.kind == Kind::Directory && stat.owner == place.owner && stat.mode == place.mode
        };
        if self.plans(place.path) || self.stat(place.path, "a directory")?.is_some_and(is) {
            return Ok(());
        }
        self.parents(place.path)?;
        self.push(place, Action::Directory, purpose.into());
        Ok(())
    }

    /// Wants the directories above a path, as the system has them.
    fn parents(&mut self, path: &str) -> Result<(), PlanFault> {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            let parent = path.get(..at).unwrap_or_default();
            if !self.plans(parent) && self.stat(parent, "a directory")?.is_none() {
                let place = Place::system(parent, 0o755);
                self.push(&place, Action::Directory, String::from("needed below"));
            }
        }
        Ok(())
    }

    fn plans(&self, path: &str) -> bool {
        self.plan.changes.iter().any(|change| change.path == path)
    }

    fn push(&mut self, place: &Place<'_>, action: Action, purpose: String) {
        self.plan.changes.push(Change {
            path: String::from(place.path),
            trusted: place.trusted,
            owner: place.owner,
            mode: place.mode,
            action,
            purpose,
        });
    }
}
