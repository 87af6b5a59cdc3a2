//! The WireServer's goal state document: who the platform thinks this machine is.
//!
//! Only what a health report must echo is read. Certificates and extensions are other agents' work.

use alloc::string::String;
use core::fmt;

use roxmltree::Node;

use super::xml;

/// Where the first role instance is named.
const INSTANCE: [&str; 4] = [
    "Container",
    "RoleInstanceList",
    "RoleInstance",
    "InstanceId",
];

/// What a health report echoes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoalState {
    /// The number of the goal state; a report with an old one is answered 410.
    pub incarnation: String,
    /// The container, which changes when the machine is moved.
    pub container: String,
    /// The first role instance.
    pub instance: String,
}

/// What is wrong with a goal state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoalStateFault {
    /// It is not XML.
    NotXml,
    /// An element is missing, empty or too long.
    Missing(&'static str),
}

impl fmt::Display for GoalStateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GoalStateFault::NotXml => f.write_str("the goal state is not XML"),
            GoalStateFault::Missing(element) => write!(f, "the goal state lacks {element}"),
        }
    }
}

/// Reads a goal state.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
pub fn parse(document: &[u8]) -> Result<GoalState, GoalStateFault> {
    let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
    let document = core::str::from_utf8(document).map_err(|_| GoalStateFault::NotXml)?;
    let tree = xml::parse(document).map_err(|_| GoalStateFault::NotXml)?;
    let root = tree.root_element();
    if root.tag_name().name() != "GoalState" {
        return Err(GoalStateFault::Missing("GoalState"));
    }
    Ok(GoalState {
        incarnation: text(root, &["Incarnation"], 32)?,
        container: text(root, &["Container", "ContainerId"], 128)?,
        instance: text(root, &INSTANCE, 512)?,
    })
}

/// Returns the text, of at most `most` bytes, of the first element at `path`, whatever its namespace.
fn text(root: Node<'_, '_>, path: &[&'static str], most: usize) -> Result<String, GoalStateFault> {
    let missing = GoalStateFault::Missing(path.last().unwrap_or(&""));
    let mut node = root;
    for step in path {
        node = node
            .children()
            .find(|child| child.is_element() && child.tag_name().name() == *step)
            .ok_or(missing)?;
    }
    let text = node.text().unwrap_or("").trim();
    if text.is_empty() || text.len() > most {
        return Err(missing);
    }
    Ok(String::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    /// The structure of the goal state among waagent's test data, with invented values.
    const GOOD: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>2010-12-15</Version>
  <Incarnation>42</Incarnation>
  <Machine><ExpectedState>Started</ExpectedState><LBProbePorts><Port>16001</Port></LBProbePorts></Machine>
  <Container>
    <ContainerId>3f0c9a1e-7b52-4d6a-9c11-0e5d2b8a4f63</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>9e2d7c40-51ab-4f3e-8d77-6a1b2c3d4e5f._vm-a&amp;b</InstanceId>
        <State>Started</State>
      </RoleInstance>
      <RoleInstance><InstanceId>second</InstanceId></RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>"#;

    #[test]
    fn the_three_echoed_values_are_found() {
        let goal = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(goal.incarnation, "42");
        assert_eq!(goal.container, "3f0c9a1e-7b52-4d6a-9c11-0e5d2b8a4f63");
        assert_eq!(
            goal.instance,
            "9e2d7c40-51ab-4f3e-8d77-6a1b2c3d4e5f._vm-a&b"
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_obstacle() {
        let with_bom = String::from("\u{feff}") + GOOD;
        assert_eq!(parse(with_bom.as_bytes()), parse(GOOD.as_bytes()));
    }

    #[test]
    fn a_goal_state_without_roles_says_what_is_missing() {
        let start = GOOD.find("<RoleInstanceList>").unwrap();
        let end = GOOD.find("</RoleInstanceList>").unwrap() + "</RoleInstanceList>".len();
        let bare = String::from(&GOOD[..start]) + &GOOD[end..];
        let fault = parse(bare.as_bytes()).unwrap_err();
        assert_eq!(fault, GoalStateFault::Missing("InstanceId"));
        assert_eq!(fault.to_string(), "the goal state lacks InstanceId");
    }

    #[test]
    fn half_a_document_is_not_xml() {
        assert_eq!(parse(&GOOD.as_bytes()[..300]), Err(GoalStateFault::NotXml));
        assert_eq!(parse(b"\xff\xfe<"), Err(GoalStateFault::NotXml));
        assert_eq!(
            parse(b"<Versions/>"),
            Err(GoalStateFault::Missing("GoalState"))
        );
    }

    #[test]
    fn a_value_beyond_all_measure_is_refused() {
        let long = GOOD.replace("42", &"9".repeat(33));
        assert_eq!(
            parse(long.as_bytes()),
            Err(GoalStateFault::Missing("Incarnation"))
        );
    }
}
