//! From a request to its answer.

use std::sync::Arc;
use std::time::SystemTime;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tracing::error;
use wgha_proto::Role;

use super::counts::Counts;
use super::look::Looker;
use super::vital::{Said, Vital};
use super::{metrics, page};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every path that there is.
const PATHS: [&str; 6] = ["/", "/livez", "/readyz", "/master", "/status", "/metrics"];

/// What all connections share.
pub(super) struct Router {
    pub(super) vital: Arc<Vital>,
    pub(super) looker: Looker,
    pub(super) counts: Arc<Counts>,
}

/// An answer before it has headers.
struct Answer {
    code: StatusCode,
    kind: &'static str,
    body: String,
}

impl Router {
    /// The answer to any request. Takes 3 s at most.
    pub(super) async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let known = PATHS.into_iter().find(|known| *known == path);
        let answer = match known {
            None => text(StatusCode::NOT_FOUND, "not found"),
            Some(_) if method != Method::GET && method != Method::HEAD => {
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD")
            }
            Some(path) => self.get(path).await,
        };
        self.counts.answered(known.unwrap_or("other"), answer.code.as_u16());
        answer.into_response()
    }

    async fn get(&self, path: &str) -> Answer {
        match path {
            "/livez" if self.vital.is_live() => text(StatusCode::OK, "alive"),
            "/livez" => unavailable(HANGS),
            "/master" => self.master(),
            // Nobody would answer.
            _ if !self.vital.is_live() => unavailable(HANGS),
            "/readyz" => self.ready().await,
            "/metrics" => self.metrics().await,
            "/status" => self.status().await,
            _ => self.page().await,
        }
    }

    fn master(&self) -> Answer {
        match self.vital.said() {
            Said::Role(Role::Master) => text(StatusCode::OK, Role::Master.word()),
            Said::Role(role) => unavailable(role.word()),
            Said::Nothing => unavailable(HANGS),
        }
    }

    async fn ready(&self) -> Answer {
        match self.looker.look().await {
            Ok(status) if status.ready => text(StatusCode::OK, "ready"),
            Ok(status) => match &status.held_back {
                Some(why) => unavailable(&format!("not ready: {why}")),
                None => unavailable("not ready"),
            },
            Err(why) => unavailable(why),
        }
    }

    async fn status(&self) -> Answer {
        let status = match self.looker.look().await {
            Ok(status) => status,
            Err(why) => return unavailable(why),
        };
        match serde_json::to_string(&*status) {
            Ok(json) => Answer { code: StatusCode::OK, kind: JSON, body: json + "\n" },
            Err(e) => broken("/status", &e),
        }
    }

    async fn metrics(&self) -> Answer {
        let status = match self.looker.look().await {
            Ok(status) => status,
            Err(why) => return unavailable(why),
        };
        match metrics::exposition(status, Arc::clone(&self.counts)) {
            Ok(body) => Answer { code: StatusCode::OK, kind: OPENMETRICS, body },
            Err(e) => broken("/metrics", &e),
        }
    }

    async fn page(&self) -> Answer {
        match self.looker.look().await {
            Ok(status) => {
                let body = page::page(&status, SystemTime::now());
                Answer { code: StatusCode::OK, kind: HTML, body }
            }
            Err(why) => unavailable(why),
        }
    }
}

/// What to say when the loop says nothing.
const HANGS: &str = "the protocol's loop makes no progress";

fn text(code: StatusCode, line: &str) -> Answer {
    Answer { code, kind: TEXT, body: format!("{line}\n") }
}

fn unavailable(line: &str) -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, line)
}

fn broken(path: &str, why: &dyn std::fmt::Display) -> Answer {
    error!("{path}: {why}");
    text(StatusCode::INTERNAL_SERVER_ERROR, "see the daemon's log")
}

impl Answer {
    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        let mut put = |name, value| headers.insert(name, HeaderValue::from_static(value));
        put(header::CONTENT_TYPE, self.kind);
        // An answer holds for the moment: no cache may repeat it.
        put(header::CACHE_CONTROL, "no-store");
        put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        put(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
        if self.code == StatusCode::METHOD_NOT_ALLOWED {
            put(header::ALLOW, "GET, HEAD");
        }
        response
    }
}
