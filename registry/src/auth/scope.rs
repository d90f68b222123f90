//! What a token is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that can be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Read.
    Pull,
    /// Write. Servers want [`Action::Pull`] with it.
    Push,
}

/// Actions on a repository. As text, it is what token servers expect: `repository:library/nginx:pull,push`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// The name below the host, such as `library/nginx`.
    pub(crate) repository: String,
    /// What is to be done; sorted, so that equal scopes have equal texts.
    pub(crate) actions: BTreeSet<Action>,
}

impl Scope {
    /// To do these with a repository.
    pub(crate) fn new(repository: impl Into<String>, actions: impl IntoIterator<Item = Action>) -> Self {
        Self { repository: repository.into(), actions: actions.into_iter().collect() }
    }

    /// To read a repository.
    pub(crate) fn pull(repository: impl Into<String>) -> Self {
        Self::new(repository, [Action::Pull])
    }

    /// To read and write a repository.
    pub(crate) fn push(repository: impl Into<String>) -> Self {
        Self::new(repository, [Action::Pull, Action::Push])
    }

    /// The same scopes with one for each repository, sorted.
    pub(crate) fn merge<'a>(scopes: impl IntoIterator<Item = &'a Self>) -> Vec<Self> {
        let mut merged: BTreeMap<&str, BTreeSet<Action>> = BTreeMap::new();
        for scope in scopes {
            merged.entry(&scope.repository).or_default().extend(&scope.actions);
        }
        merged.into_iter().map(|(repository, actions)| Self::new(repository, actions)).collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:", self.repository)?;
        for (index, action) in self.actions.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(match action {
                Action::Pull => "pull",
                Action::Push => "push",
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_specification() {
        assert_eq!(Scope::pull("library/nginx").to_string(), "repository:library/nginx:pull");
        assert_eq!(Scope::push("a").to_string(), "repository:a:pull,push");
        assert_eq!(Scope::new("a", [Action::Delete, Action::Pull]).to_string(), "repository:a:pull,delete");
    }

    #[test]
    fn scopes_of_one_repository_become_one() {
        let scopes = [Scope::push("b"), Scope::pull("a"), Scope::pull("b")];
        assert_eq!(Scope::merge(&scopes), [Scope::pull("a"), Scope::push("b")]);
    }
}
