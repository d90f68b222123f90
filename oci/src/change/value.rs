//! What the values of instructions may be.

/// Most ports that one range may stand for: each becomes an entry of the config.
const MAX_RANGE: usize = 4096;

pub(super) fn filled(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(())
}

/// The name of a variable or a label.
pub(super) fn name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a name is empty".to_owned());
    }
    if text.contains('=') {
        return Err(format!("the name `{}` has an equals sign in it", text.escape_debug()));
    }
    Ok(())
}

/// `80`, `80/udp`, `8000-8002`: each as an image's config has it, `80/tcp`.
pub(super) fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = |reason: &str| Err(format!("`{}` {reason}", text.escape_debug()));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return wrong("has another protocol than tcp, udp or sctp");
    }
    if numbers.contains(':') {
        return wrong("says where the port is published, which an image cannot");
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return wrong("is neither a port nor a range of ports");
    };
    if first > last {
        return wrong("ends before it begins");
    }
    if usize::from(last - first) >= MAX_RANGE {
        return wrong("is a range of too many ports");
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A number or a name, with or without `SIG`.
pub(super) fn signal(text: &str) -> Result<(), String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, sign: char| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(sign)
                    .and_then(|number| number.parse::<u8>().ok())
                    .is_some_and(|number| number <= 30)
        })
    };
    let known = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
        || SIGNALS.contains(&name)
        || real_time("RTMIN", '+')
        || real_time("RTMAX", '-');
    if known { Ok(()) } else { Err(format!("`{}` is no signal", text.escape_debug())) }
}

/// signal(7).
const SIGNALS: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "EMT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN",
    "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "INFO",
];

/// An absolute path, in which `..` at the root stays there.
pub(super) fn directory(current: &str, wanted: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let above = if wanted.starts_with('/') { "" } else { current };
    for name in above.split('/').chain(wanted.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}
