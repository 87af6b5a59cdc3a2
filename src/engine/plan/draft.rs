//! A plan while it is made.
//!
//! Drops every change that the root has already, so that a plan lists only what differs, and adds the
//! directories that a change needs.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::credentials::Account;
use super::{
    Action, Change, Context, Kind, Note, Outcome, Output, Plan, PlanFault, RootFault, RootView,
    Stat,
};
use crate::engine::identity::Identity;
use crate::wire::accounts::{self, File};

/// User and group of the system's own files.
pub(super) const ROOT: (u32, u32) = (0, 0);

/// What a file or directory is called in a fault where it may be anyone.
const FILE: &str = "a file to write";
const DIRECTORY: &str = "a directory";

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
}

/// Makes a text; every `format!` would bring its own way to do it.
#[inline(never)]
pub(super) fn text(arguments: fmt::Arguments<'_>) -> String {
    alloc::fmt::format(arguments)
}

/// Makes the content of a file.
pub(super) fn content(arguments: fmt::Arguments<'_>) -> File {
    Zeroizing::new(text(arguments).into_bytes())
}

/// Says which part of the root cannot be looked at.
#[cold]
#[expect(
    clippy::unnecessary_box_returns,
    reason = "boxed here, it is not boxed in every place that has a fault"
)]
fn fault(what: &'static str, fault: RootFault) -> Box<PlanFault> {
    Box::new(PlanFault::Root(what, fault))
}

impl Plan {
    /// Adds a change.
    pub(super) fn push(&mut self, place: &Place<'_>, action: Action, purpose: fmt::Arguments<'_>) {
        self.changes.push(Change {
            path: String::from(place.path),
            trusted: place.trusted,
            owner: place.owner,
            mode: place.mode,
            action,
            purpose: text(purpose),
        });
    }
}

/// Collects changes and notes.
pub(super) struct Draft<'a> {
    pub(super) identity: &'a Identity,
    pub(super) context: &'a Context<'a>,
    root: &'a dyn RootView,
    plan: Plan,
    account: Option<Account>,
    groups: Vec<&'static str>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        identity: &'a Identity,
        root: &'a dyn RootView,
        context: &'a Context<'a>,
    ) -> Self {
        let plan = Plan::default();
        Self {
            identity,
            context,
            root,
            plan,
            account: None,
            groups: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    pub(super) fn note(&mut self, note: Note) {
        self.plan.notes.push(note);
    }

    /// Notes a group that has the administrator as a member.
    pub(super) fn note_group(&mut self, group: &'static str) {
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
    }

    /// Notes an account that is not in the root yet, for who makes it there instead of us.
    pub(super) fn note_account(&mut self, account: Account) {
        if self.context.output != Output::Files {
            self.account = Some(account);
        }
    }

    /// Gives that account, and the groups that have it as a member.
    pub(super) fn take_account(&mut self) -> Option<(Account, Vec<&'static str>)> {
        Some((self.account.take()?, core::mem::take(&mut self.groups)))
    }

    /// Gives the changes so far.
    pub(super) fn changes(&self) -> &[Change] {
        &self.plan.changes
    }

    /// Gives a file of the system as it will be.
    pub(super) fn planned(&self, path: &'static str) -> Outcome<File> {
        let planned = self.plan.changes.iter().find(|change| change.path == path);
        match planned.map(|change| &change.action) {
            Some(Action::Write(content)) => Ok(content.clone()),
            _ => self.read_or_empty(path),
        }
    }

    /// Leaves what is to be written instead of the changes.
    pub(super) fn hand_over(&mut self, plan: Plan) {
        self.plan.credentials = Some(Box::new(plan));
    }

    /// Wants the root's own program to make a host key.
    pub(super) fn make_host_key(&mut self, kind: &'static str) {
        self.plan.host_key_types.push(kind);
    }

    /// Wants the custom data to be run.
    pub(super) fn run_custom_data(&mut self) {
        self.plan.run_custom_data = true;
    }

    /// Reads a file of the system; wiped when it is dropped, since shadow is read like any other.
    pub(super) fn read(&self, path: &'static str) -> Outcome<Option<File>> {
        self.read_any(path, path, accounts::FILE_MAX)
    }

    /// Reads a file of the system that is as good as empty when it is not there.
    pub(super) fn read_or_empty(&self, path: &'static str) -> Outcome<File> {
        Ok(self.read(path)?.unwrap_or_default())
    }

    /// Reads a file of at most `limit` bytes; `what` names it in a fault, here and below.
    pub(super) fn read_any(
        &self,
        path: &str,
        what: &'static str,
        limit: usize,
    ) -> Outcome<Option<File>> {
        match self.root.read(path, limit) {
            Ok(read) => Ok(read.map(Zeroizing::new)),
            Err(why) => Err(fault(what, why)),
        }
    }

    /// Looks at a path.
    pub(super) fn stat(&self, path: &str, what: &'static str) -> Outcome<Option<Stat>> {
        self.root.stat(path).map_err(|why| fault(what, why))
    }

    /// Tells whether a path leads to something.
    pub(super) fn has(&self, path: &'static str) -> Outcome<bool> {
        Ok(self.stat(path, path)?.is_some())
    }

    /// Tells whether one of these paths leads to something.
    pub(super) fn has_any(&self, paths: &[&'static str]) -> Outcome<bool> {
        for path in paths {
            if self.has(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether the last part of a path is itself a symbolic link.
    pub(super) fn is_link(&self, path: &str, what: &'static str) -> Outcome<bool> {
        self.root.is_link(path).map_err(|why| fault(what, why))
    }

    /// Names each entry of a directory.
    pub(super) fn list(
        &self,
        directory: &str,
        what: &'static str,
        each: &mut dyn FnMut(&str),
    ) -> Outcome<()> {
        self.root
            .list(directory, each)
            .map_err(|why| fault(what, why))
    }

    /// Wants a file to have this content.
    pub(super) fn write(
        &mut self,
        place: &Place<'_>,
        content: File,
        purpose: fmt::Arguments<'_>,
    ) -> Outcome<()> {
        if let Some(stat) = self.stat(place.path, FILE)?
            && stat.kind == Kind::File
            && stat.owner == place.owner
            && stat.mode == place.mode
            && stat.size == content.len() as u64
            && self
                .read_any(place.path, FILE, content.len())?
                .is_some_and(|old| *old == *content)
        {
            return Ok(());
        }
        self.parents(place.path)?;
        self.plan.push(place, Action::Write(content), purpose);
        Ok(())
    }

    /// Wants a file of the system to have this content.
    pub(super) fn write_system(
        &mut self,
        path: &str,
        mode: u32,
        content: File,
        purpose: fmt::Arguments<'_>,
    ) -> Outcome<()> {
        self.write(&Place::system(path, mode), content, purpose)
    }

    /// Wants a file of the system to have this content, with its owner and mode if it is there.
    pub(super) fn rewrite(
        &mut self,
        path: &'static str,
        looks: ((u32, u32), u32),
        content: File,
        purpose: fmt::Arguments<'_>,
    ) -> Outcome<()> {
        self.rewrite_like(path, path, looks, content, purpose)
    }

    /// The same with the owner and mode of another file, if that is there.
    pub(super) fn rewrite_like(
        &mut self,
        model: &'static str,
        path: &'static str,
        (owner, mode): ((u32, u32), u32),
        content: File,
        purpose: fmt::Arguments<'_>,
    ) -> Outcome<()> {
        let (owner, mode) = match self.stat(model, model)? {
            Some(stat) => (stat.owner, stat.mode),
            None => (owner, mode),
        };
        let place = Place {
            owner,
            ..Place::system(path, mode)
        };
        self.write(&place, content, purpose)
    }

    /// Wants a file of the system, which is there, to go.
    pub(super) fn remove(&mut self, path: &str, purpose: &str) {
        let place = Place::system(path, 0);
        self.plan
            .push(&place, Action::Remove, format_args!("{purpose}"));
    }

    /// Wants a directory to be there and to look like this.
    pub(super) fn directory(
        &mut self,
        place: &Place<'_>,
        purpose: fmt::Arguments<'_>,
    ) -> Outcome<()> {
        if self.plans(place.path) {
            return Ok(());
        }
        if let Some(stat) = self.stat(place.path, DIRECTORY)?
            && stat.kind == Kind::Directory
            && stat.owner == place.owner
            && stat.mode == place.mode
        {
            return Ok(());
        }
        self.parents(place.path)?;
        self.plan.push(place, Action::Directory, purpose);
        Ok(())
    }

    /// Wants a directory of the system to be there.
    pub(super) fn system_directory(&mut self, path: &str, mode: u32, purpose: &str) -> Outcome<()> {
        self.directory(&Place::system(path, mode), format_args!("{purpose}"))
    }

    /// Wants the directories above a path, as the system has them.
    fn parents(&mut self, path: &str) -> Outcome<()> {
        for (at, byte) in path.bytes().enumerate().skip(1) {
            let parent = path.get(..at).unwrap_or_default();
            if byte == b'/' && !self.plans(parent) && self.stat(parent, DIRECTORY)?.is_none() {
                let place = Place::system(parent, 0o755);
                self.plan
                    .push(&place, Action::Directory, format_args!("needed below"));
            }
        }
        Ok(())
    }

    fn plans(&self, path: &str) -> bool {
        self.plan.changes.iter().any(|change| change.path == path)
    }
}
