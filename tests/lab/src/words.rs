//! The words of the real init on the console: its lines that begin with `@@`.
//!
//! `@@ NAME=VALUE` is a fact, `@@ NAME: LINE` a line of something longer, and everything stands
//! between `@@ begin` and `@@ end` (`data/init.sh` writes them). The kernel and the initramfs speak
//! on the same console and are passed over.

/// What the real init said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Whether it started to speak.
    pub began: bool,
    /// Whether it came to its end.
    pub ended: bool,
    facts: Vec<(String, String)>,
    lines: Vec<(String, String)>,
}

impl Words {
    /// Takes its words from a console.
    pub fn parse(console: &str) -> Self {
        let mut words = Self::default();
        // A line of the kernel may have been cut by ours, so the mark need not be at the start.
        for line in console
            .lines()
            .filter_map(|line| Some(line.split_once("@@ ")?.1))
        {
            match line.trim_end() {
                "begin" => words.began = true,
                "end" => words.ended = true,
                _ if !words.began => {}
                line => match line.split_once(['=', ':']) {
                    Some((name, value)) if line[name.len()..].starts_with('=') => {
                        words.facts.push((name.to_owned(), value.to_owned()));
                    }
                    Some((name, line)) => {
                        let line = line.strip_prefix(' ').unwrap_or(line);
                        words.lines.push((name.to_owned(), line.to_owned()));
                    }
                    None => {}
                },
            }
        }
        words
    }

    /// Gives the last fact of that name.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts
            .iter()
            .rfind(|fact| fact.0 == name)
            .map(|fact| fact.1.as_str())
    }

    /// Gives every fact of that name.
    pub fn facts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.facts
            .iter()
            .filter(move |fact| fact.0 == name)
            .map(|fact| fact.1.as_str())
    }

    /// Gives the lines of the longer thing of that name.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.lines
            .iter()
            .filter(move |line| line.0 == name)
            .map(|line| line.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_lines_are_told_apart_by_what_comes_first() {
        let words =
            Words::parse("@@ begin\n@@ key=256 SHA256:x= a: b\n@@ mounts: a b c=d\n@@ end\n");
        assert_eq!(words.fact("key"), Some("256 SHA256:x= a: b"));
        assert_eq!(words.lines("mounts").collect::<Vec<_>>(), ["a b c=d"]);
        assert!(words.began && words.ended);
    }

    #[test]
    fn nothing_counts_before_the_beginning() {
        let words = Words::parse("@@ hostname=early\n[ 1.0] noise\n@@ begin\n@@ hostname=late\n");
        assert_eq!(words.facts("hostname").collect::<Vec<_>>(), ["late"]);
        assert!(!words.ended);
    }

    #[test]
    fn line_of_the_kernel_that_ours_cut_is_no_loss() {
        let words = Words::parse("[ 5.1] usb@@ begin\nrandom: @@ hostname=x\n");
        assert_eq!(words.fact("hostname"), Some("x"));
    }

    #[test]
    fn empty_value_is_a_value() {
        assert_eq!(
            Words::parse("@@ begin\n@@ hostname=\n").fact("hostname"),
            Some("")
        );
    }
}
