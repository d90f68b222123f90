//! What a user may do.

use serde_json::{Value, json};

/// Pairs of a repository, or `*`, and actions.
#[derive(Clone, Debug, Default)]
pub(super) struct Rights(Vec<(String, Vec<String>)>);

impl Rights {
    pub(super) fn new(rights: &[(&str, &str)]) -> Self {
        let actions = |list: &str| list.split(',').map(str::to_owned).collect();
        Self(rights.iter().map(|(repository, list)| ((*repository).to_owned(), actions(list))).collect())
    }

    /// The access that a scope gets: those of its actions that are allowed, which may be none. Nothing for what is no
    /// scope of a repository.
    pub(super) fn grant(&self, scope: &str) -> Option<Value> {
        let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let may = |action: &&str| {
            self.0.iter().any(|(repository, allowed)| {
                (repository == "*" || repository == name) && allowed.iter().any(|a| a == action)
            })
        };
        let actions: Vec<_> = actions.split(',').filter(may).collect();
        Some(json!({"type": "repository", "name": name, "actions": actions}))
    }
}
