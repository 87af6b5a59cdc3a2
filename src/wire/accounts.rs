//! The account files: passwd, shadow, group, gshadow, subuid and subgid, as lines.
//!
//! Edits one line at a time and keeps every other byte as it was, bad lines, comments and NIS markers
//! included: these files belong to the image. Not a database: nothing is looked up anywhere but in the
//! text given. Formats: passwd(5), shadow(5), group(5), gshadow(5), subuid(5), login.defs(5).

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use zeroize::Zeroizing;

/// Largest account file; larger ones come from a directory service, not from an image.
pub const FILE_MAX: usize = 256 * 1024;

/// Most times that a file of subordinate ids is gone through; one whose lines are in any order of use
/// to somebody needs a few.
const ROUNDS_MAX: usize = 1000;

/// Column of the user or group id in passwd and group.
pub const ID: usize = 2;
/// Column of the members in group and gshadow.
pub const MEMBERS: usize = 3;
/// Column of the password hash in every file that has one.
pub const HASH: usize = 1;

/// Account file content; wiped, because shadow is among them.
pub type File = Zeroizing<Vec<u8>>;

/// What passwd says of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// The user id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
    /// The home directory.
    pub home: &'a str,
}

/// Finds the line of `name`, without its line break; the first one counts, as for the C library.
pub fn find<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines(file).find(|line| column(line, 0) == Some(name.as_bytes()))
}

/// Finds a user in passwd; a line that is too damaged to be used counts as none.
pub fn user<'a>(passwd: &'a [u8], name: &str) -> Option<User<'a>> {
    let line = find(passwd, name)?;
    Some(User {
        uid: number(column(line, ID)?)?,
        gid: number(column(line, 3)?)?,
        home: core::str::from_utf8(column(line, 5)?).ok()?,
    })
}

/// Finds a group's id.
pub fn group(file: &[u8], name: &str) -> Option<u32> {
    number(column(find(file, name)?, ID)?)
}

/// Gives the column of a line, counted from 0.
pub fn column(line: &[u8], index: usize) -> Option<&[u8]> {
    line.split(|byte| *byte == b':').nth(index)
}

/// Gives the first id of `range` that is in the id column of none of `files`; `wish` first, if it is free.
pub fn free_id(files: &[&[u8]], range: RangeInclusive<u32>, wish: Option<u32>) -> Option<u32> {
    let each_used = |each: &mut dyn FnMut(u32)| {
        for line in files.iter().flat_map(|file| lines(file)) {
            if let Some(id) = column(line, ID).and_then(number)
                && range.contains(&id)
            {
                each(id);
            }
        }
    };
    let mut count = 0_usize;
    let mut wished = wish.is_some_and(|wish| range.contains(&wish));
    each_used(&mut |id| {
        count = count.saturating_add(1);
        wished &= Some(id) != wish;
    });
    if wished {
        return wish;
    }
    // Among one id more than are used, there is a free one.
    let mut used = alloc::vec![false; count.saturating_add(1)];
    let start = *range.start();
    each_used(&mut |id| {
        if let Some(slot) = used.get_mut(id.abs_diff(start) as usize) {
            *slot = true;
        }
    });
    let gap = used.iter().position(|used| !used)?;
    let id = start.checked_add(u32::try_from(gap).ok()?)?;
    range.contains(&id).then_some(id)
}

/// Gives the start of the first stretch of `count` subordinate ids in `range` that no line reaches into.
pub fn free_stretch(file: &[u8], range: RangeInclusive<u32>, count: u32) -> Option<u32> {
    let mut start = *range.start();
    // Most files are in the order of their ids, so that the second round moves nothing.
    for _ in 0..ROUNDS_MAX {
        let before = start;
        for line in lines(file) {
            if let Some(first) = column(line, 1).and_then(number)
                && let Some(length) = column(line, 2).and_then(number)
                && first < start.saturating_add(count)
            {
                start = start.max(first.saturating_add(length));
            }
        }
        if start == before {
            let last = start.checked_add(count)?.checked_sub(1)?;
            return (last <= *range.end()).then_some(start);
        }
    }
    None
}

/// Adds a line at the end, before the NIS markers if there are any.
pub fn append(file: &[u8], line: &str) -> File {
    let mut rest = Lines(file);
    loop {
        let after = rest.0;
        match rest.next() {
            Some([b'+' | b'-', ..]) | None => return insert(file, after, line),
            Some(_) => {}
        }
    }
}

/// Adds a line at the very end.
pub fn append_last(file: &[u8], line: &str) -> File {
    insert(file, &[], line)
}

/// Adds a line before `after`, which is the end of the file.
fn insert(file: &[u8], after: &[u8], line: &str) -> File {
    let before = file.strip_suffix(after).unwrap_or(file);
    let mut out = with_room(file, line.len());
    out.extend_from_slice(before);
    if before.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(after);
    out
}

/// Takes every line of `name` out.
pub fn without(file: &[u8], name: &str) -> File {
    let mut out = with_room(file, 0);
    let mut rest = Lines(file);
    loop {
        let start = rest.0;
        match rest.next() {
            None => return out,
            Some(line) if column(line, 0) == Some(name.as_bytes()) => {}
            Some(_) => {
                let taken = start.len().saturating_sub(rest.0.len());
                out.extend_from_slice(start.get(..taken).unwrap_or_default());
            }
        }
    }
}

/// Replaces one column of the first line of `name`; columns that the line lacks are added empty.
pub fn replace(file: &[u8], name: &str, index: usize, value: &[u8]) -> File {
    let mut out = with_room(file, value.len());
    let mut rest = Lines(file);
    loop {
        let start = rest.0;
        match rest.next() {
            None => out.extend_from_slice(file),
            Some(line) if column(line, 0) != Some(name.as_bytes()) => continue,
            Some(line) => {
                out.extend_from_slice(file.strip_suffix(start).unwrap_or_default());
                for position in 0.. {
                    let old = column(line, position);
                    if old.is_none() && position > index {
                        break;
                    }
                    if position > 0 {
                        out.push(b':');
                    }
                    let new = (position == index).then_some(value);
                    out.extend_from_slice(new.or(old).unwrap_or_default());
                }
                let whole = start.strip_suffix(rest.0).unwrap_or_default();
                out.extend_from_slice(whole.strip_prefix(line).unwrap_or_default());
                out.extend_from_slice(rest.0);
            }
        }
        return out;
    }
}

/// Gives the names of the groups that have a user: as members, or by the id of the user's own group.
pub fn groups_of(file: &[u8], user: &str, gid: u32) -> Vec<String> {
    let is_its = |line: &[u8]| {
        let members = column(line, MEMBERS).unwrap_or_default();
        column(line, ID).and_then(number) == Some(gid)
            || members
                .split(|byte| *byte == b',')
                .any(|member| member.trim_ascii() == user.as_bytes())
    };
    let name = |line| String::from_utf8(Vec::from(column(line, 0)?)).ok();
    lines(file)
        .filter(|line| is_its(line))
        .filter_map(name)
        .collect()
}

/// Adds `user` to the members of `group`; nothing when it is a member already or there is no such group.
pub fn add_member(file: &[u8], group: &str, user: &str) -> Option<File> {
    let members = column(find(file, group)?, MEMBERS).unwrap_or_default();
    if members
        .split(|byte| *byte == b',')
        .any(|member| member.trim_ascii() == user.as_bytes())
    {
        return None;
    }
    let mut value = members.trim_ascii_end().to_vec();
    if !matches!(value.last(), None | Some(b',')) {
        value.push(b',');
    }
    value.extend_from_slice(user.as_bytes());
    Some(replace(file, group, MEMBERS, &value))
}

/// Reads a value of login.defs; the last one counts, as for the shadow tools.
pub fn login_defs<'a>(file: &'a [u8], key: &str) -> Option<&'a str> {
    let mut found = None;
    for line in lines(file) {
        let mut words = words(line);
        if words.next() == Some(key.as_bytes()) {
            found = words.next().or(found);
        }
    }
    core::str::from_utf8(found?).ok()
}

/// Reads a number as login.defs writes it: decimal, `0` octal or `0x` hexadecimal.
pub fn login_defs_number(file: &[u8], key: &str) -> Option<u32> {
    let text = login_defs(file, key)?;
    match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Reads a value of a `KEY=VALUE` file such as /etc/default/useradd; the last one counts.
pub fn assignment<'a>(file: &'a [u8], key: &str) -> Option<&'a str> {
    let mut found = None;
    for line in lines(file) {
        if let Some([b'=', value @ ..]) = line.strip_prefix(key.as_bytes()) {
            found = Some(value);
        }
    }
    let value = core::str::from_utf8(found?).ok()?;
    Some(value.trim_ascii().trim_matches(['"', '\'']))
}

/// Goes through the lines, without their line breaks.
pub fn lines(file: &[u8]) -> Lines<'_> {
    Lines(file)
}

/// The lines that are left of a file.
pub struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    // Out of line, as for the words: it would be in twenty places.
    #[inline(never)]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        Some(cut(&mut self.0, |byte| *byte == b'\n'))
    }
}

/// Goes through the words of a line, which white space separates.
pub fn words(line: &[u8]) -> Words<'_> {
    Words(line)
}

/// The words that are left of a line.
pub struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline(never)]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.0 = self.0.trim_ascii_start();
        if self.0.is_empty() {
            return None;
        }
        Some(cut(&mut self.0, u8::is_ascii_whitespace))
    }
}

/// Takes from `rest` what is before the first byte that `ends` it, and that byte.
fn cut<'a>(rest: &mut &'a [u8], ends: fn(&u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(ends).unwrap_or(rest.len());
    let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    *rest = after.get(1..).unwrap_or_default();
    piece
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Makes room once: a growing vector would leave unwiped copies of shadow behind.
fn with_room(file: &[u8], more: usize) -> File {
    // Line breaks and colons of one line that has fewer columns than it should.
    const SLACK: usize = 16;
    Zeroizing::new(Vec::with_capacity(
        file.len().saturating_add(more).saturating_add(SLACK),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::string::String;

    const PASSWD: &str = include_str!("../../tests/data/roots/debian/etc/passwd");
    const GROUP: &str = include_str!("../../tests/data/roots/debian/etc/group");

    fn text(file: &File) -> &str {
        core::str::from_utf8(file).unwrap()
    }

    #[test]
    fn appended_line_is_the_last_and_nothing_else_changes() {
        let line = "ops:x:1000:1000::/home/ops:/bin/bash";
        let file = append(PASSWD.as_bytes(), line);
        assert_eq!(text(&file), std::format!("{PASSWD}{line}\n"));
    }

    #[test]
    fn append_completes_a_last_line_without_a_line_break() {
        assert_eq!(
            text(&append(b"root:x:0:0::/root:/bin/sh", "ops:x")),
            "root:x:0:0::/root:/bin/sh\nops:x\n"
        );
        assert_eq!(text(&append(b"", "ops:x")), "ops:x\n");
    }

    #[test]
    fn append_goes_before_the_nis_markers() {
        let file = append(b"root:x:0:0::/:/bin/sh\n+@admins::::::\n+::::::\n", "ops:x");
        assert_eq!(
            text(&file),
            "root:x:0:0::/:/bin/sh\nops:x\n+@admins::::::\n+::::::\n"
        );
    }

    #[test]
    fn groups_are_found_by_member_and_by_id() {
        let file = b"own:x:7:\nx:x:8:a,me ,b\nno:x:9:men\n#me\nme:x\n\xff:x:7:me\nlast:x:07:";
        assert_eq!(groups_of(file, "me", 7), ["own", "x", "last"]);
        assert!(groups_of(b"", "me", 7).is_empty());
    }

    #[test]
    fn bad_lines_survive_every_edit() {
        let bad = b"# comment\n\nroot:x:0:0::/:/bin/sh\nbroken\n:::\n\xff\xfe:x\nops:x:1:2:::\r\n";
        let file = append(bad, "new:x");
        assert_eq!(file.strip_suffix(b"new:x\n"), Some(&bad[..]));
        let file = replace(bad, "root", 1, b"!");
        assert_eq!(
            &file[..],
            &b"# comment\n\nroot:!:0:0::/:/bin/sh\nbroken\n:::\n\xff\xfe:x\nops:x:1:2:::\r\n"[..]
        );
    }

    #[test]
    fn replace_changes_one_column_of_the_first_such_line() {
        let file = b"a:1:2\nb:1:2\na:1:2";
        assert_eq!(text(&replace(file, "a", 1, b"x")), "a:x:2\nb:1:2\na:1:2");
        assert_eq!(text(&replace(file, "b", 4, b"x")), "a:1:2\nb:1:2::x\na:1:2");
        assert_eq!(text(&replace(file, "c", 1, b"x")), "a:1:2\nb:1:2\na:1:2");
    }

    #[test]
    fn without_a_name_every_other_byte_stays() {
        let file = b"a:1\r\nb:2\n\nab:3\nb:4\n+b:x\nb";
        assert_eq!(text(&without(file, "b")), "a:1\r\n\nab:3\n+b:x\n");
        assert_eq!(&*without(file, "c"), file);
        assert_eq!(text(&without(b"a:1\nb:2", "a")), "b:2");
    }

    #[test]
    fn names_are_compared_whole() {
        assert!(find(b"opsadmin:x\n", "ops").is_none());
        assert!(find(b"ops:x\n", "opsadmin").is_none());
        assert!(find(b"ops\n", "ops").is_some());
    }

    #[test]
    fn member_is_added_once() {
        let file = add_member(GROUP.as_bytes(), "sudo", "ops").unwrap();
        assert_eq!(
            text(&file),
            GROUP.replace("sudo:x:27:\n", "sudo:x:27:ops\n")
        );
        assert!(add_member(&file, "sudo", "ops").is_none());
        let file = add_member(&file, "sudo", "op").unwrap();
        assert!(text(&file).contains("\nsudo:x:27:ops,op\n"));
        assert!(add_member(GROUP.as_bytes(), "wheel", "ops").is_none());
    }

    #[test]
    fn free_id_is_the_wish_or_the_first_gap() {
        let passwd = b"a:x:1000:1\nb:x:1002:1\nbad:x:1001x:1\nc:x:4294967295:1\n";
        assert_eq!(free_id(&[passwd], 1000..=1003, None), Some(1001));
        assert_eq!(free_id(&[passwd], 1000..=1003, Some(1003)), Some(1003));
        assert_eq!(free_id(&[passwd], 1000..=1003, Some(1002)), Some(1001));
        assert_eq!(free_id(&[passwd], 1000..=1003, Some(7)), Some(1001));
        assert_eq!(free_id(&[passwd, b"g:x:1001:\n"], 1000..=1002, None), None);
        let (low, high) = (5, 4);
        assert_eq!(free_id(&[passwd], low..=high, None), None);
    }

    #[test]
    fn free_stretch_touches_no_other() {
        let range = 100_000..=600_100_000;
        assert_eq!(free_stretch(b"", range.clone(), 65_536), Some(100_000));
        let file = b"b:165536:65536\na:100000:65536\nbad:1\n";
        assert_eq!(free_stretch(file, range.clone(), 65_536), Some(231_072));
        assert_eq!(
            free_stretch(b"a:165536:65536\n", range, 65_536),
            Some(100_000)
        );
        assert_eq!(
            free_stretch(b"a:100000:4294967295\n", 100_000..=200_000, 65_536),
            None
        );
        assert_eq!(free_stretch(b"", 100_000..=165_534, 65_536), None);
    }

    #[test]
    fn user_with_a_damaged_line_is_none() {
        assert_eq!(
            user(b"ops:x:1000:1000::/home/ops:/bin/sh\n", "ops"),
            Some(User {
                uid: 1000,
                gid: 1000,
                home: "/home/ops"
            })
        );
        for line in [
            "ops",
            "ops:x:1000",
            "ops:x:-1:0::/:/",
            "ops:x:4294967296:0::/:/",
            "ops:x:::::",
        ] {
            assert_eq!(user(line.as_bytes(), "ops"), None, "{line}");
        }
    }

    #[test]
    fn login_defs_is_read_as_the_shadow_tools_read_it() {
        let file =
            b"# UID_MIN 5\nUID_MIN\t\t 1000\nUMASK 022\nUMASK 027\nHEX 0x1F\nEMPTY\nZERO 0\n";
        assert_eq!(login_defs_number(file, "UID_MIN"), Some(1000));
        assert_eq!(login_defs_number(file, "UMASK"), Some(0o027));
        assert_eq!(login_defs_number(file, "HEX"), Some(31));
        assert_eq!(login_defs_number(file, "ZERO"), Some(0));
        assert_eq!(login_defs_number(file, "EMPTY"), None);
        assert_eq!(login_defs(file, "UID"), None);
    }

    #[test]
    fn assignment_is_read_without_its_quotes() {
        let file = b"#SHELL=/bin/no\nSHELL=\"/bin/zsh\"\nHOME=/srv\n";
        assert_eq!(assignment(file, "SHELL"), Some("/bin/zsh"));
        assert_eq!(assignment(file, "HOME"), Some("/srv"));
        assert_eq!(assignment(file, "HO"), None);
    }

    #[test]
    fn mutated_files_never_panic_and_lose_no_byte() {
        let mut random = Random::new();
        for _ in 0..4_000 {
            let file = random.damage(PASSWD.as_bytes());
            let grown = append(&file, "ops:x:1000");
            assert!(grown.len() >= file.len() + 11);
            let kept: usize = lines(&grown)
                .filter(|line| *line != b"ops:x:1000")
                .map(<[u8]>::len)
                .sum();
            assert_eq!(kept, lines(&file).map(<[u8]>::len).sum::<usize>());
            assert_eq!(
                lines(&replace(&file, "sync", 1, b"y")).count(),
                lines(&file).count()
            );
            add_member(&file, "sync", "ops");
            free_id(&[&file], 1..=100, None);
            free_stretch(&file, 1..=100_000, 7);
            user(&file, "sync");
            login_defs_number(&file, &String::from_utf8_lossy(&file[..4.min(file.len())]));
        }
    }
}
