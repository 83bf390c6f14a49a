use serde_json::json;
use wgha_proto::{Answer, ArbiterHeader, Change, Kept, Register, Request, Vote};

use super::json::Keys;

fn keys() -> Keys {
    Keys::new("edge", "@etcd.00112233")
}

fn vote() -> Vote {
    Vote { term: 5, session: [0xab; 16], heir: true, node: "gw1".to_owned() }
}

/// base64 of `/wgha/edge/00112233/master` and `.../highest`.
const MASTER: &str = "L3dnaGEvZWRnZS8wMDExMjIzMy9tYXN0ZXI=";
const HIGHEST: &str = "L3dnaGEvZWRnZS8wMDExMjIzMy9oaWdoZXN0";

#[test]
fn a_write_is_conditional_on_both_keys() {
    let change = Change::Take { lease: -7, vote: vote() };
    let (path, body) = keys().request(&Request::Write { expected: (11, 0), change });
    assert_eq!(path, "/v3/kv/txn");
    assert_eq!(
        body["compare"],
        json!([
            { "key": MASTER, "result": "EQUAL", "target": "MOD", "mod_revision": "11" },
            { "key": HIGHEST, "result": "EQUAL", "target": "MOD", "mod_revision": "0" },
        ])
    );
    assert_eq!(body["success"][0]["request_put"]["key"], MASTER);
    assert_eq!(body["success"][0]["request_put"]["lease"], "-7");
    assert_eq!(body["success"][1]["request_put"]["key"], HIGHEST);
    assert_eq!(body["success"][1]["request_put"]["lease"], "0");
    let (_, look) = keys().request(&Request::Look);
    assert_eq!(body["failure"], json!([{ "request_range": look }]));
    let (_, body) = keys()
        .request(&Request::Write { expected: (1, 2), change: Change::Free { highest: None } });
    assert_eq!(body["success"], json!([{ "request_delete_range": { "key": MASTER } }]));
}

#[test]
fn answers_of_etcd() {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(vote().to_text());
    let header = json!({ "cluster_id": "14841639068965178418", "revision": "12" });
    let kvs = json!([
        { "key": HIGHEST, "value": text, "mod_revision": "12", "create_revision": "3" },
        { "key": MASTER, "value": "Zm9v", "mod_revision": "9", "lease": "7587" },
        { "key": "b3RoZXI=", "value": "Zm9v", "mod_revision": "9" },
    ]);
    let register = Register {
        bound: Some(Kept { vote: None, revision: 9 }),
        highest: Some(Kept { vote: Some(vote()), revision: 12 }),
    };
    let known = ArbiterHeader { cluster: 14_841_639_068_965_178_418, revision: 12 };
    let range = json!({ "header": header, "kvs": kvs, "count": "3" });
    let seen = Some((known, Answer::Seen(register)));
    assert_eq!(keys().answer(&Request::Look, &range), seen);
    let empty = json!({ "header": header });
    let none = Some((known, Answer::Seen(Register::default())));
    assert_eq!(keys().answer(&Request::Look, &empty), none);
    let write = Request::Write { expected: (0, 0), change: Change::Free { highest: None } };
    let lost = json!({ "header": header, "responses": [{ "response_range": { "kvs": kvs } }] });
    assert_eq!(keys().answer(&write, &lost), seen);
    let won = json!({ "header": header, "succeeded": true });
    assert_eq!(keys().answer(&write, &won), Some((known, Answer::Written)));
    let lease = json!({ "header": header, "ID": "7587869", "TTL": "3" });
    let leased = Some((known, Answer::Leased { id: 7_587_869, seconds: 3 }));
    assert_eq!(keys().answer(&Request::Lease { seconds: 3 }, &lease), leased);
    for bad in [json!({}), json!([]), json!({ "header": {} }), json!({ "header": header })] {
        assert_eq!(keys().answer(&Request::Lease { seconds: 3 }, &bad), None, "{bad}");
        assert_eq!(keys().answer(&write, &bad), None, "{bad}");
    }
}
