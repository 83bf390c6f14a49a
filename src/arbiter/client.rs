//! Whom to ask: a connection to one of the endpoints, and a token where etcd wants one.

use std::time::Duration;

use serde_json::json;
use wgha_proto::{Answer, ArbiterHeader, Request};
use zeroize::Zeroizing;

use super::http::Connection;
use super::json::Keys;
use super::{secret, tls};
use crate::config::{Arbiter, Endpoint};

/// What etcd says when a token is needed, or no longer good: it is restarted, or the token is old, or users changed.
const NO_TOKEN: [&str; 3] =
    ["user name is empty", "invalid auth token", "revision of auth store is old"];

/// The client's side.
pub(super) struct Client {
    arbiter: Arbiter,
    keys: Keys,
    /// Which endpoint is asked.
    index: usize,
    connection: Option<Connection>,
    token: Option<Zeroizing<String>>,
}

/// What came of a request.
pub(super) type Outcome = Result<(ArbiterHeader, Answer), String>;

impl Client {
    pub(super) fn new(arbiter: Arbiter, keys: Keys) -> Client {
        Client { arbiter, keys, index: 0, connection: None, token: None }
    }

    /// The endpoint that is asked.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.arbiter.endpoints.get(self.index)
    }

    /// Asks, and gives up after a bounded time: at most twice `within`. After a failure another endpoint is asked.
    pub(super) async fn perform(mut self, request: Request, within: Duration) -> (Client, Outcome) {
        let why = match self.connect_and_ask(&request, within).await {
            Ok(answer) => return (self, Ok(answer)),
            Err(why) => why,
        };
        // A late answer must not be taken for that of the next request.
        self.connection = None;
        let name = self.endpoint().map(ToString::to_string).unwrap_or_default();
        self.index = (self.index + 1) % self.arbiter.endpoints.len().max(1);
        (self, Err(format!("{name}: {why}")))
    }

    async fn connect_and_ask(&mut self, request: &Request, within: Duration) -> Outcome {
        self.connect(within).await?;
        let asked = tokio::time::timeout(within, self.ask(request)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", within.as_millis())))
    }

    async fn connect(&mut self, within: Duration) -> Result<(), String> {
        if self.connection.is_some() {
            return Ok(());
        }
        let Some(endpoint) = self.endpoint().cloned() else {
            return Err("there is no endpoint".to_owned());
        };
        // Read anew, so that new certificates need no restart.
        let tls = endpoint.tls.then(|| tls::connector(&self.arbiter, None)).transpose()?;
        self.connection = Some(Connection::open(&endpoint, tls, within).await?);
        Ok(())
    }

    async fn ask(&mut self, request: &Request) -> Outcome {
        if self.token.is_none() && self.arbiter.login.is_some() {
            self.log_in().await?;
        }
        match self.ask_once(request).await {
            Err(why) if self.arbiter.login.is_some() && wants_token(&why) => {
                self.token = None;
                self.log_in().await?;
                self.ask_once(request).await
            }
            outcome => outcome,
        }
    }

    async fn ask_once(&mut self, request: &Request) -> Outcome {
        let (path, body) = self.keys.request(request);
        let connection = self.connection.as_mut().ok_or("not connected")?;
        let token = self.token.as_deref().map(String::as_str);
        let value = connection.post(path, token, body.to_string().into_bytes()).await?;
        self.keys.answer(request, &value).ok_or_else(|| "an answer that makes no sense".to_owned())
    }

    /// A new token. The password is read anew, so that a new one needs no restart.
    async fn log_in(&mut self) -> Result<(), String> {
        let Some((user, file)) = &self.arbiter.login else { return Ok(()) };
        let body = {
            let password = secret::password(file, None)?;
            json!({ "name": user, "password": password.as_str() }).to_string().into_bytes()
        };
        let connection = self.connection.as_mut().ok_or("not connected")?;
        let value = connection.post("/v3/auth/authenticate", None, body).await?;
        let token = value.get("token").and_then(serde_json::Value::as_str);
        let token = token.ok_or("an answer without a token")?;
        self.token = Some(Zeroizing::new(token.to_owned()));
        Ok(())
    }
}

fn wants_token(why: &str) -> bool {
    NO_TOKEN.iter().any(|text| why.contains(text))
}
