//! From options and a policy file to a policy.

use layerstore::{Goal, Policy, Scope};

use crate::args::{Conditions, PruneFilter};
use crate::errors::Failure;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Its goal is that of the watermark, if there is one.
    pub(crate) policy: Policy,
    /// Percent of the filesystem: above which images go, and how many of them.
    pub(crate) watermark: Option<(u8, u8)>,
}

/// What the options say, and where they say nothing, the file. `now` is in seconds since 1970.
pub(crate) fn resolve(options: &Conditions, file: &Conditions, now: i64) -> Result<Wishes, Failure> {
    let wanted = merge(options, file);
    check(&wanted)?;
    let mut policy = Policy {
        keep_last: wanted.keep_last,
        unused_since: wanted.unused_for.map(|span| now.saturating_sub(span)),
        protect: wanted.protect.clone(),
        goal: wanted.free.map(Goal::Free).or(wanted.keep_storage.map(Goal::KeepStorage)),
        evict: wanted.evict.map(Into::into),
        interrupted: wanted.interrupted,
        ..Policy::default()
    };
    let dangling = apply(&wanted.filter, &mut policy);
    let watermark = wanted.high.zip(wanted.low);
    let limited = policy.keep_last.is_some()
        || policy.unused_since.is_some()
        || policy.goal.is_some()
        || policy.evict.is_some()
        || watermark.is_some()
        || !wanted.filter.is_empty();
    policy.scope = if wanted.dangling || dangling == Some(true) {
        Scope::Dangling
    } else if wanted.all || limited {
        Scope::Unused
    } else {
        Scope::Garbage
    };
    if policy.scope == Scope::Dangling && (policy.keep_last.is_some() || !policy.names.is_empty()) {
        return Err(Failure::usage(
            "images without a name have no repository: --dangling goes neither with --keep-last nor with `reference=`",
        ));
    }
    if policy.scope == Scope::Dangling && wanted.all {
        return Err(Failure::usage("--all and `dangling=true` contradict each other"));
    }
    if policy.scope == Scope::Garbage && !policy.protect.is_empty() {
        return Err(Failure::usage("--protect says what stays, and nothing says which images go")
            .hint("add --all, or what else images go by"));
    }
    Ok(Wishes { policy, watermark })
}

/// Adds filters to a policy. Returns what they say of images without a name.
pub(crate) fn apply(filters: &[PruneFilter], policy: &mut Policy) -> Option<bool> {
    let mut dangling = None;
    for filter in filters {
        match filter {
            PruneFilter::Until(moment) => {
                policy.until = Some(policy.until.map_or(*moment, |other| other.min(*moment)));
            }
            PruneFilter::Label(label) => policy.labels.push(label.clone()),
            PruneFilter::Reference(pattern) => policy.names.push(pattern.clone()),
            PruneFilter::Dangling(only) => dangling = Some(*only),
        }
    }
    dangling
}

/// As in Docker.
pub(crate) fn one_until(filters: &[PruneFilter]) -> Result<(), Failure> {
    let until = filters.iter().filter(|filter| matches!(filter, PruneFilter::Until(_)));
    if until.count() > 1 {
        return Err(Failure::usage("more than one `until` filter specified"));
    }
    Ok(())
}

fn merge(options: &Conditions, file: &Conditions) -> Conditions {
    // Which images, and how many: one of each, and that of the command line.
    let scoped = options.all || options.dangling;
    let budget = options.free.is_some()
        || options.keep_storage.is_some()
        || options.high.is_some()
        || options.low.is_some();
    let (scope, goal) = (if scoped { options } else { file }, if budget { options } else { file });
    Conditions {
        dangling: scope.dangling,
        all: scope.all,
        filter: if options.filter.is_empty() { &file.filter } else { &options.filter }.clone(),
        unused_for: options.unused_for.or(file.unused_for),
        keep_last: options.keep_last.or(file.keep_last),
        // What one of the two protects is protected.
        protect: [&options.protect[..], &file.protect[..]].concat(),
        keep_storage: goal.keep_storage,
        free: goal.free,
        high: goal.high,
        low: goal.low,
        evict: options.evict.or(file.evict),
        interrupted: options.interrupted || file.interrupted,
    }
}

fn check(wanted: &Conditions) -> Result<(), Failure> {
    match (wanted.high, wanted.low) {
        (Some(_), None) => {
            return Err(Failure::usage("--high needs --low: how much is to be in use afterwards"));
        }
        (None, Some(_)) => return Err(Failure::usage("--low needs --high: from how much on images go")),
        (Some(high), Some(low)) if low > high => {
            return Err(Failure::usage(format!("--low {low}% is above --high {high}%")));
        }
        _ => {}
    }
    let goals = [
        wanted.free.map(|_| "--free"),
        wanted.keep_storage.map(|_| "--keep-storage"),
        wanted.high.map(|_| "--high"),
    ];
    let goals: Vec<&str> = goals.into_iter().flatten().collect();
    if let [first, second, ..] = goals[..] {
        return Err(Failure::usage(format!("{first} and {second} are two goals: give one of them")));
    }
    if wanted.all && wanted.dangling {
        return Err(Failure::usage("--all and --dangling contradict each other"));
    }
    let dangling = |only: bool| wanted.filter.contains(&PruneFilter::Dangling(only));
    if dangling(false) && (dangling(true) || wanted.dangling) {
        return Err(Failure::usage("`dangling=true` and `dangling=false` contradict each other"));
    }
    one_until(&wanted.filter)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use layerstore::Evict;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::errors::Exit;

    const NOW: i64 = 1_700_000_000;

    fn options(line: &str) -> Conditions {
        let words = ["layerstore", "gc"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Gc(args) => args.conditions,
            other => panic!("{other:?}"),
        }
    }

    fn with(line: &str, file: &str) -> Result<Wishes, Failure> {
        resolve(&options(line), &options(file), NOW)
    }

    fn policy(line: &str) -> Policy {
        with(line, "").unwrap().policy
    }

    #[test]
    fn any_condition_is_about_all_unused_images() {
        for line in [
            "--all",
            "-a",
            "--unused-for 30d",
            "--keep-last 3",
            "--free 1GB",
            "--keep-storage 1GB",
            "--high 85% --low 70%",
            "--evict trees",
            "--filter label=a",
            "--filter dangling=false",
            "--all --protect x",
        ] {
            assert_eq!(policy(line).scope, Scope::Unused, "{line}");
        }
        for line in [
            "--dangling",
            "--filter dangling=true",
            "--dangling --unused-for 1d",
            "--dangling --filter dangling=true",
        ] {
            assert_eq!(policy(line).scope, Scope::Dangling, "{line}");
        }
        for line in ["", "--interrupted"] {
            assert_eq!(policy(line).scope, Scope::Garbage, "{line}");
        }
    }

    #[test]
    fn options_become_a_policy() {
        let found = policy(
            "--filter until=1600000000 --filter label=a --filter reference=x/* --unused-for 1h \
            --keep-last 2 --protect a --protect b --keep-storage 20GB --evict blobs --interrupted",
        );
        assert_eq!(
            (found.until, found.unused_since, found.keep_last),
            (Some(1_600_000_000), Some(NOW - 3600), Some(2))
        );
        assert_eq!((found.labels.len(), found.names.len(), found.protect.len()), (1, 1, 2));
        assert_eq!(
            (found.goal, found.evict, found.interrupted),
            (Some(Goal::KeepStorage(20_000_000_000)), Some(Evict::Blobs), true)
        );
        assert_eq!(with("--high 85% --low 70", "").unwrap().watermark, Some((85, 70)));
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let found =
            with("--unused-for 1h --protect a", "--unused-for 2h --keep-last 3 --protect b --filter label=x")
                .unwrap();
        let policy = found.policy;
        assert_eq!((policy.unused_since, policy.keep_last), (Some(NOW - 3600), Some(3)));
        assert_eq!((policy.protect.len(), policy.labels.len()), (2, 1), "what one of both protects stays");
        let found = with("--free 1GB", "--high 85% --low 70%").unwrap();
        assert_eq!((found.policy.goal, found.watermark), (Some(Goal::Free(1_000_000_000)), None));
        assert_eq!(with("--dangling", "--all").unwrap().policy.scope, Scope::Dangling);
        assert_eq!(
            with("--filter label=a --filter label=b", "--filter label=c").unwrap().policy.labels.len(),
            2
        );
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for (line, part) in [
            ("--high 85%", "--low"),
            ("--low 85%", "--high"),
            ("--high 70% --low 85%", "above"),
            ("--free 1GB --keep-storage 1GB", "--keep-storage"),
            ("--free 1GB --high 85% --low 70%", "two goals"),
            ("--all --dangling", "contradict"),
            ("--all --filter dangling=true", "contradict"),
            ("--dangling --filter dangling=false", "contradict"),
            ("--dangling --keep-last 3", "repository"),
            ("--dangling --filter reference=x", "repository"),
            ("--protect x", "--protect"),
            ("--filter until=1h --filter until=2h", "more than one"),
        ] {
            let failure = with(line, "").unwrap_err();
            assert_eq!(failure.exit, Exit::WrongUsage, "{line}");
            assert!(failure.sentence.contains(part), "{line}: {}", failure.sentence);
        }
    }
}
