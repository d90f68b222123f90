//! What goes and what stays: the decisions behind `gc`, `df` and `why`.
//!
//! Nothing here touches the disk. From the [graph](layerstore_store::Graph) of a store, which is data alone, these functions
//! work out what nothing keeps ([`plan()`]), what a [`Policy`] takes of what nobody uses, what each image takes
//! ([`account()`]), and why something is here ([`ways`]). The store then carries a plan out, and leaves alone what somebody
//! has claimed since ([`Store::forget`](layerstore_store::Store::forget)).
//!
//! Bytes are exact: they are those of the objects that [drop to zero](Counts), each counted once.

mod account;
mod count;
mod group;
mod mark;
mod plan;
mod policy;
mod why;

pub use account::{Account, GroupAccount, ImageAccount, Tally, account, images};
pub use count::Counts;
pub use group::{Group, User, groups, users};
pub use mark::{kept, reach};
pub use plan::{Cause, Kept, Plan, PlannedName, PlannedVictim, freed_by_policy, plan, plan_beside, takes};
pub use policy::{Evict, Goal, LabelFilter, Policy, Reason, Scope, Stays, familiar};
pub use why::{Above, Freed, Way, Ways, describe, freed_by, ways};
