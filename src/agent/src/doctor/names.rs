//! Each name server by itself: the system asks the first that answers, and hides that another one lies.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use speediso_model::network::{Check, CheckKind, Verdict};
use tokio::time::Instant;

use super::span;
use crate::net::dns::{self, Answer, Kind};

const LIMIT: Duration = Duration::from_secs(2);
const SERVERS: usize = 6;

/// Asks all of them for the controller's name.
pub(super) async fn ask(host: &str, resolv_conf: &Path) -> Vec<Check> {
    let servers = servers(&std::fs::read_to_string(resolv_conf).unwrap_or_default());
    if servers.is_empty() {
        return vec![
            Check::new(CheckKind::Dns, "", Verdict::Failed, format!("no name server is known to ask for {host}"))
                .do_this("have DHCP give one (option 6), name one in ip=, or give the controller by address"),
        ];
    }
    let asked = join_all(servers.into_iter().map(|server| async move {
        let begun = Instant::now();
        let ask = |kind| dns::ask(server, host, kind, None, LIMIT);
        let (four, six) = tokio::join!(ask(Kind::A), ask(Kind::Aaaa));
        let (four, six) = (four.map_err(|e| chain(&e)), six.map_err(|e| chain(&e)));
        Asked { server, took: begun.elapsed(), found: found(&four, &six), four, six }
    }))
    .await;
    let answers: BTreeSet<&BTreeSet<IpAddr>> = asked.iter().filter_map(|a| a.found.as_ref()).collect();
    asked.iter().map(|asked| judge(host, asked, &answers)).collect()
}

/// One server's answers for both protocols.
struct Asked {
    server: IpAddr,
    took: Duration,
    /// All addresses; `None` if neither question was answered properly.
    found: Option<BTreeSet<IpAddr>>,
    four: Said,
    six: Said,
}

fn judge(host: &str, asked: &Asked, answers: &BTreeSet<&BTreeSet<IpAddr>>) -> Check {
    let check = |verdict, text: String| {
        let took = span::ms(asked.took);
        Check::new(CheckKind::Dns, asked.server.to_string(), verdict, text).fact("took_ms", took).fact("name", host)
    };
    // As long as another one knows the name, the machine gets on, only slower.
    let no_help = if answers.iter().any(|found| !found.is_empty()) { Verdict::Warning } else { Verdict::Failed };
    match &asked.found {
        Some(found) if found.is_empty() => check(no_help, format!("knows no address of {host}"))
            .do_this("enter the controller's name there, or ask another server"),
        Some(found) => {
            let otherwise = answers.iter().any(|other| !other.is_empty() && *other != found);
            let differs = if otherwise { "; another server says otherwise" } else { "" };
            let text = format!("{host} is {} ({} ms){differs}", span::list(found), span::ms(asked.took));
            let list: Vec<String> = found.iter().map(ToString::to_string).collect();
            if matches!((&asked.four, &asked.six), (Ok(Answer::Error(_)), _) | (_, Ok(Answer::Error(_)))) {
                // Resolvers differ in this, and the one of musl gives up: the agent does not find the name then.
                let errors = error_text(&asked.four, &asked.six);
                check(Verdict::Warning, format!("{text}, but with an error for the other protocol: {errors}"))
                    .fact("addresses", list)
                    .do_this(
                        "have it answer \"no such address\" instead: with an error the whole name counts as not found",
                    )
            } else if otherwise {
                check(Verdict::Warning, text)
                    .fact("addresses", list)
                    .do_this("find out which name server is right: machines ask either")
            } else {
                check(Verdict::Ok, text).fact("addresses", list)
            }
        }
        None => match (&asked.four, &asked.six) {
            (Err(error), Err(_)) => check(no_help, format!("does not answer: {error}"))
                .do_this("check that this is the right name server and can be reached: names take seconds without it"),
            (four, six) => check(no_help, format!("answers with an error about {host}: {}", error_text(four, six)))
                .do_this("look at the name server's log"),
        },
    }
}

type Said = Result<Answer, String>;

fn found(four: &Said, six: &Said) -> Option<BTreeSet<IpAddr>> {
    let mut all = None;
    for answer in [four, six] {
        match answer {
            Ok(Answer::Addresses(list)) => all.get_or_insert_with(BTreeSet::new).extend(list.iter().copied()),
            Ok(Answer::NoSuchName) => {
                all.get_or_insert_with(BTreeSet::new);
            }
            Ok(Answer::Error(_)) | Err(_) => {}
        }
    }
    all
}

fn error_text(four: &Said, six: &Said) -> String {
    let of = |answer: &Said, protocol: &str| match answer {
        Ok(Answer::Error(2)) => Some(format!("server failure for {protocol}")),
        Ok(Answer::Error(5)) => Some(format!("refused for {protocol}")),
        Ok(Answer::Error(code)) => Some(format!("code {code} for {protocol}")),
        Ok(_) => None,
        Err(error) => Some(format!("{error} for {protocol}")),
    };
    span::list([of(four, "IPv4"), of(six, "IPv6")].into_iter().flatten())
}

fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    let address = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    resolv_conf.lines().filter_map(address).take(SERVERS).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text = "# comment\nsearch example\nnameserver 192.0.2.53\nnameserver  2001:db8::53 \nnameserver x\n";
        assert_eq!(servers(text).len(), 2);
    }
}
