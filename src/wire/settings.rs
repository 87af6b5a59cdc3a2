//! The two files of settings: our own `preroot.conf` and waagent's `waagent.conf`.
//!
//! Not a judge of names and values: that is the command's. Ours has `name = value`, comments from `#` to
//! the end of the line, and quotes for whoever likes them. waagent's is read by the rules of its own
//! `common/conf.py`, as people know what their file does there.

use super::accounts;

/// Longest file of settings that is read.
pub const FILE_MAX: usize = 64 * 1024;

/// Gives each setting of a `preroot.conf` with the number of its line; a name alone has no value.
///
/// A line that is not UTF-8 has the name `?`, which nothing has.
pub fn each<'a>(file: &'a [u8], take: &mut dyn FnMut(usize, &'a str, Option<&'a str>)) {
    for (number, line) in (1..).zip(accounts::lines(file)) {
        let line = core::str::from_utf8(line).unwrap_or("?");
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.trim().trim_matches('"'))),
            None => (line, None),
        };
        let name = name.trim();
        if value.is_some() || !name.is_empty() {
            take(number, name, value);
        }
    }
}

/// Finds an option of a `waagent.conf`; the last one counts, and `None` is none.
pub fn waagent<'a>(file: &'a [u8], option: &str) -> Option<&'a str> {
    let mut found = None;
    for line in accounts::lines(file) {
        if let Ok(line) = core::str::from_utf8(line)
            && !line.starts_with('#')
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == option
        {
            let value = value.split_once('#').map_or(value, |(value, _)| value);
            found = Some(value.trim_matches(['"', ' ']).trim());
        }
    }
    found.filter(|value| *value != "None")
}

/// Tells whether a switch of a `waagent.conf` is set to `word`, which is `y` or `n`.
pub fn waagent_says(file: &[u8], option: &str, word: &str) -> bool {
    // Any other word, such as `yes`, leaves waagent with its default.
    waagent(file, option).is_some_and(|value| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::vec::Vec;

    fn settings(file: &str) -> Vec<(usize, &str, Option<&str>)> {
        let mut found = Vec::new();
        each(file.as_bytes(), &mut |line, name, value| {
            found.push((line, name, value));
        });
        found
    }

    #[test]
    fn setting_is_a_name_and_a_value_in_any_spacing() {
        for line in [
            "sudo = never",
            "sudo=never",
            "\t sudo =never \r",
            "sudo = \"never\"",
            "sudo = never # because",
        ] {
            assert_eq!(settings(line), [(1, "sudo", Some("never"))], "{line}");
        }
    }

    #[test]
    fn lines_are_counted_and_empty_ones_and_comments_say_nothing() {
        let file = "# a = b\n\n   \nnic=eth0\n  # c\ndry-run\n= x\nnic =\n";
        assert_eq!(
            settings(file),
            [
                (4, "nic", Some("eth0")),
                (6, "dry-run", None),
                (7, "", Some("x")),
                (8, "nic", Some(""))
            ]
        );
        let mut count = 0;
        each(b"\xff=1\nnic=eth0", &mut |_, name, _| {
            assert!(["?", "nic"].contains(&name));
            count += 1;
        });
        assert_eq!(count, 2);
    }

    /// The answers are those of waagent 2.7.3's own `ConfigurationProvider`, asked with Python.
    #[test]
    fn options_of_waagent_are_what_waagent_reads() {
        let file = include_bytes!("../../tests/data/settings/waagent.conf");
        let answers = include_str!("../../tests/data/settings/waagent.expect");
        assert!(answers.lines().count() > 20);
        for answer in answers.lines() {
            let mut parts = answer.split('\t');
            let option = parts.next().unwrap();
            let value = match parts.next().unwrap() {
                "unset" => None,
                value => Some(value.strip_prefix('=').unwrap()),
            };
            assert_eq!(waagent(file, option), value, "{option}");
            let switch = parts.next().unwrap();
            assert_eq!(waagent_says(file, option, "y"), switch == "y", "{option}");
            assert_eq!(waagent_says(file, option, "n"), switch == "n", "{option}");
        }
    }

    #[test]
    fn mutated_files_never_panic() {
        let good = include_bytes!("../../tests/data/settings/waagent.conf");
        let mut random = Random::new();
        for _ in 0..4_000 {
            let file = random.damage(good);
            let mut lines = 0;
            each(&file, &mut |line, _, _| {
                assert!(line > lines);
                lines = line;
            });
            waagent(&file, "Plain");
        }
    }
}
