//! JSON: a reader that takes one value after the other from a document, and text for writing one.
//!
//! Neither a tree nor a schema: the caller asks for what should come next and skips the rest, so
//! members may come in any order and unknown ones cost nothing. Nothing is copied, and a document of
//! any content is read in one pass. Follows RFC 8259.

use core::fmt;

/// Most levels of arrays and objects within a value that is skipped.
const MAX_DEPTH: u32 = 64;

/// Says what is wrong with a document, and at which of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// It is not UTF-8.
    Encoding(u32),
    /// It is not JSON.
    Syntax(u32),
    /// It is JSON, with another kind of value than can be used here.
    Kind(u32),
    /// It has arrays and objects within each other more deeply than anything sensible.
    Depth(u32),
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = match self {
            JsonFault::Encoding(at) => ("it is not UTF-8", at),
            JsonFault::Syntax(at) => ("it is not JSON", at),
            JsonFault::Kind(at) => ("it has an unexpected value", at),
            JsonFault::Depth(at) => ("it is nested too deeply", at),
        };
        write!(f, "{what} at byte {at}")
    }
}

/// The kinds of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Members with names.
    Object,
    /// Elements in a row.
    Array,
    /// Text in quotes.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
}

/// A place in a document.
///
/// After [`Reader::object`], each `Some` of [`Reader::member`] is to be followed by reading or skipping
/// that member's value; likewise with [`Reader::array`] and [`Reader::element`].
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    document: &'a str,
    at: usize,
    /// The innermost array or object has just begun: no comma is due.
    first: bool,
}

impl<'a> Reader<'a> {
    /// Begins to read a document.
    pub fn new(document: &'a [u8]) -> Result<Self, JsonFault> {
        let document = core::str::from_utf8(document)
            .map_err(|fault| JsonFault::Encoding(offset(fault.valid_up_to())))?;
        Ok(Self {
            document,
            at: 0,
            first: false,
        })
    }

    /// Tells what kind of value comes next.
    pub fn kind(&mut self) -> Result<Kind, JsonFault> {
        Ok(match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::Text,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            _ => return Err(self.syntax()),
        })
    }

    /// Enters an object.
    pub fn object(&mut self) -> Result<(), JsonFault> {
        self.enter(Kind::Object)
    }

    /// Returns the name of the object's next member; nothing at its end, which is then behind us.
    pub fn member(&mut self) -> Result<Option<Text<'a>>, JsonFault> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let name = self.text()?;
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.step();
        Ok(Some(name))
    }

    /// Enters an array.
    pub fn array(&mut self) -> Result<(), JsonFault> {
        self.enter(Kind::Array)
    }

    /// Tells whether the array has another element; if not, its end is behind us.
    pub fn element(&mut self) -> Result<bool, JsonFault> {
        self.more(b']')
    }

    /// Reads text.
    pub fn text(&mut self) -> Result<Text<'a>, JsonFault> {
        self.expect(Kind::Text)?;
        self.step();
        let start = self.at;
        loop {
            match self.next_byte() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..=31) | None => return Err(self.syntax()),
                Some(_) => self.step(),
            }
        }
        let raw = self.document.get(start..self.at).unwrap_or_default();
        self.step();
        Ok(Text { raw })
    }

    /// Reads a number that is neither negative nor broken.
    pub fn integer(&mut self) -> Result<u64, JsonFault> {
        self.expect(Kind::Number)?;
        let fault = JsonFault::Kind(offset(self.at));
        self.number()?.parse().map_err(|_| fault)
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool, JsonFault> {
        self.expect(Kind::Boolean)?;
        let value = self.peek() == Some(b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// Skips a value, whatever it is.
    pub fn skip(&mut self) -> Result<(), JsonFault> {
        // What we are in, a bit a level, the innermost lowest: one for an object.
        let mut levels = 0_u64;
        let mut depth = 0_u32;
        loop {
            match self.kind()? {
                kind @ (Kind::Object | Kind::Array) => {
                    if depth == MAX_DEPTH {
                        return Err(JsonFault::Depth(offset(self.at)));
                    }
                    depth = depth.saturating_add(1);
                    levels = levels << 1 | u64::from(kind == Kind::Object);
                    self.enter(kind)?;
                }
                Kind::Text => _ = self.text()?,
                Kind::Number => _ = self.number()?,
                Kind::Boolean => _ = self.boolean()?,
                Kind::Null => self.word("null")?,
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let more = if levels & 1 == 1 {
                    self.member()?.is_some()
                } else {
                    self.element()?
                };
                if more {
                    break;
                }
                depth = depth.saturating_sub(1);
                levels >>= 1;
            }
        }
    }

    /// Sees to it that nothing comes after the last value.
    pub fn end(&mut self) -> Result<(), JsonFault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax()),
        }
    }

    fn expect(&mut self, kind: Kind) -> Result<(), JsonFault> {
        if self.kind()? == kind {
            Ok(())
        } else {
            Err(JsonFault::Kind(offset(self.at)))
        }
    }

    fn enter(&mut self, kind: Kind) -> Result<(), JsonFault> {
        self.expect(kind)?;
        self.step();
        self.first = true;
        Ok(())
    }

    /// Goes over the comma to the next member or element, or over the end.
    fn more(&mut self, end: u8) -> Result<bool, JsonFault> {
        let first = core::mem::take(&mut self.first);
        match self.peek() {
            Some(byte) if byte == end => {
                self.step();
                Ok(false)
            }
            Some(b',') if !first => {
                self.step();
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.syntax()),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonFault> {
        let rest = self.document.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.syntax());
        }
        self.at = self.at.saturating_add(word.len());
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str, JsonFault> {
        let start = self.at;
        self.one_of(b"-");
        if !self.one_of(b"0") {
            self.digits()?;
        }
        if self.one_of(b".") {
            self.digits()?;
        }
        if self.one_of(b"eE") {
            self.one_of(b"+-");
            self.digits()?;
        }
        Ok(self.document.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let mut some = false;
        while self.one_of(b"0123456789") {
            some = true;
        }
        if some { Ok(()) } else { Err(self.syntax()) }
    }

    /// Goes over one byte if it is among these.
    fn one_of(&mut self, bytes: &[u8]) -> bool {
        let is = self.next_byte().is_some_and(|byte| bytes.contains(&byte));
        if is {
            self.step();
        }
        is
    }

    /// Goes over one escape sequence.
    fn escape(&mut self) -> Result<(), JsonFault> {
        let rest = self.document.get(self.at..).unwrap_or_default();
        let Some((_, length)) = unescape(rest) else {
            return Err(self.syntax());
        };
        self.at = self.at.saturating_add(length);
        Ok(())
    }

    /// Goes to the next byte that is not blank and shows it.
    fn peek(&mut self) -> Option<u8> {
        while self.one_of(b" \t\r\n") {}
        self.next_byte()
    }

    fn next_byte(&self) -> Option<u8> {
        self.document.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn syntax(&self) -> JsonFault {
        JsonFault::Syntax(offset(self.at))
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Text of a document; shown and compared as what it means, not as it is written there.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// What is between the quotes: every escape sequence in it is whole.
    raw: &'a str,
}

impl<'a> Text<'a> {
    /// Returns its characters.
    pub fn chars(self) -> impl Iterator<Item = char> + use<'a> {
        let mut rest = self.raw;
        core::iter::from_fn(move || {
            let (character, length) = match rest.chars().next()? {
                '\\' => unescape(rest)?,
                plain => (plain, plain.len_utf8()),
            };
            rest = rest.get(length..)?;
            Some(character)
        })
    }

    /// Tells whether this is what it means.
    pub fn is(self, meaning: &str) -> bool {
        self.chars().eq(meaning.chars())
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.chars()
            .try_for_each(|character| f.write_char(character))
    }
}

/// Reads the escape sequence at the start of `text`: the character, and how many bytes stand for it.
///
/// Half a surrogate pair becomes U+FFFD: some writers cut text in the middle of one, and a document
/// is worth more than one of its characters.
fn unescape(text: &str) -> Option<(char, usize)> {
    let letter = *text.as_bytes().get(1)?;
    Some(match letter {
        b'"' | b'\\' | b'/' => (char::from(letter), 2),
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => {
            let low = text.get(6..).and_then(code_unit);
            let units = [Some(code_unit(text)?), low].into_iter().flatten();
            match char::decode_utf16(units).next()? {
                Ok(pair @ '\u{10000}'..) => (pair, 12),
                Ok(single) => (single, 6),
                Err(_) => (char::REPLACEMENT_CHARACTER, 6),
            }
        }
        _ => return None,
    })
}

/// Reads `\uXXXX` at the start of `text`.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// Writes one character as it stands in JSON text.
pub fn write_escaped(out: &mut dyn fmt::Write, character: char) -> fmt::Result {
    match character {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\n' => out.write_str("\\n"),
        '\t' => out.write_str("\\t"),
        c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// Text with the quotes and escapes that JSON wants, when it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        self.0
            .chars()
            .try_for_each(|character| write_escaped(f, character))?;
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::format;
    use std::string::{String, ToString as _};
    use std::vec::Vec;

    /// What the metadata service might say, with everything that makes a document hard.
    const DOCUMENT: &str = r#"{
        "compute" : {"name":"vm-\u0064emo","customData":"","tags":[],"extendedLocation":{},
            "osProfile": { "adminUsername": "op", "disablePasswordAuthentication": "true" },
            "publicKeys": [ {"keyData":"ssh-ed25519 AAAA\r\nBBBB demo\n","path":"\/home"},
                            {"keyData":"\ud83d\ude80\u00e9\"\\\b\f\t","path":"é🚀"} ] },
        "extended":{"compute":{"hasCustomData":true,"ppsType":null,"n":-12.50e+3}},
        "count" : 4294967296
    }"#;

    #[derive(Default)]
    struct Found {
        name: String,
        keys: Vec<String>,
        custom_data: Option<bool>,
        count: u64,
    }

    /// Walks through the document as a reader of metadata would.
    fn walk(document: &[u8]) -> Result<Found, JsonFault> {
        let mut found = Found::default();
        let mut json = Reader::new(document)?;
        json.object()?;
        while let Some(name) = json.member()? {
            if name.is("compute") {
                json.object()?;
                while let Some(name) = json.member()? {
                    if name.is("name") {
                        found.name = json.text()?.to_string();
                    } else if name.is("publicKeys") {
                        json.array()?;
                        while json.element()? {
                            json.object()?;
                            while let Some(name) = json.member()? {
                                if name.is("keyData") {
                                    found.keys.push(json.text()?.to_string());
                                } else {
                                    json.skip()?;
                                }
                            }
                        }
                    } else {
                        json.skip()?;
                    }
                }
            } else if name.is("extended") {
                json.object()?;
                while json.member()?.is_some() {
                    json.object()?;
                    while let Some(name) = json.member()? {
                        if name.is("hasCustomData") {
                            found.custom_data = Some(json.boolean()?);
                        } else {
                            json.skip()?;
                        }
                    }
                }
            } else if name.is("count") {
                found.count = json.integer()?;
            } else {
                json.skip()?;
            }
        }
        json.end()?;
        Ok(found)
    }

    fn skip(document: &str) -> Result<(), JsonFault> {
        let mut json = Reader::new(document.as_bytes())?;
        json.skip()?;
        json.end()
    }

    #[test]
    fn members_are_found_in_a_real_document() {
        let found = walk(DOCUMENT.as_bytes()).unwrap();
        assert_eq!(found.name, "vm-demo");
        assert_eq!(
            found.keys,
            [
                "ssh-ed25519 AAAA\r\nBBBB demo\n",
                "\u{1f680}\u{e9}\"\\\u{8}\u{c}\t"
            ]
        );
        assert_eq!(found.custom_data, Some(true));
        assert_eq!(found.count, 1 << 32);
    }

    #[test]
    fn everything_that_is_json_is_skipped() {
        for good in [
            "{}",
            "[]",
            " [ ] ",
            r#"{"a":{},"b":[[],[1]],"":null}"#,
            "[0,-0,10,1.5,-2e9,3E+2,4.0e-1]",
            r#"[true,false,null,""]"#,
            "\"\u{7f}\u{80}\"",
            "\t\r\n7 ",
            DOCUMENT,
        ] {
            assert_eq!(skip(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let structure = r#"  | |{|}|[|]|{]|[}|[1|[1,|[,1]|[1,]|[1 2]|[1}|[]]|{}{}|{"a"|{"a":|{"a":1|{"a":1,|
            {"a":1,}|{,"a":1}|{"a" 1}|{"a"}|{a:1}|{1:1}|{"a":1 "b":2}|{"a"::1}|{"a":,}|1 2|/**/1"#;
        let numbers = "01|-|+1|.5|1.|1.e1|1e|1e+|--1|0x1|1a|1_0|Infinity";
        let words = "tru|truer|True|nul|None|'a'";
        let texts = r#""|"a|"\"|"\x"|"\u12"|"\u123g"|"\u+123"|"\U0041""#;
        let characters = "\"\n\"|\"\0\"|\u{feff}{}|[1]\0|\u{a0}1";
        for list in [structure, numbers, words, texts, characters] {
            for bad in list.split('|') {
                let result = skip(bad);
                assert!(
                    matches!(result, Err(JsonFault::Syntax(_))),
                    "{bad:?} {result:?}"
                );
            }
        }
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        for (written, meant) in [
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ude80\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ud83d\ud83d\ude80""#, "\u{fffd}\u{1f680}"),
        ] {
            let text = Reader::new(written.as_bytes()).unwrap().text().unwrap();
            assert_eq!(text.to_string(), meant, "{written}");
        }
    }

    #[test]
    fn escaped_names_are_the_same_names() {
        let mut json = Reader::new(br#"{"\u0063ount":1,"counts":2,"coun":3}"#).unwrap();
        json.object().unwrap();
        for same in [true, false, false] {
            assert_eq!(json.member().unwrap().unwrap().is("count"), same);
            json.skip().unwrap();
        }
        assert!(json.member().unwrap().is_none());
    }

    #[test]
    fn another_kind_of_value_is_told_from_damage() {
        let mut json = Reader::new(b" -1.5").unwrap();
        assert_eq!(json.kind(), Ok(Kind::Number));
        assert_eq!(json.object(), Err(JsonFault::Kind(1)));
        assert_eq!(json.array(), Err(JsonFault::Kind(1)));
        assert_eq!(json.boolean(), Err(JsonFault::Kind(1)));
        assert!(matches!(json.text(), Err(JsonFault::Kind(1))));
        assert_eq!(json.integer(), Err(JsonFault::Kind(1)));
        let integer = |text: &str| Reader::new(text.as_bytes()).unwrap().integer();
        for large in ["18446744073709551616", "1.0", "1e2", "-0"] {
            assert_eq!(integer(large), Err(JsonFault::Kind(0)), "{large}");
        }
        assert_eq!(integer("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let depth = MAX_DEPTH as usize;
        assert_eq!(skip(&nested(depth)), Ok(()));
        assert_eq!(skip(&nested(depth + 1)), Err(JsonFault::Depth(MAX_DEPTH)));
        assert_eq!(
            skip(&"{\"a\":".repeat(100_000)),
            Err(JsonFault::Depth(5 * MAX_DEPTH))
        );
    }

    #[test]
    fn other_encodings_are_refused() {
        let fault = Reader::new(b"\"\xff\"").err();
        assert_eq!(fault, Some(JsonFault::Encoding(1)));
    }

    #[test]
    fn quoted_text_is_read_back() {
        let text: String = (0..0x300).filter_map(char::from_u32).collect();
        for text in [text.as_str(), "", "\u{1f680}\u{ffff}"] {
            let quoted = Quoted(text).to_string();
            let mut json = Reader::new(quoted.as_bytes()).unwrap();
            assert_eq!(json.text().unwrap().to_string(), text);
            json.end().unwrap();
        }
        assert_eq!(Quoted("a\"\\\n\t\u{1}").to_string(), r#""a\"\\\n\t\u0001""#);
    }

    #[test]
    fn mutated_documents_never_panic() {
        let mut random = Random::new();
        let spice = *br#"{}[]",:\u0-.eE+tfn d"#;
        let (mut read, mut refused) = (0, 0);
        for round in 0..20_000 {
            let mut bytes = DOCUMENT.as_bytes().to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] = random.any() as u8,
                    1 => bytes[at] = spice[random.below(spice.len())],
                    2 => bytes.insert(at, spice[random.below(spice.len())]),
                    _ => _ = bytes.remove(at),
                }
            }
            if round % 8 == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            // Whoever looks at every value finds the same damage as whoever skips them.
            let skipped = core::str::from_utf8(&bytes).map(skip);
            match walk(&bytes) {
                Ok(_) => {
                    assert_eq!(skipped, Ok(Ok(())));
                    read += 1;
                }
                Err(JsonFault::Kind(_)) => read += 1,
                Err(JsonFault::Encoding(_)) => assert!(skipped.is_err()),
                Err(fault) => {
                    assert_eq!(skipped, Ok(Err(fault)));
                    refused += 1;
                }
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} {refused}");
    }
}
