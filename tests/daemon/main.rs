//! Real `wgha run` processes on the loopback, without privileges and without floating IPs.
//!
//! - `life`: elections, failover, handover, stop, maintenance, restarts, two processes of one name.
//! - `contract`: exit codes, `status --json`, `events --json`, the control socket.
//! - `keys`: rotation of the cluster key on live daemons.
//! - `voters`: a voter that is lost for good.
//! - `etcd`: an etcd that votes, killed, stopped, compacted, slow, with TLS and passwords.
//! - `several`: one process that is the witness of two clusters.
//! - `hostile`: datagrams that are flipped, cut, replayed, reflected or invented.
//! - `realtime`: `[cluster] realtime`, granted and refused.
//! - `http`: `/master` and its kin, metrics, floods.
//!
//! No test asserts how long something takes: each waits, within a bound, until it is so.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cluster;
mod contract;
mod delay;
mod etcd;
mod hostile;
mod http;
mod keys;
mod life;
mod proxy;
mod realtime;
mod several;
mod voters;
