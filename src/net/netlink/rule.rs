//! Policy rules.

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use nix::errno::Errno;

use super::super::types::{Action, Family, Rule};
use super::{NetError, Netlink, family_code, family_of, is, unless};

impl Netlink {
    /// The policy rules of a family, in the order in which they are asked.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn rules(&self, family: Family) -> Result<Vec<Rule>, NetError> {
        let mut message = RuleMessage::default();
        message.header.family = family_code(family);
        let answers = match self.list("list rules", RouteNetlinkMessage::GetRule(message)).await {
            Ok(answers) => answers,
            Err(e) if is(&e, &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]) => Vec::new(),
            Err(e) => return Err(e),
        };
        let rules = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(message) => convert(message),
            _ => None,
        });
        Ok(rules.filter(|rule| rule.family == family).collect())
    }

    /// Adds a policy rule. `false`: the same one is there already.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn add_rule(&self, rule: &Rule) -> Result<bool, NetError> {
        let request = RouteNetlinkMessage::NewRule(message(rule));
        let what = format!("add rule {} of {:?}", rule.priority, rule.family);
        unless(&[Errno::EEXIST], self.change(&what, request, NLM_F_CREATE | NLM_F_EXCL).await)
    }

    /// Removes a policy rule. `false`: it was not there.
    ///
    /// # Errors
    /// The kernel refused or did not answer.
    pub async fn remove_rule(&self, rule: &Rule) -> Result<bool, NetError> {
        let request = RouteNetlinkMessage::DelRule(message(rule));
        let what = format!("remove rule {} of {:?}", rule.priority, rule.family);
        unless(&[Errno::ENOENT], self.change(&what, request, 0).await)
    }
}

fn convert(message: RuleMessage) -> Option<Rule> {
    let header = message.header;
    let family = family_of(header.family)?;
    let mut rule = Rule {
        family,
        priority: 0,
        from: None,
        input: None,
        ip_protocol: None,
        source_port: None,
        action: Action::Other(0),
        owner: 0,
        other_selectors: header.dst_len != 0
            || header.tos != 0
            || header.flags.bits() & INVERT != 0,
    };
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(ip, header.src_len).ok(),
            RuleAttribute::Iifname(name) => rule.input = Some(name),
            RuleAttribute::IpProtocol(number) => rule.ip_protocol = Some(u8::from(number)),
            RuleAttribute::SourcePortRange(range) if range.start == range.end => {
                rule.source_port = Some(range.start);
            }
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::Protocol(owner) => rule.owner = owner.into(),
            // "None", which the kernel always reports.
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Other(other) if is_whole_port(&other) => {}
            _ => rule.other_selectors = true,
        }
    }
    rule.action = match header.action {
        RuleAction::ToTable => Action::Lookup(table),
        RuleAction::Blackhole => Action::Blackhole,
        other => Action::Other(other.into()),
    };
    Some(rule)
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_code(rule.family);
    message.header.action = match rule.action {
        Action::Lookup(_) => RuleAction::ToTable,
        Action::Blackhole => RuleAction::Blackhole,
        Action::Other(code) => RuleAction::from(code),
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.owner)));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.addr()));
    }
    if let Some(input) = &rule.input {
        attributes.push(RuleAttribute::Iifname(input.clone()));
    }
    if let Some(number) = rule.ip_protocol {
        attributes.push(RuleAttribute::IpProtocol(number.into()));
    }
    if let Some(port) = rule.source_port {
        attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port }));
    }
    if let Action::Lookup(table) = rule.action {
        attributes.push(RuleAttribute::Table(table));
    }
    message
}

/// `FRA_SPORT_MASK` with all bits, which Linux 6.15 and later report with a single port.
fn is_whole_port(attribute: &DefaultNla) -> bool {
    let mut value = [0; 2];
    if attribute.kind() != FRA_SPORT_MASK || attribute.value_len() != value.len() {
        return false;
    }
    attribute.emit_value(&mut value);
    value == [0xff; 2]
}

/// Not known to the packet crate yet.
const FRA_SPORT_MASK: u16 = 28;

/// `FIB_RULE_INVERT`: the rule matches what its selectors do not.
const INVERT: u32 = 2;
