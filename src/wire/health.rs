//! Health reports to the WireServer, in the languages of both of its doors.
//!
//! The first door takes XML that echoes the goal state, the second JSON that needs none. The text
//! of a failure is what the portal shows to the person who waits for the machine.

use core::fmt::{self, Write as _};

use alloc::string::String;

use super::goalstate::GoalState;
use super::json;
use super::vmid::VmId;

/// A report's body, either language.
pub type Body = String;

/// The platform refuses a longer description. It counts after escaping.
const MAX_DESCRIPTION: usize = 4096;

/// What a machine says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health<'a> {
    /// It is provisioned.
    Ready,
    /// It cannot be provisioned, and the platform need not wait any longer.
    Failed {
        /// What the portal shows.
        description: &'a str,
    },
}

/// Writes the report for `/machine?comp=health`; `None` if it does not fit.
pub fn xml(health: Health<'_>, goal: &GoalState) -> Option<Body> {
    let mut body = Body::new();
    write!(
        body,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
         <Health xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\">\
         <GoalStateIncarnation>{}</GoalStateIncarnation>\
         <Container><ContainerId>{}</ContainerId>\
         <RoleInstanceList><Role><InstanceId>{}</InstanceId><Health>",
        Escaped(&goal.incarnation, Language::Xml),
        Escaped(&goal.container, Language::Xml),
        Escaped(&goal.instance, Language::Xml),
    )
    .ok()?;
    match health {
        Health::Ready => body.push_str("<State>Ready</State>"),
        Health::Failed { description } => {
            body.push_str(
                "<State>NotReady</State><Details><SubStatus>ProvisioningFailed</SubStatus>\
                 <Description>",
            );
            push_trimmed(&mut body, description, Language::Xml)?;
            body.push_str("</Description></Details>");
        }
    }
    body.push_str("</Health></Role></RoleInstanceList></Container></Health>");
    Some(body)
}

/// Writes what is published of the machine's host key, for `/machine?comp=roleProperties`.
pub fn properties(fingerprint: &str, goal: &GoalState) -> Option<Body> {
    let mut body = Body::new();
    write!(
        body,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><RoleProperties><Container>\
         <ContainerId>{}</ContainerId><RoleInstances><RoleInstance><Id>{}</Id>\
         <Properties><Property name=\"CertificateThumbprint\" value=\"{}\" /></Properties>\
         </RoleInstance></RoleInstances></Container></RoleProperties>",
        Escaped(&goal.container, Language::Xml),
        Escaped(&goal.instance, Language::Xml),
        Escaped(fingerprint, Language::Xml),
    )
    .ok()?;
    Some(body)
}

/// Writes the report for `/provisioning/health`; `None` if it does not fit.
pub fn json(health: Health<'_>) -> Option<Body> {
    let mut body = Body::new();
    match health {
        Health::Ready => body.push_str("{\"state\":\"Ready\"}"),
        Health::Failed { description } => {
            body.push_str(
                "{\"state\":\"NotReady\",\"details\":{\"subStatus\":\"ProvisioningFailed\",\
                 \"description\":\"",
            );
            push_trimmed(&mut body, description, Language::Json)?;
            body.push_str("\"}}");
        }
    }
    Some(body)
}

/// Where a person reads more about a failure.
const DOCUMENTATION: &str = "https://aka.ms/linuxprovisioningerror";

/// A failure as the support tools of the platform read it: fields between bars.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// What went wrong.
    pub reason: &'a str,
    /// Which machine it is.
    pub vm_id: VmId,
    /// When, as RFC 3339 writes it.
    pub timestamp: &'a str,
    /// The end of the kernel's log, if that may tell more; one line each.
    pub kernel_log: &'a str,
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The separators and quotes of the format must not stand in a field.
        let field = |f: &mut fmt::Formatter<'_>, text: &str| {
            text.chars().try_for_each(|c| match c {
                '\n' => f.write_str("; "),
                '|' | '"' | '\'' => f.write_char(' '),
                c if c.is_control() => f.write_char(' '),
                c => f.write_char(c),
            })
        };
        f.write_str("result=error|reason=")?;
        field(f, self.reason)?;
        write!(
            f,
            "|agent={}/{}|vm_id={}|timestamp={}|documentation_url={DOCUMENTATION}",
            crate::NAME,
            crate::VERSION,
            self.vm_id,
            self.timestamp
        )?;
        if self.kernel_log.is_empty() {
            return Ok(());
        }
        f.write_str("|kernel_log=")?;
        field(f, self.kernel_log)
    }
}

/// Escapes `text`, then stops before the character that would exceed [`MAX_DESCRIPTION`].
fn push_trimmed(body: &mut Body, text: &str, language: Language) -> Option<()> {
    let end = body.len().checked_add(MAX_DESCRIPTION)?;
    for character in text.chars() {
        let before = body.len();
        escape(body, character, language).ok()?;
        if body.len() > end {
            body.truncate(before);
            break;
        }
    }
    Some(())
}

/// What a text is escaped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// XML character data.
    Xml,
    /// The inside of a JSON string.
    Json,
}

/// A text that is escaped when it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str, pub Language);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|character| escape(f, character, self.1))
    }
}

fn escape(out: &mut dyn fmt::Write, character: char, language: Language) -> fmt::Result {
    match (language, character) {
        (Language::Xml, '&') => out.write_str("&amp;"),
        (Language::Xml, '<') => out.write_str("&lt;"),
        (Language::Xml, '>') => out.write_str("&gt;"),
        // XML 1.0 has no way to say most control characters.
        (Language::Xml, c) if c.is_control() && !matches!(c, '\t' | '\n') => out.write_char('?'),
        (Language::Xml, '\u{fffe}' | '\u{ffff}') => out.write_char('?'),
        (Language::Json, c) => json::write_escaped(out, c),
        (Language::Xml, c) => out.write_char(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn goal() -> GoalState {
        GoalState {
            incarnation: "42".into(),
            container: "3f0c9a1e".into(),
            instance: "9e2d._vm-a&b".into(),
        }
    }

    /// The canonical form of waagent, cloud-init and afterburn.
    #[test]
    fn ready_echoes_the_goal_state() {
        assert_eq!(
            xml(Health::Ready, &goal()).unwrap(),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Health xmlns:xsi=\"http://www.w3.org/2001/\
             XMLSchema-instance\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\">\
             <GoalStateIncarnation>42</GoalStateIncarnation><Container>\
             <ContainerId>3f0c9a1e</ContainerId><RoleInstanceList><Role>\
             <InstanceId>9e2d._vm-a&amp;b</InstanceId><Health><State>Ready</State></Health></Role>\
             </RoleInstanceList></Container></Health>"
        );
        assert_eq!(json(Health::Ready).unwrap(), "{\"state\":\"Ready\"}");
    }

    #[test]
    fn failure_is_escaped_in_each_language() {
        let failed = Health::Failed {
            description: "a<b>&\"c\\\u{7}\n",
        };
        let body = xml(failed, &goal()).unwrap();
        assert!(
            body.contains("<Description>a&lt;b&gt;&amp;\"c\\?\n</Description>"),
            "{body}"
        );
        let body = json(failed).unwrap();
        assert!(
            body.contains("\"description\":\"a<b>&\\\"c\\\\\\u0007\\n\"}}"),
            "{body}"
        );
    }

    /// The field order of cloud-init's error reports.
    #[test]
    fn failure_has_the_published_form() {
        let failure = Failure {
            reason: "a|b \"c\" 'd'\ne",
            vm_id: VmId::parse("91267c52-9f02-4cfe-b1f4-a4da7ebac2cf").unwrap(),
            timestamp: "2026-01-02T03:04:05+00:00",
            kernel_log: "",
        };
        assert_eq!(
            failure.to_string(),
            std::format!(
                "result=error|reason=a b  c   d ; e|agent=preroot/{}|\
                 vm_id=91267c52-9f02-4cfe-b1f4-a4da7ebac2cf|timestamp=2026-01-02T03:04:05+00:00|\
                 documentation_url=https://aka.ms/linuxprovisioningerror",
                crate::VERSION
            )
        );
        let with_log = Failure {
            kernel_log: "[1.0] a|b\n[2.0] 'c'",
            ..failure
        };
        assert_eq!(
            with_log.to_string(),
            std::format!("{failure}|kernel_log=[1.0] a b; [2.0]  c ")
        );
    }

    #[test]
    fn description_is_trimmed_after_escaping_between_characters() {
        for (text, language) in [
            ("<é", Language::Xml),
            ("&", Language::Xml),
            ("\"€", Language::Json),
        ] {
            let long = text.repeat(4000);
            let mut body = Body::new();
            push_trimmed(&mut body, &long, language).unwrap();
            assert!(body.len() <= 4096 && body.len() > 4090, "{}", body.len());
            let whole = Escaped(&long, language).to_string();
            assert!(whole.starts_with(body.as_str()));
            if language == Language::Xml {
                let document = std::format!("<x>{body}</x>");
                assert!(roxmltree::Document::parse(&document).is_ok());
            }
        }
    }
}
