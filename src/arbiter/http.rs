//! One connection to etcd's gateway for JSON: HTTP/1.1, one request at a time.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::config::Endpoint;

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// How much of an answer that is no JSON is shown, in bytes.
const MAX_EXCERPT: usize = 160;

/// A connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    host: HeaderValue,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects, by TLS if there is a connector.
    pub(super) async fn open(
        endpoint: &Endpoint,
        tls: Option<TlsConnector>,
        within: Duration,
    ) -> Result<Connection, String> {
        let opened = tokio::time::timeout(within, Connection::connect(endpoint, tls)).await;
        opened.unwrap_or_else(|_| Err(format!("no connection within {} ms", within.as_millis())))
    }

    async fn connect(endpoint: &Endpoint, tls: Option<TlsConnector>) -> Result<Connection, String> {
        let address = (endpoint.host.as_str(), endpoint.port);
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let Some(tls) = tls else { return Connection::start(endpoint, stream).await };
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|e| e.to_string())?;
        let stream = tls.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
        Connection::start(endpoint, stream).await
    }

    async fn start<S>(endpoint: &Endpoint, stream: S) -> Result<Connection, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        let (sender, connection) = http1::handshake(io).await.map_err(|e| e.to_string())?;
        // Its errors come with the request that they concern.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        let name = endpoint.to_string();
        let host = name.split_once("://").map_or(name.as_str(), |(_, host)| host);
        let host = HeaderValue::from_str(host).map_err(|e| e.to_string())?;
        Ok(Connection { sender, driver, host })
    }

    /// Posts a body. The answer may be an error of etcd's: see [`error_of`].
    pub(super) async fn post(
        &mut self,
        path: &'static str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Value, String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.host.clone())
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token).map_err(|_| "a token of odd letters")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())?;
        let response = self.sender.send_request(request).await.map_err(|e| whole(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = Zeroizing::new(body.map_err(|e| e.to_string())?.to_bytes().to_vec());
        let value: Value = serde_json::from_slice(&body)
            .map_err(|_| format!("HTTP {}: {}", status.as_u16(), excerpt(&body)))?;
        match error_of(&value) {
            Some(error) => Err(excerpt(error.as_bytes())),
            None if status.is_success() => Ok(value),
            None => Err(format!("HTTP {}", status.as_u16())),
        }
    }
}

/// An error with its causes: hyper's own words do not name them.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The beginning of a text, for people.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..MAX_EXCERPT.min(body.len())).unwrap_or_default());
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// What etcd finds wrong with a request.
fn error_of(value: &Value) -> Option<&str> {
    let text = |key| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("error").or_else(|| text("message"))
}
