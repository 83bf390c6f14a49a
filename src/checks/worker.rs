//! The task of one check.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::judge::next_run;
use super::names::Names;
use super::{Board, Context, Found, http, kinds};
use crate::clock;
use crate::config::{Check, CheckKind};
use crate::process::{self, Job, Outcome};
use crate::sync::Endpoints;

/// Characters of a script's last line that status shows.
const DETAIL: usize = 200;

/// Runs the check for ever.
pub(super) async fn run(id: u64, check: Check, context: Context, board: Board) {
    let mut names = Names::default();
    loop {
        let began = clock::now();
        let note = |found| board.note(id, began, found);
        match &check.kind {
            CheckKind::Script(words) => script(&check, words, &context, note).await,
            kind => {
                note(within(check.timeout, attempt(kind, &mut names, &context.endpoints)).await)
            }
        }
        let now = clock::now();
        sleep(next_run(began, now, check.interval).since(now)).await;
    }
}

async fn within(limit: Duration, attempt: impl Future<Output = Found>) -> Found {
    timeout(limit, attempt).await.unwrap_or_else(|_| Err(late(limit)))
}

fn late(limit: Duration) -> String {
    format!("no answer within {} ms", limit.as_millis())
}

/// Looks once. May take for ever.
async fn attempt(kind: &CheckKind, names: &mut Names, endpoints: &Endpoints) -> Found {
    match kind {
        CheckKind::Ping(address) => kinds::ping(*address).await,
        CheckKind::Interface(name, address) => kinds::interface(name, *address).await,
        CheckKind::Tcp(target) => {
            let (_, peer) = names.connect(target).await?;
            Ok(format!("{peer} accepts"))
        }
        CheckKind::Http(check) => http::get(check, names).await,
        CheckKind::Wireguard(name, within) => {
            let silent = within.map(|within| (within, endpoints.since_handshake(name)));
            kinds::wireguard(name, silent).await
        }
        // Needs to be ended, so it is not an attempt that can be dropped.
        CheckKind::Script(_) => pending().await,
    }
}

/// Runs a program to its end. That it did not end in time is noted then: to end it may take a while longer.
async fn script(check: &Check, words: &[String], context: &Context, note: impl Fn(Found)) {
    let (program, args) = words.split_first().map_or(("", [].as_slice()), |(p, a)| (p, a));
    let job = Job::new(program, args, check.timeout)
        .env("WGHA_CHECK", &check.name)
        .env("WGHA_CLUSTER", &context.cluster)
        .env("WGHA_NODE", &context.node);
    let mut last = String::new();
    let finished = {
        let mut run = pin!(process::run(&job, pending(), |line| {
            last = line.chars().filter(|c| !c.is_control()).take(DETAIL).collect();
        }));
        tokio::select! {
            biased;
            finished = &mut run => finished,
            () = sleep(check.timeout) => {
                note(Err(late(check.timeout)));
                // Never two at a time.
                run.await;
                return;
            }
        }
    };
    let said = |outcome: &Outcome| {
        if last.is_empty() { outcome.to_string() } else { format!("{last} ({outcome})") }
    };
    note(match &finished.outcome {
        outcome if outcome.is_success() => Ok(said(outcome)),
        Outcome::TimedOut => Err(late(check.timeout)),
        outcome => Err(said(outcome)),
    });
}
