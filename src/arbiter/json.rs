//! Requests and answers as JSON, as etcd's gateway has them: numbers of 64 bits are strings, keys and values base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wgha_proto::{Answer, ArbiterHeader, Change, Kept, Register, Request, Vote};

/// The two keys of one set of voters.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    dir: String,
}

impl Keys {
    /// Below `/wgha/CLUSTER/`; `voter` begins with `@etcd.`.
    pub(super) fn new(cluster: &str, voter: &str) -> Keys {
        let set = voter.rsplit('.').next().unwrap_or(voter);
        Keys { dir: format!("/wgha/{cluster}/{set}/") }
    }

    fn master(&self) -> String {
        encode(&format!("{}master", self.dir))
    }

    fn highest(&self) -> String {
        encode(&format!("{}highest", self.dir))
    }

    /// Both keys, by a read that is linearizable, as it is unless one asks for less.
    fn range(&self) -> Value {
        // The end of a range is the first key behind it: '0' follows '/'.
        let end = format!("{}0", self.dir.trim_end_matches('/'));
        json!({ "key": encode(&self.dir), "range_end": encode(&end), "limit": "16" })
    }

    /// Path and body of a request.
    pub(super) fn request(&self, request: &Request) -> (&'static str, Value) {
        match request {
            Request::Look => ("/v3/kv/range", self.range()),
            Request::Lease { seconds } => {
                ("/v3/lease/grant", json!({ "TTL": seconds.to_string(), "ID": "0" }))
            }
            Request::Write { expected, change } => ("/v3/kv/txn", self.write(*expected, change)),
        }
    }

    fn write(&self, (master, highest): (u64, u64), change: &Change) -> Value {
        let put = |key: String, vote: &Vote, lease: i64| {
            let value = encode(&vote.to_text());
            json!({ "request_put": { "key": key, "value": value, "lease": lease.to_string() } })
        };
        let success = match change {
            Change::Take { lease, vote } => {
                vec![put(self.master(), vote, *lease), put(self.highest(), vote, 0)]
            }
            Change::Free { highest } => {
                let delete = json!({ "request_delete_range": { "key": self.master() } });
                let highest = highest.as_ref().map(|vote| put(self.highest(), vote, 0));
                [delete].into_iter().chain(highest).collect()
            }
        };
        json!({
            "compare": [unchanged(self.master(), master), unchanged(self.highest(), highest)],
            "success": success,
            "failure": [{ "request_range": self.range() }],
        })
    }

    /// What an answer to `request` says; `None`: it makes no sense.
    pub(super) fn answer(
        &self,
        request: &Request,
        value: &Value,
    ) -> Option<(ArbiterHeader, Answer)> {
        let header = value.get("header")?;
        let cluster = number(header, "cluster_id")?;
        let header = ArbiterHeader { cluster, revision: number(header, "revision").unwrap_or(0) };
        let answer = match request {
            Request::Look => Answer::Seen(self.register(value)?),
            Request::Lease { .. } => {
                let id = value.get("ID")?.as_str()?.parse().ok()?;
                let seconds = u32::try_from(number(value, "TTL")?).ok()?;
                Answer::Leased { id, seconds }
            }
            Request::Write { .. }
                if value.get("succeeded").and_then(Value::as_bool) == Some(true) =>
            {
                Answer::Written
            }
            Request::Write { .. } => {
                let response = value.get("responses")?.get(0)?.get("response_range")?;
                Answer::Seen(self.register(response)?)
            }
        };
        Some((header, answer))
    }

    fn register(&self, value: &Value) -> Option<Register> {
        let mut register = Register::default();
        // Without any, the field is not there.
        let none = Vec::new();
        let kvs = value.get("kvs").map_or(Some(&none), Value::as_array)?;
        for kv in kvs {
            let key = kv.get("key")?.as_str()?;
            let revision = number(kv, "mod_revision")?;
            let text = kv.get("value").and_then(Value::as_str).unwrap_or_default();
            let text = STANDARD.decode(text).ok()?;
            let vote = std::str::from_utf8(&text).ok().and_then(Vote::parse);
            let kept = Some(Kept { vote, revision });
            if key == self.master() {
                register.bound = kept;
            } else if key == self.highest() {
                register.highest = kept;
            }
        }
        Some(register)
    }
}

fn unchanged(key: String, revision: u64) -> Value {
    json!({ "key": key, "result": "EQUAL", "target": "MOD", "mod_revision": revision.to_string() })
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// A number of 64 bits, which JSON has as a string.
fn number(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok())
}
