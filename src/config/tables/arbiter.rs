//! `[arbiter]`.

use toml::de::DeTable;

use super::table;
use crate::config::section::{Section, Sink};
use crate::config::{Arbiter, Endpoint, schema, values};

/// The most endpoints: members of an etcd cluster, as others call them.
const MAX_ENDPOINTS: usize = 8;

const ENDPOINTS: &str =
    "an array of 1 to 8 endpoints, such as [\"https://10.0.3.1:2379\", \"https://10.0.3.2:2379\"]";

pub(super) fn arbiter(sink: &mut Sink<'_>, root: &DeTable<'_>) -> Option<Arbiter> {
    let section = table(sink, root, &schema::ARBITER)?;
    let endpoints = endpoints(sink, &section);
    let path = "an absolute path";
    let mut file = |key| section.text(sink, key, path, values::path).map(|at| at.value);
    let (ca_file, cert_file, key_file) = (file("ca_file"), file("cert_file"), file("key_file"));
    let password_file = file("password_file");
    let user = section.text(sink, "user", "the name of a user of etcd", values::etcd_user);
    let user = user.map(|at| at.value);
    pair(sink, &section, ("cert_file", cert_file.is_some()), ("key_file", key_file.is_some()));
    pair(sink, &section, ("user", user.is_some()), ("password_file", password_file.is_some()));
    let endpoints = endpoints?;
    let tls = endpoints.iter().any(|endpoint| endpoint.tls);
    for (key, given) in [("ca_file", &ca_file), ("cert_file", &cert_file)] {
        if given.is_some() && !tls {
            let message = "is for https; the endpoints are http";
            sink.at(section.line, section.key(key), message);
        }
    }
    let identity = cert_file.zip(key_file);
    Some(Arbiter { endpoints, ca_file, identity, login: user.zip(password_file) })
}

/// One of two that belong together is not enough.
fn pair(
    sink: &mut Sink<'_>,
    section: &Section<'_>,
    (one, has_one): (&str, bool),
    (other, has_other): (&str, bool),
) {
    if has_one != has_other {
        let (there, missing) = if has_one { (one, other) } else { (other, one) };
        sink.at(section.line, section.key(missing), format!("missing; {there} needs it"));
    }
}

fn endpoints(sink: &mut Sink<'_>, section: &Section<'_>) -> Option<Vec<Endpoint>> {
    if section.get(sink, "etcd").is_none() {
        section.missing(sink, "etcd", ENDPOINTS);
    }
    let all = section.texts(sink, "etcd", ENDPOINTS, values::endpoint)?;
    if !(1..=MAX_ENDPOINTS).contains(&all.value.len()) {
        let message = format!("expected {ENDPOINTS}");
        sink.at(all.line, section.key("etcd"), message);
        return None;
    }
    for (index, at) in all.value.iter().enumerate() {
        let before = all.value.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.value == at.value) {
            sink.at(at.line, section.key("etcd"), format!("{} is there twice", at.value));
        }
        if before.iter().any(|other| other.value.tls != at.value.tls) {
            let message = "expected all endpoints by https, or all by http";
            sink.at(at.line, section.key("etcd"), message);
            break;
        }
    }
    Some(all.value.into_iter().map(|at| at.value).collect())
}
