//! A GET by HTTP/1.0, so that the answer comes in one piece and ends with the connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Found;
use super::names::Names;
use crate::config::HttpCheck;

/// The most bytes of an answer, head included, that are looked at.
const ANSWER: usize = 64 * 1024;

/// Asks, and compares the answer with what it must be.
pub(super) async fn get(check: &HttpCheck, names: &mut Names) -> Found {
    let (mut stream, peer) = names.connect(&check.target).await?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: wgha/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        check.path,
        check.target,
        env!("CARGO_PKG_VERSION")
    );
    let failed = |e: std::io::Error| format!("{peer}: {e}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let answer = read(&mut stream, check.body.as_deref()).await.map_err(failed)?;
    judge(check, &answer).map_err(|why| format!("{peer}: {why}"))
}

/// Reads until enough is there to judge, or the end.
async fn read(stream: &mut TcpStream, wanted: Option<&str>) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < ANSWER {
        let enough = match wanted {
            None => answer.contains(&b'\n'),
            Some(text) => split(&answer).is_some_and(|(_, body)| contains(body, text)),
        };
        if enough {
            break;
        }
        match stream.read(&mut piece).await? {
            0 => break,
            n => answer.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
    }
    Ok(answer)
}

/// Head and body.
fn split(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((answer.get(..end)?, answer.get(end + 4..)?))
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len().max(1)).any(|part| part == text.as_bytes())
}

/// What the answer says against the check, or for it.
pub(super) fn judge(check: &HttpCheck, answer: &[u8]) -> Found {
    let code = status(answer).ok_or("no answer in HTTP")?;
    match check.status {
        Some(wanted) if wanted != code => return Err(format!("status {code} instead of {wanted}")),
        None if !(200..300).contains(&code) => return Err(format!("status {code}")),
        _ => {}
    }
    if let Some(text) = &check.body
        && !split(answer).is_some_and(|(_, body)| contains(body, text))
    {
        return Err(format!("status {code}, but no {text:?} in the body"));
    }
    Ok(format!("status {code}"))
}

/// `HTTP/1.1 200 OK`: 200.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok().filter(|code| (100..600).contains(code))
}
