//! Scripts: how the first, second, ... request of a kind is answered.

use std::time::Duration;

use super::text::time;

/// How one request is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own in the text form"
)]
pub struct Play {
    /// A status that is sent instead of the honest answer.
    pub status: Option<u16>,
    /// Time before the first byte.
    pub delay: Duration,
    /// Time between single bytes.
    pub drip: Option<Duration>,
    /// Sends the body in chunks.
    pub chunked: bool,
    /// Puts a UTF-8 byte order mark before the body.
    pub bom: bool,
    /// Leaves Content-Length out and ends the body by closing.
    pub unsized_body: bool,
    /// Closes after the answer.
    pub close: bool,
    /// Closes in the middle of the answer.
    pub cut: bool,
    /// Resets the connection instead of an answer.
    pub reset: bool,
    /// Closes the connection instead of an answer.
    pub hangup: bool,
    /// Does not answer.
    pub never: bool,
    /// Sends something that is not HTTP.
    pub garbage: bool,
    /// Leaves the role instances out of the goal state.
    pub no_roles: bool,
    /// Leaves the certificates out of the goal state.
    pub no_certificates: bool,
    /// Adds much that nobody needs to the goal state, or to the metadata.
    pub noise: bool,
    /// Sends the first half of the document as if it were the whole.
    pub truncated: bool,
    /// Sends a page for people in place of the document.
    pub html: bool,
    /// Sends an empty document.
    pub empty: bool,
    /// Writes the letters of JSON strings by number.
    pub escaped: bool,
    /// Writes truth as JSON does, not as a string.
    pub booleans: bool,
}

impl Play {
    /// Reads words joined by `+`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut play = Self::default();
        for word in text.split('+').map(str::trim) {
            match word {
                "ok" | "200" | "201" | "202" => play.status = None,
                "chunked" => play.chunked = true,
                "bom" => play.bom = true,
                "unsized" => play.unsized_body = true,
                "close" => play.close = true,
                "cut" => play.cut = true,
                "reset" => play.reset = true,
                "hangup" => play.hangup = true,
                "never" => play.never = true,
                "garbage" => play.garbage = true,
                "noroles" => play.no_roles = true,
                "nocerts" => play.no_certificates = true,
                "noise" => play.noise = true,
                "truncated" => play.truncated = true,
                "html" => play.html = true,
                "empty" => play.empty = true,
                "escaped" => play.escaped = true,
                "booleans" => play.booleans = true,
                _ => match word.split_once(':') {
                    Some(("delay", value)) => play.delay = time(value)?,
                    Some(("drip", value)) => play.drip = Some(time(value)?),
                    _ => match word.parse() {
                        Ok(status @ 100..=599) => play.status = Some(status),
                        _ => return Err(format!("\"{word}\" is no answer")),
                    },
                },
            }
        }
        Ok(play)
    }
}

/// How the requests of one kind are answered, in order; the last answer stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script(pub Vec<Play>);

impl Script {
    /// Reads answers separated by commas.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut plays = Vec::new();
        for item in text.split(',').map(str::trim) {
            let (answer, count) = match item.split_once('*') {
                None => (item, 1),
                Some((answer, count)) => match count.trim().parse() {
                    Ok(count @ 1..=1000) => (answer, count),
                    _ => return Err(format!("\"{count}\" is no count from 1 to 1000")),
                },
            };
            plays.extend(std::iter::repeat_n(Play::parse(answer.trim())?, count));
        }
        Ok(Self(plays))
    }

    /// How request number `number`, counted from 0, is answered.
    pub fn play(&self, number: usize) -> Play {
        self.0
            .get(number)
            .or(self.0.last())
            .cloned()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_the_last_one_stays() {
        let script = Script::parse("503*2, reset, ok+chunked+delay:3s").unwrap();
        let statuses: Vec<_> = (0..5).map(|n| script.play(n).status).collect();
        assert_eq!(statuses, [Some(503), Some(503), None, None, None]);
        assert!(script.play(2).reset && !script.play(3).reset);
        assert!(script.play(99).chunked);
        assert_eq!(script.play(99).delay, Duration::from_secs(3));
        assert_eq!(Script::default().play(0), Play::default());
    }

    #[test]
    fn unknown_words_and_counts_are_refused() {
        for text in ["okay", "503*0", "503*x", "delay:3", "99", "ok,,ok", ""] {
            assert!(Script::parse(text).is_err(), "{text}");
        }
    }
}
